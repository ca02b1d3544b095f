"""What a model answers and by which number it is judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.data.labels import Kind, Metric, Task


@dataclass(frozen=True)
class TaskSpec:
    """One kind of task with the labels of one model."""

    task: Task
    kind: Kind
    labels: tuple[str, ...]
    metric: Metric
    pair: bool


def task_spec(kind: Kind, labels: Sequence[str] = (), *, pair: bool, scored: bool = True) -> TaskSpec:
    """Return the spec of a kind of task with its metric.

    Args:
        kind: what is predicted.
        labels: names by id; classification only.
        pair: True when a row holds two texts.
        scored: for embeddings, True when the evaluation rows hold a similarity of their two texts.
    """
    if kind == "classification":
        return TaskSpec("text-classification", kind, tuple(labels), "accuracy", pair)
    if kind == "regression":
        return TaskSpec("text-classification", kind, (), "spearman", pair)
    return TaskSpec("feature-extraction", kind, (), "spearman" if pair and scored else "similarity_spearman", pair)

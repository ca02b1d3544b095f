"""Score a predictor on rows: one code path for a torch model, an ONNX file, a package and a baseline.

A predictor is ``predict(texts, pairs or None) -> (rows, values)``. Which numbers come of it, the kind of task says
(``compressor/tasks``). All metrics are shares of 1.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from compressor.data.table import Table
from compressor.refused import Refused
from compressor.scoring.contract import Array, TaskSpec

Predict = Callable[[list[str], list[str] | None], Array]


class Evaluation(NamedTuple):
    """Metrics, and the outputs they came from: for pairs of embeddings the first texts' rows, then the second's."""

    metrics: dict[str, float]
    outputs: Array


def outputs_on(predict: Predict, table: Table, spec: TaskSpec) -> Array:
    """Return what a predictor says of rows: one output a row, or first the first texts' and then the second's."""
    if spec.reads_pairs:
        return np.asarray(predict(table.texts, table.pairs))
    return np.asarray(predict(table.texts + (table.pairs or []), None))


def tuned(predict: Predict, held_out: Table | None, spec: TaskSpec, name: str = "logits") -> TaskSpec:
    """Return the task with what is chosen on held-out rows by a predictor's own outputs; as it is without any."""
    return (
        spec if held_out is None or not spec.tunes else spec.tuned(outputs_on(predict, held_out, spec), held_out, name)
    )


def evaluate(
    predict: Predict, table: Table, spec: TaskSpec, teacher_outputs: Array | None = None, name: str = "logits"
) -> Evaluation:
    """Return the metrics of a predictor on a table.

    Args:
        predict: texts and second texts (or None) to one row of outputs per text.
        table: evaluation rows; labels are matched to ``spec.labels``.
        spec: the task.
        teacher_outputs: ``Evaluation.outputs`` of the teacher on the same rows; adds the agreement with it.
        name: of the output that the predictor gives, where a model has several.
    """
    spec.targets(table)  # may refuse, before anything is run
    spec.check_rows(table)
    if spec.reads_pairs and spec.pair and table.pairs is None:
        raise Refused(f"{table.source}: the task needs two texts, the rows have one. Name the other: --pair-column.")
    outputs = outputs_on(predict, table, spec)
    metrics = measured(outputs, table, spec, name)
    if teacher_outputs is not None:
        metrics |= agreed(outputs, teacher_outputs, spec, name)
    if spec.metric not in metrics:
        raise Refused(_no_metric(table, teacher_outputs))
    return Evaluation(metrics, outputs)


def measured_teacher(outputs: Array, table: Table, spec: TaskSpec) -> dict[str, float]:
    """Return the metrics of a teacher's outputs on rows; it agrees with itself where that is the metric."""
    spec.check_rows(table)
    itself = {spec.metric: 1.0} if spec.metric in spec.of_teacher else {}
    return measured(outputs, table, spec) | itself


def measured(outputs: Array, table: Table, spec: TaskSpec, name: str = "logits") -> dict[str, float]:
    """Return the metrics of outputs on rows; none where the rows have nothing to compare with."""
    return spec.measure(
        _checked(outputs, len(table) * (1 if spec.reads_pairs or table.pairs is None else 2)), table, name
    )


def score(outputs: Array, labels: Sequence[Any], spec: TaskSpec, name: str = "logits") -> dict[str, float]:
    """Return the metrics of outputs against class ids, numbers, or similarities.

    Args:
        outputs: (rows, classes), (rows, 1) or (rows,), or (2 rows, width): the first texts' embeddings, the second's.
        labels: one per row.
        spec: the task.
        name: of the output.
    """
    if not len(labels):
        raise Refused(f"evaluation: got {len(outputs)} rows of outputs for 0 labels.")
    return spec.score(_checked(outputs, len(labels) * (1 if spec.reads_pairs else 2), len(labels)), labels, name)


def _checked(outputs: Array, n_expected: int, n_labels: int | None = None) -> Array:
    """Return outputs in float64, finite and as many as there should be."""
    outputs = np.asarray(outputs, dtype=np.float64)
    if not np.isfinite(outputs).all():
        row = int(np.argwhere(~np.isfinite(outputs))[0][0]) + 1
        raise Refused(f"evaluation: the output of row {row} is not finite. The model is broken; train it again.")
    if len(outputs) != n_expected:
        what = f"{n_expected} texts" if n_labels is None else f"{n_labels} labels"
        raise Refused(f"evaluation: got {len(outputs)} rows of outputs for {what}.")
    return outputs


def agreed(outputs: Array, teacher_outputs: Array, spec: TaskSpec, name: str = "logits") -> dict[str, float]:
    """Return how far a student answers like its teacher, labels aside."""
    ours, theirs = np.asarray(outputs, dtype=np.float64), np.asarray(teacher_outputs, dtype=np.float64)
    if len(ours) != len(theirs):
        raise Refused(f"evaluation: {len(ours)} rows of the student, {len(theirs)} of the teacher; use one file.")
    return spec.agreement(ours, theirs, name)


def _no_metric(table: Table, teacher_outputs: Array | None) -> str:
    if teacher_outputs is None:
        return f"{table.source}: rows without scored pairs need a teacher to compare with. Name it with --teacher."
    return f"{table.source}: {len(table)} rows are too few to compare similarities. Give at least three for --eval."

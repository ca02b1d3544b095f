"""Task metrics: one code path for a torch model, an ONNX file, a package and a baseline.

A predictor is ``predict(texts, pairs or None) -> (rows, values)``. Classification: accuracy and F1 (of the class with
id 1 when there are two, macro otherwise). Regression: Spearman and Pearson. Embeddings of scored pairs: both of the
cosines. Embeddings of plain text have only their teacher to agree with: mean cosine (equal widths) and the Spearman
correlation of the two similarity structures. A constant predictor has no correlation; it is reported as 0. All metrics
are shares of 1.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.data.labels import label_ids, label_numbers, number
from compressor.data.table import Table
from compressor.refused import Refused
from compressor.tasks.spec import TaskSpec, task_spec

Array = npt.NDArray[Any]  # outputs come in any float type
Predict = Callable[[list[str], list[str] | None], Array]

N_SIMILARITY_ROWS = 1000  # 499,500 pairs tell two similarity structures apart; the cost is quadratic


class Evaluation(NamedTuple):
    """Metrics, and the outputs they came from: for pairs of embeddings the first texts' rows, then the second's."""

    metrics: dict[str, float]
    outputs: Array


def evaluate(predict: Predict, table: Table, spec: TaskSpec, teacher_outputs: Array | None = None) -> Evaluation:
    """Return the metrics of a predictor on a table.

    Args:
        predict: texts and second texts (or None) to one row of outputs per text.
        table: evaluation rows; labels are matched to ``spec.labels``.
        spec: the task.
        teacher_outputs: ``Evaluation.outputs`` of the teacher on the same rows; adds the agreement with it.
    """
    targets = targets_of(table, spec)
    if spec.kind != "embedding" and spec.pair and table.pairs is None:
        raise Refused(f"{table.source}: the task needs two texts, the rows have one. Name the other: --pair-column.")
    if spec.kind == "embedding":
        both = table.texts + (table.pairs or [])
        outputs = np.asarray(predict(both, None))
    else:
        outputs = np.asarray(predict(table.texts, table.pairs))
    metrics = score(outputs, targets, spec) if targets is not None else {}
    if teacher_outputs is not None:
        metrics |= agreement(outputs, teacher_outputs, spec)
    if spec.metric not in metrics:
        raise Refused(_no_metric(table, spec, teacher_outputs))
    return Evaluation(metrics, outputs)


def targets_of(table: Table, spec: TaskSpec) -> list[int] | list[float] | None:
    """Return what the outputs are compared with: class ids, numbers, or None where there is nothing."""
    if table.labels is None:
        return None
    if spec.kind == "classification":
        names = table.columns.get("label_names")
        known = list(map(str, names)) if isinstance(names, list) else None
        return label_ids(table.labels, dict(enumerate(spec.labels)), table.source, names=known)
    has_number = any(number(str(label)) is not None for label in table.labels)
    if spec.kind == "embedding" and (table.pairs is None or not has_number):
        return None  # classes, and labels of single texts, say nothing about an embedding by itself
    return label_numbers(table.labels, table.source)


def label_array(table: Table, kind: str, labels: Sequence[str]) -> Array | None:
    """Return the labels as a loss takes them (rows,): ids (int64) or scores (float32); ``None`` without labels."""
    if table.labels is None or (kind == "embedding" and table.pairs is None):
        return None
    targets = targets_of(table, task_spec(kind, labels, pair=table.pairs is not None))  # type: ignore[arg-type]
    return np.asarray(targets, dtype=np.int64 if kind == "classification" else np.float32)


def score(outputs: Array, labels: Sequence[int] | Sequence[float], spec: TaskSpec) -> dict[str, float]:
    """Return the metrics of outputs against class ids, numbers, or similarities.

    Args:
        outputs: (rows, classes), (rows, 1) or (rows,), or (2 rows, width): the first texts' embeddings, the second's.
        labels: one per row.
        spec: the task.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    if not np.isfinite(outputs).all():
        row = int(np.argwhere(~np.isfinite(outputs))[0][0]) + 1
        raise Refused(f"evaluation: the output of row {row} is not finite. The model is broken; train it again.")
    n_expected = len(labels) * (2 if spec.kind == "embedding" else 1)
    if len(outputs) != n_expected or not len(labels):
        raise Refused(f"evaluation: got {len(outputs)} rows of outputs for {len(labels)} labels.")
    if spec.kind == "classification":
        return _classification(outputs, np.asarray(labels, dtype=np.int64), len(spec.labels))
    if spec.kind == "regression":
        return _correlations(outputs.reshape(len(labels)), np.asarray(labels))  # (rows, 1) -> (rows,)
    return _correlations(_cosines(outputs[: len(labels)], outputs[len(labels) :]), np.asarray(labels))


def agreement(outputs: Array, teacher_outputs: Array, spec: TaskSpec) -> dict[str, float]:
    """Return how far a student answers like its teacher, labels aside.

    Classification: "teacher_agreement", the share of equal answers; regression: "teacher_spearman"; embeddings:
    "cosine", the mean over rows (when both are equally wide), and "similarity_spearman", of the similarities among the
    first 1,000 rows.
    """
    ours, theirs = np.asarray(outputs, dtype=np.float64), np.asarray(teacher_outputs, dtype=np.float64)
    if len(ours) != len(theirs):
        raise Refused(f"evaluation: {len(ours)} rows of the student, {len(theirs)} of the teacher; use one file.")
    if spec.kind == "classification":
        return {"teacher_agreement": float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())}
    if spec.kind == "regression":
        return {"teacher_spearman": _correlations(ours.reshape(-1), theirs.reshape(-1))["spearman"]}
    metrics = {"cosine": float(_cosines(ours, theirs).mean())} if ours.shape == theirs.shape else {}
    if len(ours) > 2:
        upper = np.triu_indices(min(len(ours), N_SIMILARITY_ROWS), k=1)
        first, second = (_similarities(rows[:N_SIMILARITY_ROWS])[upper] for rows in (ours, theirs))
        metrics["similarity_spearman"] = _correlations(first, second)["spearman"]
    return metrics


def _classification(outputs: Array, labels: Array, n_classes: int) -> dict[str, float]:
    from sklearn.metrics import f1_score

    if outputs.ndim != 2 or outputs.shape[1] != n_classes:
        raise Refused(f"evaluation: outputs have shape {outputs.shape}, expected {n_classes} values per row.")
    answers = outputs.argmax(axis=1)  # (rows, classes) -> (rows,)
    average = "binary" if n_classes == 2 else "macro"
    f1 = f1_score(labels, answers, average=average, zero_division=0)
    return {"accuracy": float((answers == labels).mean()), "f1": float(f1)}


def _correlations(ours: Array, theirs: Array) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    if len(ours) < 2 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return {"spearman": 0.0, "pearson": 0.0}
    return {"spearman": float(spearmanr(ours, theirs).statistic), "pearson": float(pearsonr(ours, theirs).statistic)}


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)  # (rows, width)


def _cosines(first: Array, second: Array) -> Array:
    result: Array = (_unit(first) * _unit(second)).sum(axis=1)  # (rows, width) -> (rows,)
    return result


def _similarities(rows: Array) -> Array:
    unit = _unit(rows)
    result: Array = unit @ unit.T  # (rows, rows)
    return result


def _no_metric(table: Table, spec: TaskSpec, teacher_outputs: Array | None) -> str:
    if spec.metric != "similarity_spearman":
        kind = "similarities" if spec.kind == "embedding" else "labels"
        return f"{table.source}: the rows have no {kind}, which {spec.metric} needs. Name them with --label-column."
    if teacher_outputs is None:
        return f"{table.source}: rows without scored pairs need a teacher to compare with. Name it with --teacher."
    return f"{table.source}: {len(table)} rows are too few to compare similarities. Give at least three for --eval."

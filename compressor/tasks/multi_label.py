"""Any number of labels for each text, or pair of texts: F1 over all answers (micro), or the mean of the labels' own.

A label is answered where its probability reaches its threshold: 0.5, or what suits held-out rows best
(:meth:`Task.tuned`). A label that few of those rows have gets the threshold that suits all labels together: its own
would be chance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from compressor.data.labels import check_spellings, label_ids
from compressor.data.table import Table
from compressor.refused import Refused
from compressor.scoring import contract
from compressor.scoring.contract import Array, Linear, Targets
from compressor.scoring.resampling import f1, means

if TYPE_CHECKING:
    from torch import Tensor

MIN_AGREEMENT = 0.95  # of the quantised model's single answers, yes or no for each label, with the float one's
FEW_ROWS = 10  # with a label among the held-out rows: fewer say nothing about its threshold
THRESHOLDS = np.arange(1, 50) / 50  # that are tried: 0.02, 0.04, ... 0.98
NEVER = -30.0  # the bias of a label that no row has


@dataclass(frozen=True)
class Task(contract.TaskSpec):
    """A sigmoid for each label by itself."""

    thresholds: tuple[float, ...] = ()  # of the labels by id; (): 0.5 for all

    metrics = ("micro_f1", "macro_f1", "exact_match")
    has_classes = True
    several_labels = True
    tunes = True
    problem_type = "multi_label_classification"
    baseline = "logistic regression for each label"

    @classmethod
    def claims(cls, task: str, config: Mapping[str, Any]) -> bool:
        """Return whether the checkpoint says so: nothing else tells it from one label a row."""
        return config.get("problem_type") == cls.problem_type

    def settled(self, tables: Sequence[Table]) -> list[Table]:
        """Return tables with the teacher's own names as labels, matched as one column: a part may mean others."""
        flat = [label for table in tables for labels in table.labels or [] for label in _several(labels)]
        if not flat:
            return list(tables)
        names = tables[0].columns.get("label_names")
        known = list(map(str, names)) if isinstance(names, list) else None
        found = iter(label_ids(flat, dict(enumerate(self.labels)), tables[0].source, names=known))
        made = []
        for table in tables:
            of_rows = [tuple(self.labels[next(found)] for _ in _several(labels)) for labels in table.labels or []]
            made.append(table if table.labels is None else replace(table, labels=of_rows))
        return made

    def targets(self, table: Table) -> Targets | None:
        """Return of every row a 1 for each label that it has and a 0 for each that it has not."""
        if table.labels is None:
            return None
        rows = [number for number, labels in enumerate(table.labels, start=1) for _ in _several(labels)]
        flat = [label for labels in table.labels for label in _several(labels)]
        names = table.columns.get("label_names")
        known = list(map(str, names)) if isinstance(names, list) else None
        ids = label_ids(flat, dict(enumerate(self.labels)), table.source, names=known, rows=rows) if flat else []
        found = np.zeros((len(table), len(self.labels)), dtype=np.float32)
        found[np.asarray(rows, dtype=np.int64) - 1, ids] = 1.0
        return list(found)

    @classmethod
    def collect(cls, table: Table) -> tuple[str, ...]:
        """Return the labels in alphabetical order."""
        found = sorted({label for labels in table.labels or [] for label in _several(labels)})
        if len(found) < 2:
            got = f"only one label, {found[0]!r}" if found else "no labelled row"
            raise Refused(
                f"{table.source}: {got}; at least two labels are needed. Give rows of every label to --train."
            )
        if len(found) > 20 and len(found) > len(table) / 2:
            raise Refused(
                f"{table.source}: {len(found)} different labels in {len(table)} rows are not classes. Name the column "
                "that holds the labels with --label-column."
            )
        check_spellings([label for labels in table.labels or [] for label in _several(labels)], table.source)
        return tuple(found)

    @classmethod
    def check_training(cls, table: Table) -> None:
        """Refuse rows of which none has a label."""
        if table.labels is not None and not any(table.labels):
            raise Refused(f"{table.source}: no row has a label. Give rows that have some to --train.")

    def score(self, outputs: Array, targets: Sequence[Any], name: str = "logits") -> dict[str, float]:
        """Return micro and macro F1, and the share of rows whose labels are all right and complete."""
        from sklearn.metrics import f1_score

        if outputs.ndim != 2 or outputs.shape[1] != len(self.labels):
            raise Refused(
                f"evaluation: outputs have shape {outputs.shape}, expected {len(self.labels)} values per row."
            )
        right = np.asarray(targets) > 0.5  # (rows, labels)
        answered = probabilities(outputs, name) >= self._limits()
        micro, macro = (f1_score(right, answered, average=each, zero_division=0) for each in ("micro", "macro"))
        return {
            "micro_f1": float(micro),
            "macro_f1": float(macro),
            "exact_match": float((right == answered).all(axis=1).mean()),
        }

    def agreement(self, ours: Array, theirs: Array, name: str = "logits") -> dict[str, float]:
        """Return "teacher_agreement", the share of rows with the same labels above 0.5; the teacher's are logits."""
        same = (probabilities(ours, name) >= 0.5) == (probabilities(theirs, "logits") >= 0.5)
        return {"teacher_agreement": float(same.all(axis=1).mean())}

    def scored_at_once(self, outputs: Array, targets: Targets, name: str = "logits") -> Callable[[Array], Array] | None:
        """Return the metric of draws from what each label was answered and right how often; thresholds stay."""
        if self.metric not in Task.metrics:  # a kind that refines this one may have others
            return None
        right = np.asarray(targets) > 0.5  # (rows, labels)
        answered = probabilities(outputs, name) >= self._limits()
        if self.metric == "exact_match":
            alike = (right == answered).all(axis=1).astype(np.float64)
            return lambda counts: means(alike, counts)
        hits, asked = (right & answered).astype(np.float64), right.astype(np.float64) + answered
        if self.metric == "micro_f1":
            hits, asked = hits.sum(axis=1, keepdims=True), asked.sum(axis=1, keepdims=True)  # (rows, 1)
        return lambda counts: f1(counts @ hits, counts @ asked).mean(axis=1)

    def tuned(self, outputs: Array, table: Table, name: str = "logits") -> Self:
        """Return the task with the threshold of every label that gives it the best F1 on the rows."""
        targets = self.targets(table)
        if targets is None:
            return self
        right = np.asarray(targets) > 0.5  # (rows, labels)
        answered = probabilities(outputs, name)[None] >= THRESHOLDS[:, None, None]  # (thresholds, rows, labels)
        hits = (answered & right).sum(axis=1)  # (thresholds, labels)
        asked = answered.sum(axis=1) + right.sum(axis=0)
        common = _best(2 * hits.sum(axis=1), asked.sum(axis=1))
        own = [_best(2 * hits[:, label], asked[:, label]) for label in range(right.shape[1])]
        enough = right.sum(axis=0) >= FEW_ROWS
        return replace(self, thresholds=tuple(o if is_own else common for o, is_own in zip(own, enough, strict=True)))

    def manifest(self) -> dict[str, Any]:
        """Return the thresholds by label id."""
        return {"thresholds": self._limits().tolist()}

    def restored(self, manifest: Mapping[str, Any]) -> Self:
        """Return the task with the thresholds of a manifest."""
        return replace(self, thresholds=tuple(manifest.get("thresholds", ())))

    def margin(self, output: Sequence[float]) -> float:
        """Return how far the nearest probability is from its threshold."""
        return float(np.abs(np.asarray(output, dtype=np.float64) - self._limits()).min())

    def compared(self, outputs: Array) -> Array:
        """Return no and yes of every label (rows, labels, 2), so that two graphs are compared answer by answer."""
        return np.stack([-outputs, outputs], axis=-1)

    def limits(self, outputs: Array) -> dict[str, float]:
        """Return the least share of equal answers."""
        return {"top1_agreement": MIN_AGREEMENT}

    def label_loss(self, logits: "Tensor", labels: "Tensor", smoothing: float = 0.0) -> "Tensor":
        """Return the binary cross-entropy, summed over the labels: each logit pulls as hard as one of classes does."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        smooth = labels * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits, smooth, reduction="sum") / len(logits)

    def soft_loss(self, ours: "Tensor", theirs: "Tensor", temperature: float) -> "Tensor":
        """Return T^2 KL(sigmoid(theirs / T) || sigmoid(ours / T)), summed over the labels."""
        from compressor.scoring.losses import soft_binary_cross_entropy

        return soft_binary_cross_entropy(ours, theirs, temperature)

    def n_linear(self) -> int:
        """Return one output for each label."""
        return len(self.labels)

    def fit_linear(self, features: Any, targets: Sequence[Any], seed: int) -> Linear:
        """Return a logistic regression for each label."""
        from sklearn.linear_model import LogisticRegression

        features, solver = features.astype(np.float64), "lbfgs" if isinstance(features, np.ndarray) else "liblinear"
        right = np.asarray(targets) > 0.5  # (rows, labels)
        weights = np.zeros((features.shape[1], len(self.labels)), dtype=np.float32)
        bias = np.where(right.all(axis=0), -NEVER, NEVER).astype(np.float32)  # of labels that all rows or none have
        for label in np.flatnonzero(right.any(axis=0) & ~right.all(axis=0)):
            # Of few rows in many: a solver that stops early, as lbfgs in single precision does, loses points here; of
            # dense features liblinear is slow.
            linear = LogisticRegression(C=10.0, solver=solver, max_iter=1000, random_state=seed)
            linear.fit(features, right[:, label])
            weights[:, label], bias[label] = linear.coef_[0], linear.intercept_[0]
        return weights, bias

    def _limits(self) -> Array:
        return np.asarray(self.thresholds or [0.5] * len(self.labels), dtype=np.float64)


def probabilities(outputs: Array, name: str) -> Array:
    """Return the probability of every label (rows, labels), of an output that is called "logits" or is one already."""
    return 1.0 / (1.0 + np.exp(-outputs.astype(np.float64))) if name == "logits" else outputs


def _best(twice_hits: Array, asked: Array) -> float:
    """Return the threshold with the best F1, of equal ones that nearest to 0.5."""
    scores = twice_hits / np.maximum(asked, 1)
    best = np.flatnonzero(scores == scores.max())
    return float(THRESHOLDS[best[np.abs(THRESHOLDS[best] - 0.5).argmin()]])


def _several(labels: Any) -> tuple[str, ...]:
    assert isinstance(labels, tuple), "rows are read with several labels each"
    return labels

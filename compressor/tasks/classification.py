"""One of several classes for each text, or pair of texts: accuracy, and F1 of the second of two or the mean of all."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.data.labels import check_classes, collect_labels, label_ids
from compressor.data.table import Table
from compressor.refused import Refused
from compressor.scoring import contract
from compressor.scoring.contract import Array, Linear, Targets
from compressor.scoring.metrics import n_labels_of
from compressor.scoring.resampling import class_sums, f1, means

if TYPE_CHECKING:
    from torch import Tensor

MIN_TOP1_AGREEMENT = 0.85  # of the quantised model with the float one; --max-drop judges the quality itself


class Task(contract.TaskSpec):
    """Softmax over classes, of which one is right."""

    metrics = ("accuracy", "f1", "macro_f1", "micro_f1")
    has_classes = True
    has_one_class = True
    problem_type = "single_label_classification"
    target_type = np.int64
    baseline = "logistic regression"

    @classmethod
    def claims(cls, task: str, config: Mapping[str, Any]) -> bool:
        """Return whether the model has two labels or more, of which one is meant."""
        return n_labels_of(config) > 1 and config.get("problem_type") in (None, cls.problem_type)

    def targets(self, table: Table) -> Targets | None:
        """Return the id of every row's label."""
        if table.labels is None:
            return None
        names = table.columns.get("label_names")
        known = list(map(str, names)) if isinstance(names, list) else None
        return label_ids(table.labels, dict(enumerate(self.labels)), table.source, names=known)  # type: ignore[arg-type]

    @classmethod
    def collect(cls, table: Table) -> tuple[str, ...]:
        """Return the classes, sorted (by value when all are integers)."""
        assert table.labels is not None
        return collect_labels(table.labels, table.source)  # type: ignore[arg-type]

    @classmethod
    def check_training(cls, table: Table) -> None:
        """Refuse rows that are all of one class."""
        if table.labels is not None:
            check_classes(table.labels, table.source)  # type: ignore[arg-type]

    def score(self, outputs: Array, targets: Sequence[Any], name: str = "logits") -> dict[str, float]:
        """Return accuracy and F1 of outputs (rows, classes) against ids: of the class with id 1 when there are two."""
        from sklearn.metrics import f1_score

        labels = np.asarray(targets, dtype=np.int64)
        if outputs.ndim != 2 or outputs.shape[1] != len(self.labels):
            raise Refused(
                f"evaluation: outputs have shape {outputs.shape}, expected {len(self.labels)} values per row."
            )
        answers = outputs.argmax(axis=1)  # (rows, classes) -> (rows,)
        usual = "binary" if len(self.labels) == 2 else "macro"
        found = {"accuracy": float((answers == labels).mean())}
        averages = {"f1": usual, "macro_f1": "macro", "micro_f1": "micro"}
        for metric in dict.fromkeys(("f1", self.metric)):  # the others only where they are asked for
            if metric in averages:
                found[metric] = float(f1_score(labels, answers, average=averages[metric], zero_division=0))
        return found

    def agreement(self, ours: Array, theirs: Array, name: str = "logits") -> dict[str, float]:
        """Return "teacher_agreement", the share of equal answers."""
        return {"teacher_agreement": float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())}

    def scored_at_once(self, outputs: Array, targets: Targets, name: str = "logits") -> Callable[[Array], Array] | None:
        """Return the metric of draws from what each class was answered and right how often."""
        if self.metric not in Task.metrics:  # a kind that refines this one may have others
            return None
        labels, answers = np.asarray(targets, dtype=np.int64), outputs.argmax(axis=1)
        if self.metric in ("accuracy", "micro_f1"):  # of one label a row they are the same
            return lambda counts: means((answers == labels).astype(np.float64), counts)
        is_binary = self.metric == "f1" and len(self.labels) == 2

        def scored(counts: Array) -> Array:
            hits, asked = class_sums(labels, answers, len(self.labels), counts)
            of_classes = f1(hits, asked)  # (draws, classes)
            # As scikit-learn's, the mean is that of the classes which are right or answered anywhere.
            mean: Array = of_classes.sum(axis=1) / (asked > 0).sum(axis=1)
            return of_classes[:, 1] if is_binary else mean

        return scored

    def margin(self, output: Sequence[float]) -> float:
        """Return how far the best class is ahead of the second."""
        best = sorted(output)[-2:]
        return best[-1] - best[0] if len(best) == 2 else 0.0

    def limits(self, outputs: Array) -> dict[str, float]:
        """Return the least share of equal answers."""
        return {"top1_agreement": MIN_TOP1_AGREEMENT}

    def label_loss(self, logits: "Tensor", labels: "Tensor", smoothing: float = 0.0) -> "Tensor":
        """Return the cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels, label_smoothing=smoothing)

    def soft_loss(self, ours: "Tensor", theirs: "Tensor", temperature: float) -> "Tensor":
        """Return T^2 KL(theirs / T || ours / T)."""
        from compressor.scoring.losses import soft_cross_entropy

        return soft_cross_entropy(ours, theirs, temperature)

    def n_linear(self) -> int:
        """Return one output for two classes, whose other is its negative, and one each for more."""
        return 1 if len(self.labels) == 2 else len(self.labels)

    def fit_linear(self, features: Any, targets: Sequence[Any], seed: int) -> Linear:
        """Return logistic regression; two classes get the columns (-x, x), so that the largest is the answer."""
        from sklearn.linear_model import LogisticRegression

        # The gradient is that of the mean loss: of many classes it is small from the start, and dense features do not
        # make up for a solver that stops early (150 classes on a sentence encoder: 94.4 for 96.0).
        tolerance = 1e-5 if isinstance(features, np.ndarray) else 1e-3
        linear = LogisticRegression(C=10.0, max_iter=1000, tol=tolerance, random_state=seed)
        linear.fit(features, targets)
        weights, bias = linear.coef_.T, linear.intercept_  # (features, classes seen or 1), (classes seen or 1,)
        if weights.shape[1] == 1:
            weights, bias = np.hstack([-weights, weights]), np.concatenate([-bias, bias])
        columns = [int(index) for index in sorted(set(targets))]
        full = np.zeros((weights.shape[0], len(self.labels)), dtype=np.float32)
        full_bias = np.full(len(self.labels), -1e9, dtype=np.float32)  # a class without rows is never answered
        full[:, columns], full_bias[columns] = weights, bias
        return full, full_bias

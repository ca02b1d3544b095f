"""A score for each text, or pair of texts: Spearman's and Pearson's correlation."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.data.labels import label_numbers
from compressor.data.table import Table
from compressor.scoring import contract
from compressor.scoring.contract import TOLERANCE, Array, Linear, Targets
from compressor.scoring.metrics import correlations, n_labels_of
from compressor.scoring.resampling import correlation

if TYPE_CHECKING:
    from torch import Tensor

LEAST_DIFFERENCE = 1e-3  # that quantising may make, whatever the scores are


class Task(contract.TaskSpec):
    """One number, whose order counts."""

    metrics = ("spearman", "pearson")
    problem_type = "regression"
    baseline = "ridge regression"

    @classmethod
    def claims(cls, task: str, config: Mapping[str, Any]) -> bool:
        """Return whether the model has one output, which is no label by itself."""
        known = None, cls.problem_type, "single_label_classification"  # which one label by itself cannot be
        return n_labels_of(config) == 1 and config.get("problem_type") in known

    def targets(self, table: Table) -> Targets | None:
        """Return every row's label as a number."""
        return None if table.labels is None else label_numbers(table.labels, table.source)  # type: ignore[arg-type]

    def score(self, outputs: Array, targets: Sequence[Any], name: str = "logits") -> dict[str, float]:
        """Return the correlations of outputs (rows, 1) or (rows,)."""
        return correlations(outputs.reshape(len(targets)), np.asarray(targets))

    def agreement(self, ours: Array, theirs: Array, name: str = "logits") -> dict[str, float]:
        """Return "teacher_spearman"."""
        return {"teacher_spearman": correlations(ours.reshape(-1), theirs.reshape(-1))["spearman"]}

    def scored_at_once(self, outputs: Array, targets: Targets, name: str = "logits") -> Callable[[Array], Array] | None:
        """Return the correlation of draws with the scores."""
        if self.metric not in Task.metrics:  # a kind that refines this one may have others
            return None
        ours, theirs = outputs.reshape(len(targets)).astype(np.float64), np.asarray(targets, dtype=np.float64)
        return correlation(self.metric, ours, theirs)

    def limits(self, outputs: Array) -> dict[str, float]:
        """Return the largest difference: as far as scores spread."""
        return {"max_abs": max(float(outputs.std()), LEAST_DIFFERENCE)}

    def tolerance(self, table: Table) -> float:
        """Return a tolerance that grows with the range of the scores."""
        targets = self.targets(table)
        return TOLERANCE if targets is None else TOLERANCE * max(1.0, float(np.ptp(np.asarray(targets, np.float64))))

    def label_loss(self, logits: "Tensor", labels: "Tensor", smoothing: float = 0.0) -> "Tensor":
        """Return the mean squared error."""
        from torch.nn.functional import mse_loss

        return mse_loss(logits.squeeze(-1), labels.float())

    def soft_loss(self, ours: "Tensor", theirs: "Tensor", temperature: float) -> "Tensor":
        """Return the mean squared difference from the teacher's scores."""
        from torch.nn.functional import mse_loss

        return mse_loss(ours.float(), theirs)

    def n_linear(self) -> int:
        """Return one output."""
        return 1

    def fit_linear(self, features: Any, targets: Sequence[Any], seed: int) -> Linear:
        """Return ridge regression."""
        from sklearn.linear_model import Ridge

        linear = Ridge(alpha=1.0, solver="sparse_cg", random_state=seed)
        linear.fit(features, targets)
        return linear.coef_.reshape(-1, 1), np.atleast_1d(linear.intercept_)

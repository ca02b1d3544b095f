"""The part of a method that is trained: the student and whatever helps it, as one ``nn.Module`` with hooks."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressor.training.contract import MethodOptions, Mixing, Relabelled
from exporters.shape import Shape


class Objective(nn.Module):
    """Base of every method's objective; hooks that a method does not need do nothing."""

    needs_teacher: ClassVar[bool] = False  # the context must bring the teacher, whose weights are only read
    measures: ClassVar[bool] = False  # the context must bring the teacher's activations on training rows
    learning_rate: ClassVar[float | None] = None  # the default peak
    token_share: ClassVar[float] = 1.0  # of the tokens that a stage sees by default
    runs_wide: ClassVar[bool] = False  # what is trained is as wide as the teacher; counts in the time
    is_folded: ClassVar[bool] = False  # ``finish`` makes the plain student, with a certificate
    clips_apart: ClassVar[bool] = False  # gradients are clipped by learning rate: ``rate_of`` has several
    any_family: ClassVar[bool] = False  # it asks no more of a student than outputs and states: small encoders serve too
    keeps_best: ClassVar[bool] = False  # any epoch's state is a whole student: the best by held-out rows is kept
    makes_gradients: ClassVar[bool] = False  # ``before_step`` does: they are clipped, and measured, after it

    student: Any  # a PreTrainedModel, as an attribute or a property
    trains_teacher: bool = False  # the context must bring a live teacher, which is run or trained
    is_scored: bool = True  # whether the student is worth scoring while it is trained
    relabels: bool = False  # whether ``relabel`` makes other labels for the rows
    mixing: Mixing | None = None  # batches carry the mixed view

    @staticmethod
    def check_shapes(teacher: Shape, student: Shape, options: MethodOptions) -> None:
        """Refuse shapes that the method cannot make, in the plan."""

    def rate_of(self, name: str) -> float | None:
        """Return the peak learning rate of one parameter, or ``None`` for the stage's."""
        return None

    def is_undecayed(self, name: str) -> bool:
        """Return whether a parameter gets no weight decay, beside biases and gains."""
        return False

    def observe(self) -> dict[str, float]:
        """Return numbers for the log."""
        return {}

    def relabel(self, outputs: npt.NDArray[np.float32], labels: npt.NDArray[np.generic]) -> Relabelled:
        """Return the labels that batches carry, from the teacher's outputs on all rows (rows, classes) and theirs."""
        raise AssertionError("only where relabels is set")

    def begin(self, n_steps: int) -> None:
        """Prepare for so many steps, also when the stage resumes; what is counted belongs in persistent buffers."""

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Finish the gradients of a step: all parts of the batch are there and none is clipped.

        Here gradients of tensors that were computed become ``.grad`` of the parameters they were computed from; under
        several processes the objective averages them itself, which the trainer cannot.
        """

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Change parameters right after ``optimizer.step()``, before the learning rate changes."""

    def scored(self) -> nn.Module:
        """Return the model to score while it is trained."""
        model: nn.Module = self.student
        return model

    def finish(self, batches: list[dict[str, Tensor]]) -> dict[str, Any]:
        """Make ``student`` the plain model, hold it to evaluation rows or raise ``FoldError``, and return fold.json."""
        raise AssertionError("only where is_folded is set")

"""Shared projections between the parameters of a teacher and of a student (1909.11687 v1, section 2.3).

    down:  mean over tensors of mean |U theta_t V - theta_s|^2       U (a_s x a_t), V (b_t x b_s)
    up:    mean over tensors of mean |theta_t - U theta_s V|^2       U (a_t x a_s), V (b_s x b_t)

theta_t and theta_s are the tensors of one role in corresponding layers. The matrices are shared by all layers: there is
one U and one V per pair of sizes, two of each for BERT (hidden and FFN). Vectors are projected by U alone. The axes of
tokens, positions, segments and classes are left alone, so embedding tables are projected by V alone, the word table
against the student's table inside the teacher. Means, not sums, keep the factor in the loss independent of the width.
They are thrown away after training.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.models.families import Family
from compressor.models.slots import find_slots

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Direction = Literal["up", "down"]


class Pair(NamedTuple):
    """One student tensor and its teacher's; ``left`` and ``right`` name the matrices of its axes, "" for none."""

    student: str
    teacher: str
    left: str
    right: str


class SharedProjections(nn.Module):
    """The matrices, and the loss that ties the parameters."""

    def __init__(
        self,
        family: Family,
        student: "PreTrainedModel",
        teacher: "PreTrainedModel",
        layers: list[int],
        direction: Direction,
    ) -> None:
        """Pair every tensor of the student and build one matrix per pair of sizes and side.

        Args:
            family: of both.
            student: the student.
            teacher: the teacher.
            layers: the teacher's layer for each of the student's.
            direction: which of the two is projected.
        """
        super().__init__()
        self.direction = direction
        self.pairs = find_pairs(family, student, teacher, layers)
        self.matrices = nn.ParameterDict()
        ours, theirs = dict(student.named_parameters()), dict(teacher.named_parameters())
        for pair in self.pairs:
            sizes = zip(ours[pair.student].shape, theirs[pair.teacher].shape, strict=True)
            for axis, (name, (n_ours, n_theirs)) in enumerate(zip((pair.left, pair.right), sizes, strict=False)):
                if name and name not in self.matrices:
                    self.matrices[name] = nn.Parameter(_matrix(n_ours, n_theirs, axis, direction))

    def forward(
        self,
        student: dict[str, Tensor],
        teacher: dict[str, Tensor],
        word_tables: tuple[str, Tensor],
        is_teacher_trained: bool,
    ) -> Tensor:
        """Return the loss, in the precision of the matrices whatever the autocast.

        Args:
            student: parameters by name.
            teacher: parameters by name.
            word_tables: name of the student's word table, and the student's table inside the teacher.
            is_teacher_trained: let the gradient into the teacher's tensors; otherwise they are constants, for a free
                teacher could lower the loss by shrinking.
        """
        name, table = word_tables
        losses, precision = [], next(iter(self.matrices.values())).dtype
        with torch.autocast(next(iter(student.values())).device.type, enabled=False):
            for pair in self.pairs:
                ours = student[pair.student].to(precision)
                theirs = (table if pair.student == name else teacher[pair.teacher]).to(precision)
                theirs = theirs if is_teacher_trained else theirs.detach()
                if pair.student != name and not pair.left and ours.shape[0] < theirs.shape[0]:
                    theirs = theirs[: ours.shape[0]]  # the first positions
                source, target = (theirs, ours) if self.direction == "down" else (ours, theirs)
                losses.append(F.mse_loss(self.project(source, pair), target))
        return torch.stack(losses).mean()

    def project(self, tensor: Tensor, pair: Pair) -> Tensor:
        """Return the tensor in the other model's space: U tensor V."""
        left = [self.matrices[pair.left]] if pair.left else []
        right = [self.matrices[pair.right]] if pair.right else []
        factors = [*left, tensor, *right]
        return torch.linalg.multi_dot(factors) if len(factors) > 1 else tensor  # in the cheapest order

    def norms(self) -> dict[str, float]:
        """Return the Frobenius norm of every matrix: a down projection could shrink to the trivial solution 0."""
        return {f"norm_{name}": float(matrix.detach().norm()) for name, matrix in self.matrices.items()}


def find_pairs(family: Family, student: "PreTrainedModel", teacher: "PreTrainedModel", layers: list[int]) -> list[Pair]:
    """Return the pair of every tensor of the student.

    Raises:
        ValueError: naming a tensor without a counterpart, or of another number of axes.
    """
    models = (student, teacher)
    ours, theirs = ({name: tuple(each.shape) for name, each in model.named_parameters()} for model in models)
    pairs = []
    for slot in find_slots(family, ours, theirs, [(layer,) for layer in layers]):
        both = zip(ours[slot.name], theirs[slot.sources[0]], strict=True)
        sizes = [f"{n_theirs}_{n_ours}" for n_ours, n_theirs in both]
        left, right = (
            f"{side}_{sizes[position]}" if position < len(slot.axes) and slot.axes[position].along else ""
            for position, side in enumerate(("left", "right"))
        )
        pairs.append(Pair(slot.name, slot.sources[0], left, right))
    return pairs


def _matrix(n_ours: int, n_theirs: int, axis: int, direction: Direction) -> Tensor:
    """Return the identity where the sizes agree, otherwise a matrix with orthonormal rows or columns."""
    n_in, n_out = (n_theirs, n_ours) if direction == "down" else (n_ours, n_theirs)
    shape = (n_out, n_in) if axis == 0 else (n_in, n_out)  # U stands left of the tensor, V right of it
    if n_in == n_out:
        return torch.eye(n_in)
    return nn.init.orthogonal_(torch.empty(shape))

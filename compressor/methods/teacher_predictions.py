"""Begin with what the teacher gets right and how sure it is: four classes of rows, a stage before distillation (PTP).

    loss = CE(W dropout(pooled) + b, class of the row)
    confidence = max softmax(logits of the teacher)
    0 confidently correct    argmax logits = label and confidence >  t1
    1 unconfidently correct  argmax logits = label and confidence <= t1
    2 confidently wrong      argmax logits != label and confidence >  t2
    3 unconfidently wrong    argmax logits != label and confidence <= t2

The pretraining with teacher's predictions of Pea-KD (arXiv 2009.14822): the student learns to tell how the teacher did
on each training row, by a fresh linear layer on what its own last projection reads (the first token behind the family's
head layers). That layer is thrown away, the task's own projection is drawn fresh, and everything else goes on bit for
bit into the next stage, which teaches the task. The paper means t1 (t2) as the median confidence of the rows that the
teacher gets right (wrong): that is 0 here; they may be numbers, or those that the authors' code has for five tasks
(``published``). For a score, which the paper leaves open, the classes are the terciles of |prediction - label|.

A teacher is nearly always right on the rows that it has learned. ``out_of_fold = 5`` with ``base``, the pretrained
model that it was made from, labels every row by a teacher that has not seen it. Refuses sentence embeddings, rows
without labels or with several, and to be the last stage, whose student could not answer.
"""

import logging
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.data.splits import check_folds
from compressor.data.table import Table
from compressor.models.teacher import TeacherInfo
from compressor.recipe.sections import TeacherSection
from compressor.refused import Refused
from compressor.scoring.contract import TaskSpec
from compressor.student.pretrained import read_base
from compressor.training import objective as base
from compressor.training.contract import (
    Context,
    Folds,
    MethodOptions,
    Relabelled,
    Wants,
    check_choice,
    check_shares,
    model_inputs,
)
from compressor.training.imitation import without_dropout

logger = logging.getLogger(__name__)
METHOD = "teacher_predictions"
FEW_WRONG = 0.02  # of the rows: less is hardly anything to learn from (A3)


CLASSES = ("confidently_correct", "unconfidently_correct", "confidently_wrong", "unconfidently_wrong")
ERRORS = ("small_error", "middle_error", "large_error")

Numbers = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]


class Thresholds(NamedTuple):
    """The confidence above which the teacher counts as confident, in (0, 1]."""

    t1: float  # where it is right
    t2: float  # where it is wrong


# The constants of the authors' code.
PUBLISHED = MappingProxyType(
    {
        "rte": Thresholds(0.80, 0.60),
        "mrpc": Thresholds(0.95, 0.75),
        "sst2": Thresholds(0.98, 0.80),
        "qnli": Thresholds(0.98, 0.70),
        "cola": Thresholds(0.95, 0.70),
    }
)


@dataclass(frozen=True)
class Options(MethodOptions):
    """Knobs of ``teacher_predictions``."""

    t1: float = 0.0  # confidence above which a correct prediction is a confident one; 0: their median
    t2: float = 0.0  # the same for wrong ones
    published: str = ""  # the paper's t1 and t2 for rte, mrpc, sst2, qnli or cola
    dropout: float = 0.1  # in the whole student, while training
    head: str = "fresh"  # what the next stage finds as the task's projection: a fresh one, or "keep" the one that was
    out_of_fold: int = 0  # label each row by one of so many teachers, made on the rows of the other parts
    base: str = ""  # for these: the pretrained model to make them from, folder or hub id
    base_epochs: float = 0.0  # of these; 0: as 'tenmeg finetune'
    base_learning_rate: float = 0.0  # of these; 0: as 'tenmeg finetune'

    def __post_init__(self) -> None:
        check_shares(METHOD, t1=self.t1, t2=self.t2, dropout=self.dropout)
        check_choice(METHOD, "head", self.head, ("fresh", "keep"))
        if self.published:
            check_choice(METHOD, "published", self.published, tuple(PUBLISHED))
            if self.t1 or self.t2:
                raise Refused(
                    f"recipe: [[stage]] {METHOD!r} has published = {self.published!r} and t1 or t2, expected either. "
                    "Leave out published, or t1 and t2."
                )
        self._check_folds()

    def _check_folds(self) -> None:
        given = {"base_epochs": self.base_epochs, "base_learning_rate": self.base_learning_rate}
        for key, value in given.items():
            if value < 0:
                raise Refused(f"recipe: [[stage]] {METHOD!r} option {key} = {value:g}, expected 0 or more.")
        if self.out_of_fold < 0 or self.out_of_fold == 1:
            raise Refused(
                f"recipe: [[stage]] {METHOD!r} option out_of_fold = {self.out_of_fold}, expected 0 (off) or at least 2 "
                "parts. Use out_of_fold = 5."
            )
        if self.out_of_fold and not self.base:
            raise Refused(
                f"recipe: [[stage]] {METHOD!r} option out_of_fold = {self.out_of_fold} has no base, expected the "
                "pretrained model to make the teachers from: the one given has seen every row. Add base = 'MODEL', a "
                "folder or hub id."
            )
        beside = [key for key, value in {"base": self.base, **given}.items() if value]
        if beside and not self.out_of_fold:
            raise Refused(
                f"recipe: [[stage]] {METHOD!r} has {beside[0]} without out_of_fold, expected both or none. Add "
                f"out_of_fold = 5, or leave out {beside[0]}."
            )

    def check_plan(self, info: TeacherInfo, teacher: TeacherSection, train: Table, *, is_last: bool) -> None:
        """Refuse tasks and stages that other labels make no sense for.

        Raises:
            FileNotFoundError: if the model to make teachers from is not there.
            ValueError: for a sentence encoder, for several labels a row, for options that a score has no use for, for
                a last stage that leaves the student without a trained head, and for more parts than rows.
        """
        _check_task(info.answers)
        given = [name for name in ("t1", "t2", "published") if getattr(self, name)]
        if given and not info.answers.has_classes:
            raise Refused(
                f"recipe: [[stage]] {METHOD!r} has {given[0]}, but the teacher predicts a score, which has no "
                f"confidence: its rows are labelled by terciles of the error. Leave out {given[0]}."
            )
        if is_last:
            raise Refused(
                f"recipe: [[stage]] {METHOD!r} is the last stage, expected one after it that teaches the task: its "
                "student cannot answer it, for its head is not trained. Add a stage such as 'distill'."
            )
        if self.out_of_fold:
            read_base(self.base, teacher, info)
            check_folds(train, self.out_of_fold)

    def wants(self) -> Wants:
        """Return what a stage with this loss wants: out of fold there are other outputs than the cached ones."""
        folds = Folds(self.out_of_fold, self.base, self.base_epochs, self.base_learning_rate)
        return Wants(cache=not self.out_of_fold, labels=True, folds=folds if self.out_of_fold else None)


class Objective(base.Objective):
    """The student, and a linear layer for the classes of rows."""

    relabels = True
    is_scored = False  # the task's projection is not trained here
    token_share = 0.5  # the paper stops after 4 of 6 epochs, and fine-tunes for 7 of 10

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        _check_task(type(context.spec))
        self.student, self.options = context.student, options
        self.is_regression = not context.spec.has_classes
        without_dropout(self.student, options.dropout)
        projection = last_projection(self.student)
        self.classes = nn.Linear(projection.in_features, len(ERRORS if self.is_regression else CLASSES))
        if options.head == "fresh":
            nn.init.normal_(projection.weight, std=self.student.config.initializer_range)
            nn.init.zeros_(projection.bias)
        projection.requires_grad_(False)

    def relabel(self, outputs: npt.NDArray[np.float32], labels: npt.NDArray[np.generic]) -> Relabelled:
        """Return the class of every training row, and how many rows are in each.

        Args:
            outputs: of the teacher on all training rows (rows, classes), or (rows, 1) for a score.
            labels: of the rows (rows,), ids or scores.
        """
        if self.is_regression:
            made, (low, high) = error_terciles(outputs, labels)
            named: dict[str, Any] = {"rows": len(made), "error_1": low, "error_2": high, **counts(made, ERRORS)}
        else:
            t1, t2 = self._thresholds(outputs, labels)
            made = ptp_labels(outputs, labels, t1, t2)
            named = {"rows": len(made), "t1": t1, "t2": t2, **counts(made, CLASSES)}
        facts = {**named, **({"out_of_fold": self.options.out_of_fold} if self.options.out_of_fold else {})}
        note = "" if self.is_regression else self._note(facts)
        return Relabelled(made, {**facts, "note": note} if note else facts)

    def _thresholds(self, outputs: npt.NDArray[np.float32], labels: npt.NDArray[np.generic]) -> tuple[float, float]:
        if self.options.published:
            return PUBLISHED[self.options.published]
        medians = median_thresholds(outputs, labels)
        return self.options.t1 or medians.t1, self.options.t2 or medians.t2

    def _note(self, facts: dict[str, Any]) -> str:
        """Return a sentence, which is also a warning, where nearly every prediction is right."""
        n_wrong = facts["confidently_wrong"] + facts["unconfidently_wrong"]
        if n_wrong >= FEW_WRONG * facts["rows"]:
            return ""
        named = ", ".join(f"{name.replace('_', ' ')} {facts[name]:,}" for name in CLASSES)
        note = f"the teacher is wrong on {n_wrong:,} of {facts['rows']:,} training rows ({named})"
        if not self.options.out_of_fold:
            note += "; out_of_fold = 5 with base = the model it was made from labels rows by teachers new to them"
        logger.warning("%s: %s", METHOD, note)
        return note

    def forward(self, labels: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        """Return the one term ``predictions``; ``labels`` is (batch,) of the classes that ``relabel`` returned."""
        read: list[Tensor] = []
        projection = last_projection(self.student)
        # A hook, for every family has head layers of its own; only for this pass, or copies of the student had it too.
        hook = projection.register_forward_pre_hook(lambda _module, inputs: read.append(inputs[0]))
        try:
            self.student(**model_inputs(batch))
        finally:
            hook.remove()
        logits = self.classes(read[0]).float()  # (batch, classes of rows)
        return {"predictions": F.cross_entropy(logits, labels)}


def _check_task(task: type[TaskSpec]) -> None:
    """Refuse tasks in which no single answer of a row is right or wrong."""
    if not task.needs_labels:
        raise Refused(
            f"method {METHOD!r} got a sentence encoder, expected a task with labels: without them no prediction is "
            "right or wrong. Use --method distill."
        )
    if task.several_labels:
        raise Refused(
            f"method {METHOD!r} got a task with several labels a row, expected one answer a row, which is right or "
            "wrong as a whole. Use --method distill."
        )


def last_projection(student: nn.Module) -> nn.Linear:
    """Return the linear layer that ends a classifier: ``classifier``, or ``classifier.out_proj`` behind its own."""
    head = student.get_submodule("classifier")
    found = [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
    assert found.out_features == student.config.num_labels  # type: ignore[union-attr]
    return found


def confidences(logits: Numbers) -> npt.NDArray[np.float64]:
    """Return max softmax of every row (rows,), from logits (rows, classes); at least 1/classes, at most 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return 1.0 / np.exp(shifted).sum(axis=1)


def ptp_labels(logits: Numbers, labels: npt.NDArray[Any], t1: float, t2: float) -> Labels:
    """Return which of ``CLASSES`` each row is in (rows,).

    Args:
        logits: of the teacher (rows, classes).
        labels: ids of the right classes (rows,).
        t1: confidence above which a right prediction is a confident one; 1 empties class 0, 0 empties class 1.
        t2: the same for wrong predictions and the classes 2 and 3.
    """
    is_right, confidence = logits.argmax(axis=1) == labels, confidences(logits)
    confident = np.where(is_right, confidence > t1, confidence > t2)
    return np.where(is_right, 0, 2) + np.where(confident, 0, 1)


def median_thresholds(logits: Numbers, labels: npt.NDArray[Any]) -> Thresholds:
    """Return the median confidence of the rows (rows, classes) that are right and of those that are wrong.

    Of a group without rows it is 1/classes, below which no confidence is. At most half of a group is above its median.
    """
    is_right, confidence = logits.argmax(axis=1) == labels, confidences(logits)
    groups = confidence[is_right], confidence[~is_right]
    return Thresholds(*(float(np.median(group)) if len(group) else 1.0 / logits.shape[1] for group in groups))


def error_terciles(outputs: Numbers, labels: npt.NDArray[Any]) -> tuple[Labels, tuple[float, float]]:
    """Return which of ``ERRORS`` each row is in (rows,), and the errors at which the second and the third begin.

    Args:
        outputs: scores that the teacher predicts (rows, 1).
        labels: the right scores (rows,).
    """
    errors = np.abs(outputs[:, 0].astype(np.float64) - labels.astype(np.float64))
    low, high = (float(value) for value in np.quantile(errors, (1 / 3, 2 / 3)))
    return (errors > low).astype(np.int64) + (errors > high), (low, high)


def counts(labels: Labels, names: tuple[str, ...]) -> dict[str, int]:
    """Return how many rows each name has; they add up to all rows."""
    return dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))

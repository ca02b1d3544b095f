"""What a training method is told and what it wants: the light half of the contract, without torch.

A method is one file in ``compressor/methods``: a docstring, a frozen dataclass ``Options`` (its knobs, which derives
from :class:`MethodOptions`) and a class ``Objective`` that derives from ``compressor.training.objective.Objective`` and
whose ``forward(**batch)`` returns named loss terms, already weighted; the trainer adds them up.
``compressor.training.registry`` finds it by its file name.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressor.refused import Refused, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor
    from transformers import PreTrainedModel

    from compressor.data.table import Table
    from compressor.models.teacher import TeacherInfo
    from compressor.recipe.sections import TeacherSection
    from compressor.scoring.contract import TaskSpec
    from compressor.student.activations import Activations
    from exporters.pooling import Pooling
    from vocab.mapping import VocabMap


class Depths(NamedTuple):
    """How deep a run's two models are, which is decided before either is loaded."""

    teacher: int  # layers, or passes where they repeat
    stored: int  # layers of the student, each with weights of its own
    passes: int  # times that one of them runs, at least ``stored``
    pattern: tuple[int, ...] = ()  # which of them each pass runs; (): not known, or each once


@dataclass(frozen=True)
class Context:
    """What a method may know when it is built."""

    student: "PreTrainedModel"
    spec: "TaskSpec"
    pooling: "Pooling | None" = None
    teacher_hidden: int = 0
    teacher_layers: tuple[int, ...] = ()  # which of the teacher's hidden states are cached; 0 is the embedding output
    teacher_n_layers: int = 0  # how many layers it runs, each pass of a repeated layer counted
    # For methods that read, run or train the teacher (``Objective.needs_teacher``, ``trains_teacher``): their own copy.
    teacher: "PreTrainedModel | None" = None
    teacher_dir: Path | None = None
    vocab_map: "VocabMap | None" = None  # student tokens as teacher tokens; None: the teacher's own vocabulary
    model_type: str = "bert"
    activations: "Activations | None" = None  # for methods that ask for them (``Objective.measures``)
    teacher_first_layers: tuple[int, ...] = ()  # which of the teacher's hidden states are cached for the first token


class Folds(NamedTuple):
    """Teachers that a stage wants of its own, each made on the rows of the other folds."""

    n_folds: int
    base: str  # folder or hub id of the pretrained model that they are made from
    epochs: float = 0.0  # 0: as ``tenmeg finetune``
    learning_rate: float = 0.0  # 0: likewise


class Wants(NamedTuple):
    """What a stage wants of the run."""

    cache: bool = True  # batches carry the teacher's cached outputs
    word_layers: int = 0  # so many layers of its word states as well
    labels: bool = False  # rows must carry labels
    mask_token: bool = False  # it learns from hidden words
    teacher_share: float = 1.0  # of the rows that a live teacher reads, for the estimate of the time
    folds: Folds | None = None  # the teachers that label the rows out of fold
    varies: bool = False  # it needs nothing of a row but the teacher's outputs: rows may vary from epoch to epoch


class Situation(NamedTuple):
    """What the plan knows of a stage when it makes explicit what its options leave open."""

    epochs: float
    has_head: bool  # the student answers in classes or scores, not in vectors
    is_small: bool = False  # it is no transformer


@dataclass(frozen=True)
class MethodOptions:
    """Base of a method's knobs, and what it asks for as they stand."""

    def wants(self) -> Wants:
        """Return what a stage with this loss wants of the run."""
        return Wants()

    def suited(self, given: Collection[str], situation: Situation) -> dict[str, Any]:  # Any: of any type
        """Return values for options that are not ``given``, where they depend on the situation."""
        return {}

    def first_layers(self, depths: Depths) -> tuple[int, ...]:
        """Return the teacher's hidden states (0: embeddings) whose first token batches carry, or refuse the depths."""
        return ()

    @property
    def inner(self) -> "tuple[str, dict[str, Any]] | None":  # Any: the inner method's own options
        """The method whose loss it is and that method's options, where it has none of its own."""
        return None

    def certifies(self, kind: str) -> bool:
        """Return whether tensors of this kind ("table", "norm", "weight", "bias") are made of the teacher's."""
        return True

    def check_plan(self, info: "TeacherInfo", teacher: "TeacherSection", train: "Table", *, is_last: bool) -> None:
        """Refuse a run that makes no sense with this method, before anything is run; ``is_last``: of its stages."""


class FoldError(Refused):
    """What an objective's ``finish`` raises where the plain student would not be the one that was trained."""


class Relabelled(NamedTuple):
    """Other labels for the training rows, and what is to be known about them."""

    labels: "npt.NDArray[np.int64]"  # (rows,), which the batches carry
    facts: dict[str, Any]  # JSON for the report: names to numbers and texts


@dataclass(frozen=True)
class Mixing:
    """How the rows are cut for a teacher that reads two vocabularies at once (1909.11687)."""

    probability: float  # that a word is cut by the student's vocabulary
    ramp: float = 0.0  # share of the stage over which the probability rises from 0
    masked: float = 0.0  # share of the words that are hidden in both streams
    every: int = 1  # the teacher reads every so-many-th row of a batch


def model_inputs(batch: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return what a model reads of a batch."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}


def check_choice(method: str, key: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an option that is none of the known words."""
    if value not in known:
        hint = did_you_mean(value, known)
        raise Refused(
            f"recipe: [[stage]] {method!r} option {key} = {value!r}, expected one of {', '.join(known)}.{hint}"
        )


def check_shares(method: str, **shares: float) -> None:
    """Refuse options that are not between 0 and 1."""
    for key, value in shares.items():
        if not 0 <= value <= 1:
            raise Refused(f"recipe: [[stage]] {method!r} option {key} = {value:g}, expected between 0 and 1.")

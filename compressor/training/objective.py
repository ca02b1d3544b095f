"""What a training method is.

A method is one file in ``compressor/methods``: a docstring, a frozen dataclass ``Options`` (its knobs, and what it
reads of the teacher's cached outputs, see :class:`MethodOptions`; where it asks for more, ``reads_labels: bool`` and
``first_layers(depths)``, the teacher's hidden states of which the batches carry the first token's) and a class
``Objective(nn.Module)`` whose ``forward(**batch)`` returns named loss terms, already weighted; the trainer adds them
up. ``compressor.training.registry`` finds it by its file name. Nothing here imports torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from compressor.refused import Refused, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor
    from transformers import PreTrainedModel

    from compressor.student.activations import Activations
    from compressor.tasks.spec import TaskSpec
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


@dataclass(frozen=True)
class MethodOptions:
    """Base of a method's knobs: what it reads of the teacher's cached outputs, unless it says otherwise."""

    @property
    def needs_cache(self) -> bool:
        """Whether batches carry the teacher's cached outputs."""
        return True

    @property
    def cached_layers(self) -> int:
        """How many layers of the teacher's word states the method reads from the cache."""
        return 0


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


class Objective(Protocol):
    """The part of a method that is trained: the student and whatever helps it, as one ``nn.Module``.

    Optional, and looked up by name:

    - ``trains_teacher`` (class): the context must bring a live teacher, which is run or trained; counts in the time.
    - ``needs_teacher`` (class): the context must bring the teacher, whose weights are only read.
    - ``measures`` (class): the context must bring the teacher's activations on training rows.
    - ``learning_rate`` (class): the default peak; ``token_share`` (class): of the tokens that a stage sees by default.
    - ``runs_wide`` (class): what is trained is as wide as the teacher; counts in the time.
    - ``check_shapes(teacher, student, options)`` (static): refuses shapes that the method cannot make, in the plan.
    - ``is_scored`` (class): whether the student is worth scoring while it is trained.
    - ``mixing``: a :class:`Mixing`; batches carry the mixed view.
    - ``rate_of(name) -> float | None``: the peak learning rate of one parameter, or ``None`` for the stage's.
    - ``is_undecayed(name) -> bool``: whether a parameter gets no weight decay, beside biases and gains.
    - ``observe() -> dict[str, float]``: numbers for the log.
    - ``relabel(outputs, labels) -> Relabelled``: called when the stage is prepared, also when it resumes, with the
      teacher's outputs on all training rows (rows, classes) and their labels (rows,), in the order of the rows. The
      batches carry the labels that it returns instead. Rows without labels are refused before.
    - ``begin(n_steps)``: called before the first step with the stage's number of optimizer steps, also when it resumes.
      What an objective counts from then on belongs in persistent buffers, for a checkpoint holds no other state.
    - ``before_step(optimizer)``: called once per optimizer step, when the gradients of all parts of the batch are there
      and none is clipped. Here gradients of tensors that were computed become ``.grad`` of the parameters they were
      computed from; under several processes the objective averages them itself, which the trainer cannot.
    - ``after_step(optimizer)``: called right after ``optimizer.step()``, before the learning rate changes.
    - ``scored() -> nn.Module``: the model to score while it is trained; else ``student``.
    - ``finish(batches) -> dict``: called once after training, on the cpu, by the first process: makes ``student`` the
      plain final model and returns facts for ``fold.json``. ``batches`` are evaluation rows in the student's tokens,
      only what a model reads. A :class:`FoldError` fails the stage.
    """

    student: "PreTrainedModel"

    def forward(self, **batch: "Tensor") -> dict[str, "Tensor"]:
        """Return the loss terms by name."""
        ...


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

"""The recipe: everything a user decides, as one frozen, validated model that reads and writes TOML.

Keys left out are decided by the run (see ``compressor.run.planning.plan``); a *resolved* recipe has none left open, and
running it again makes the same package. Unknown keys are answered with the nearest known one. No torch here: ``tenmeg
--help`` and ``--dry-run`` of a bad recipe must be instant.
"""

import tomllib
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import tomli_w
from pydantic import Field, ValidationError, model_validator

from compressor.files import user_path
from compressor.recipe.errors import sentence
from compressor.recipe.sections import (
    BudgetSection,
    DataSection,
    MeasureSection,
    QuantizeSection,
    Section,
    StageSection,
    TeacherSection,
    VocabSection,
)
from compressor.recipe.student import UNTRAINED, StudentSection
from compressor.refused import Refused
from exporters.small.shape import FIRST_WORD

RECIPE_VERSION: Final = 1


class Recipe(Section):
    """All of it; ``load`` reads one from a file, ``dumps`` writes it."""

    version: Literal[1] = RECIPE_VERSION
    seed: Annotated[int, Field(ge=0)] = 0
    effort: Annotated[float, Field(gt=0)] = Field(1.0, description="how much to train, as a multiple of the default")
    minutes: Annotated[float, Field(gt=0)] | None = Field(None, description="to train on this machine; None: by effort")
    teacher: TeacherSection
    data: DataSection
    vocab: VocabSection = VocabSection()
    student: StudentSection = StudentSection()
    quantize: QuantizeSection = QuantizeSection()
    budget: BudgetSection = BudgetSection()
    measure: MeasureSection = MeasureSection()
    stage: tuple[StageSection, ...] = (StageSection(method="distill"),)

    @model_validator(mode="before")
    @classmethod
    def what_is_not_trained_has_no_stage(cls, content: Any) -> Any:  # Any: whatever a recipe holds
        """Leave out the usual stage where the family of student is not trained."""
        student = content.get("student") if isinstance(content, dict) else None
        family = student.get("family") if isinstance(student, dict) else getattr(student, "family", None)
        return {"stage": (), **content} if family in UNTRAINED else content

    @model_validator(mode="after")
    def has_a_stage(self) -> Self:
        """Refuse an empty list of stages, and one for a student that is not trained."""
        if not self.student.is_trained:
            said = [name for name in ("effort", "minutes") if getattr(self, name) not in (None, 1)]
            beside = "[[stage]] (--method, --epochs, ...)" if self.stage else f"--{said[0]}" if said else ""
            if beside:
                raise Refused(f"family={self.student.family!r} is made without training. Leave out {beside}.")
            return self
        if not self.stage:
            raise Refused("no [[stage]] given. Add at least one, for example method = 'distill'.")
        return self

    def answered(self) -> tuple[str, ...]:
        """Return ``vocab`` where a model brings its own tokenizer."""
        return ("vocab",) if self.student.pretrained else ()

    @model_validator(mode="after")
    def the_amount_of_training_is_said_once(self) -> Self:
        """Refuse an effort beside minutes, and either where every stage has its epochs."""
        said = [f"{name} (--{name})" for name in ("effort", "minutes") if getattr(self, name) not in (None, 1)]
        if len(said) > 1:
            raise Refused("effort (--effort) and minutes (--minutes) both say how much to train. Leave one out.")
        if said and all(stage.epochs for stage in self.stage):
            raise Refused(
                f"{said[0]} says how many epochs to train, and every [[stage]] has its own (--epochs). Leave one out."
            )
        return self

    @model_validator(mode="after")
    def a_model_brings_its_tokenizer(self) -> Self:
        """Refuse a vocabulary beside a model that has its own."""
        beside = self.vocab.given(*VocabSection.model_fields) if self.student.pretrained else []
        if beside:
            raise Refused(
                "[student] pretrained brings its own tokenizer. "
                f"Leave out {' and '.join(beside)} of [vocab], or pretrained."
            )
        return self

    @model_validator(mode="after")
    def counted_words_are_its_own(self) -> Self:
        """Refuse a vocabulary beside a family that counts words, and other bits than its own."""
        if not self.student.is_counted:
            return self
        vocab, bits, family = self.vocab, self.quantize, f"family={self.student.family!r}"
        beside = [*vocab.given("path", "kind"), *(["rule"] if vocab.rule != VocabSection().rule else [])]
        if beside or (vocab.size is not None and vocab.size <= FIRST_WORD):
            said = " and ".join(beside) or f"size={vocab.size}"
            raise Refused(
                f"{family} chooses the words that it counts, got {said} of [vocab] beside it, expected at most a size "
                f"(--vocab-size) above {FIRST_WORD}. Leave it out."
            )
        if bits.scheme not in ("auto", "int8") or bits.embedding_bits not in (None, 8):
            raise Refused(
                f"{family} stores coefficients of 8 bits, got {bits.scheme} of [quantize], embedding_bits="
                f"{bits.embedding_bits}. Leave out --quantize and --embedding-bits."
            )
        return self

    @staticmethod
    def load(path: str | Path) -> "Recipe":
        """Return the recipe in a TOML file, which must name the teacher and the data."""
        return load(user_path(path))

    def dumps(self) -> str:
        """Return the recipe as TOML; ``parse(recipe.dumps()) == recipe``."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def content(self, read: bool = True) -> dict[str, Any]:
        """Return the content with the version, which says what the defaults are."""
        return {"version": self.version, **super().content(read)}


class FinetuneJob(Section):
    """What ``tenmeg finetune`` is told: the same tables as a recipe's, with the model to fine-tune as the teacher."""

    seed: Annotated[int, Field(ge=0)] = 0
    task: str | None = Field(None, description="kind of task; None: classes, or a score where labels are numbers")
    teacher: TeacherSection
    data: DataSection
    measure: MeasureSection = MeasureSection()  # baselines alone: they say nothing about the model
    stage: tuple[StageSection, ...] = (StageSection(method="finetune"),)


Validated = TypeVar("Validated", Recipe, FinetuneJob)


def parse(text: str) -> Recipe:
    """Return the recipe in ``text`` (TOML).

    Raises:
        ValueError: with one sentence naming the key, what it got and what is expected.
    """
    return from_dict(_toml(text))


def load(path: Path) -> Recipe:
    """Return the recipe in a TOML file, which must name the teacher and the data."""
    content = read(path)
    missing = [f"[{name}]" for name in ("teacher", "data") if name not in content]
    if missing:
        is_missing = "is missing. Add it" if len(missing) == 1 else "are missing. Add them"
        raise Refused(
            f"recipe: {' and '.join(missing)} {is_missing}, or give teacher and data as flags: tenmeg compress "
            f"--recipe {quote(str(path))} --teacher MODEL --train FILE --output DIR."
        )
    return from_dict(content)


def read(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file as they are; which keys a recipe knows is not looked at."""
    if not path.is_file():
        raise FileNotFoundError(f"recipe: {path} does not exist. 'tenmeg compress --dry-run' writes one to start from.")
    try:
        return _toml(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise Refused(f"recipe: {path} is not UTF-8 at byte {error.start}. Save it as UTF-8.") from error


def from_dict(content: dict[str, Any]) -> Recipe:
    """Validate nested dictionaries, turning pydantic's list of errors into one sentence each."""
    return _validate(Recipe, content)


def finetune_job(content: dict[str, Any]) -> FinetuneJob:
    """Validate what ``tenmeg finetune`` was told."""
    return _validate(FinetuneJob, content)


def _validate(kind: type[Validated], content: dict[str, Any]) -> Validated:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise Refused(" ".join(sentence(details, Recipe) for details in error.errors())) from error


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"recipe: not valid TOML: {error}. Check quotes and brackets near there.") from error

"""The tables of a recipe: frozen, strict about their keys, and clear about a key that answers others.

Where ``path`` of [vocab] is given, the vocabulary's size is its own (``excludes``): a size beside it is refused, and
none is written. No torch here.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from compressor.files import hash_files, sha256_file, user_path
from compressor.refused import Refused
from exporters.budget import Budget, parse_latency, parse_size

Task = Literal["text-classification", "feature-extraction"]
VocabKind = Literal["wordpiece", "unigram", "bpe"]
VocabRule = Literal["cuts", "frequency", "likelihood", "embedding"]


class Section(BaseModel):
    """Base of every table."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    excludes: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # a key, and those that it answers
    flags: ClassVar[Mapping[str, str]] = {}  # the flag of a key that is called otherwise
    of_files: ClassVar[tuple[str, ...]] = ()  # keys that name a file, a folder or a hub id

    def given(self, *names: str) -> list[str]:
        """Return those of ``names`` that the user has set."""
        return [name for name in names if name in self.model_fields_set and getattr(self, name) is not None]

    def answered(self) -> tuple[str, ...]:
        """Return the keys that another one, which is given, leaves nothing to say to."""
        return tuple(name for key, names in self.excludes.items() if getattr(self, key) for name in names)

    @model_validator(mode="after")
    def says_nothing_twice(self) -> Self:
        """Refuse a key beside the one that answers it."""
        for key, names in self.excludes.items():
            beside = self.given(*names) if getattr(self, key) else []
            if beside:
                flag = f" ({self.flags[key]})" if key in self.flags else ""
                raise Refused(
                    f"{key}{flag} brings its own {', '.join(names)}. Leave out {' and '.join(beside)}, or {key}."
                )
        return self

    def content(self, read: bool = True) -> dict[str, Any]:
        """Return what the section decides, as JSON: nothing that is at its default, and files by what they hold.

        So a later key with a default, and the same file elsewhere, are no other content. A default that changes needs
        a new version of the recipe. Where files are not ``read``, they count by their names.
        """
        written = self.model_dump(mode="json", exclude_defaults=True)
        held = self.of_files if read else ()
        return {name: _content(getattr(self, name), value, name in held, read) for name, value in written.items()}

    def digest(self, *names: str, read: bool = True) -> str:
        """Return a sha256 of the content of the named keys, of all when none is named."""
        content = {name: value for name, value in self.content(read).items() if not names or name in names}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name not in self.answered()}


def _content(value: Any, written: Any, is_held: bool, read: bool) -> Any:  # Any: a key's value, and as JSON
    if isinstance(value, Section):
        return value.content(read)
    if isinstance(value, tuple) and value and isinstance(value[0], Section):
        return [each.content(read) for each in value]
    return held(str(value)) if is_held else written


def held(name: str) -> str:
    """Return a sha256 of what the file or folder of this name holds; a hub id stays as it is."""
    path = user_path(name)
    if path.is_dir():
        return hashlib.sha256(json.dumps(hash_files(path), sort_keys=True).encode()).hexdigest()
    return sha256_file(path) if path.is_file() else name


class TeacherSection(Section):
    """The fine-tuned model to compress."""

    path: str = Field(description="folder or hub id of the teacher")
    revision: str | None = Field(None, description="hub revision: branch, tag or commit")
    task: Task | None = Field(None, description="None: inferred from the checkpoint")
    max_length: Annotated[int, Field(ge=4)] | None = Field(None, description="tokens per input; None: from the data")
    offline: bool = Field(False, description="never ask the hub")
    allow_pickle: bool = Field(False, description="load .bin checkpoints, which can run code; off unless asked")
    trust_remote_code: bool = Field(False, description="run code from the checkpoint; off unless asked")
    of_files: ClassVar = ("path",)


class DataSection(Section):
    """Training and evaluation rows."""

    train: str = Field(description="file (.tsv .csv .jsonl .parquet .txt, also .gz) or hub id")
    eval: str | None = Field(None, description="None: rows held out of train by seed")
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    holdout: Annotated[float, Field(gt=0, lt=0.5)] = Field(0.05, description="share of train held out")
    max_rows: Annotated[int, Field(gt=0)] | None = Field(None, description="use only so many training rows, by seed")
    variations: Annotated[int, Field(ge=0)] | None = Field(
        None, description="other texts out of each row's words, which the teacher answers too; None: by the epochs"
    )
    of_files: ClassVar = ("train", "eval")


class VocabSection(Section):
    """The student's vocabulary: trained on the rows, or one that exists."""

    path: str | None = Field(None, description="folder with a tokenizer.json, or that file: used as it is")
    kind: VocabKind | None = Field(None, description="None: the kind of the teacher's tokenizer")
    size: Annotated[int, Field(ge=0)] | None = Field(
        None, description="exact number of tokens; 0 keeps the teacher's vocabulary; None: by the byte budget"
    )
    rule: VocabRule = Field("cuts", description="how tokens are chosen (vocab/choosing.py)")
    excludes: ClassVar = {"path": ("kind", "size", "rule")}
    flags: ClassVar = {"path": "--vocab-from"}
    of_files: ClassVar = ("path",)


class QuantizeSection(Section):
    """Bits of the packaged model."""

    scheme: Literal["auto", "int8", "int4", "none"] = "auto"
    embedding_bits: Literal[4, 8] | None = Field(None, description="None: as the scheme")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="values per 4-bit scale")


class BudgetSection(Section):
    """Promises the package must keep."""

    max_size: str | None = Field(None, description="whole package, e.g. 7MB")
    max_latency: str | None = Field(None, description="text to answer on one thread, e.g. p95=5ms")
    max_drop: float | None = Field(None, description="points of the metric below the teacher")

    @model_validator(mode="after")
    def units_are_known(self) -> Self:
        """Refuse sizes and times without a known unit."""
        self.to_budget()
        return self

    def to_budget(self) -> Budget:
        """Return the budget in bytes and milliseconds."""
        return Budget(
            max_bytes=parse_size(self.max_size) if self.max_size else None,
            latency=parse_latency(self.max_latency) if self.max_latency else None,
            max_drop=self.max_drop,
        )


class StageSection(Section):
    """One training stage: a method, its options, and the optimisation common to all methods."""

    method: str
    epochs: Annotated[float, Field(gt=0)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(gt=0)] | None = None
    micro_batch: Annotated[int, Field(gt=0)] | None = Field(None, description="rows per forward pass; None: a batch")
    evaluate_every: Annotated[int, Field(gt=0)] | None = Field(None, description="steps; None: after each epoch")
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.06
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own knobs (tenmeg methods NAME)")

    def content(self, read: bool = True) -> dict[str, Any]:
        """Return the content; the option that names a model in every method that has it counts by what it holds."""
        found = super().content(read)
        if read and (base := self.options.get("base")):
            found["options"] = {**found["options"], "base": held(str(base))}
        return found

    @model_validator(mode="after")
    def micro_batch_divides_batch_size(self) -> Self:
        """Refuse parts of a batch of different sizes, with the nearest that work."""
        if self.batch_size and self.micro_batch and self.batch_size % self.micro_batch:
            fits = max(n for n in range(1, min(self.micro_batch, self.batch_size) + 1) if self.batch_size % n == 0)
            given = f"micro_batch={self.micro_batch} does not divide batch_size={self.batch_size}"
            raise Refused(f"{given}. Use micro_batch={fits}, or a multiple of it as batch_size.")
        return self


class MeasureSection(Section):
    """How the package is judged and timed."""

    ep: Literal["cpu", "cuda"] = "cpu"
    threads: Annotated[int, Field(gt=0)] = 1
    runs: Annotated[int, Field(gt=0)] = 300
    metric: str | None = Field(None, description="number that decides; None: the usual one of the task")
    baselines: bool = Field(True, description="also score TF-IDF and the teacher as ONNX int8")

    def answered(self) -> tuple[str, ...]:
        """Return the metric where none is asked for."""
        return () if self.metric else ("metric",)

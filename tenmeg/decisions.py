"""The keywords that are a command's flags: which there are, and their values, read as the command line reads them.

The command itself says what is known and what a value may be, so a keyword and its flag cannot differ; the types here
are for editors and type checkers, and a test holds them to the commands.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from os import PathLike, fspath
from typing import Any, Literal, TypedDict

import click
import tomli_w

from compressor.cli import main
from compressor.refused import Refused, did_you_mean

Bits = Literal["auto", "int8", "int4", "none"]
Provider = Literal["cpu", "cuda"]
# Parameters of the functions themselves, or what only a command line needs.
NOT_DECISIONS = (
    "teacher", "model", "train", "eval", "output", "recipe", "cache", "report_to", "overwrite", "dry_run", "as_json",
)  # fmt: skip


class Columns(TypedDict, total=False):
    """Which columns hold what; left out, they are detected."""

    text_column: str | None
    pair_column: str | None
    label_column: str | None


class Quantization(TypedDict, total=False):
    """Bits of the packaged weights."""

    quantize: Bits | None
    embedding_bits: Literal[4, 8] | None
    block_size: Literal[16, 32, 64, 128, 256] | None


class Budget(TypedDict, total=False):
    """Promises that a package keeps: ``max_size="7MB"``, ``max_latency="p95=5ms"``, ``max_drop=3`` points."""

    max_size: str | None
    max_latency: str | None
    max_drop: float | None


class Measuring(TypedDict, total=False):
    """How a package is timed."""

    ep: Provider | None
    threads: int | None
    runs: int | None


class Training(Columns, total=False):
    """How a model is trained, and where it comes from."""

    epochs: float | None
    learning_rate: float | None
    batch_size: int | None
    micro_batch: int | None
    max_rows: int | None
    seed: int | None
    revision: str | None
    offline: bool
    allow_pickle: bool
    trust_remote_code: bool
    max_length: int | None


class FinetuneDecisions(Training, total=False):
    """What ``tenmeg finetune`` can be told."""

    task: str | None
    baselines: bool | None


class CompressDecisions(Training, Quantization, Budget, Measuring, total=False):
    """What ``tenmeg compress`` can be told."""

    metric: str | None
    effort: float | None
    minutes: float | None
    variations: int | None
    method: str | Sequence[str] | None
    option: str | Sequence[str] | Mapping[str, Any] | None
    vocab_size: int | None
    vocab_kind: Literal["wordpiece", "unigram", "bpe"] | None
    vocab_rule: Literal["cuts", "frequency", "likelihood", "embedding"] | None
    vocab_from: str | PathLike[str] | None
    family: Literal["transformer", "recurrent", "convolution", "mean", "static", "tfidf"] | None
    embedding: int | None
    layers: int | None
    hidden: int | None
    heads: int | None
    ffn: int | None
    repeat: str | Sequence[int] | None
    exchange: bool | None
    init: Literal["teacher", "embeddings", "random"] | None
    start_layers: Literal["even", "first"] | None
    pretrained: str | PathLike[str] | None
    evaluate_every: int | None
    baselines: bool | None


class ExportFlags(Quantization, total=False):
    """What ``tenmeg export`` can be told."""

    vocab_from: str | PathLike[str] | None
    format: Literal["onnx", "ort"] | None
    max_length: int | None
    text_column: str | None
    pair_column: str | None
    allow_pickle: bool


class VerifyFlags(Budget, Columns, Measuring, total=False):
    """What ``tenmeg verify`` can be told."""

    metric: str | None


def flag_values(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the flags of a command would be after reading these values; ``None`` is as good as left out.

    Raises:
        Refused: for a keyword that is no flag of the command, and for a value that its flag does not take.
    """
    options = known_options(command)
    for name in given:
        if name not in options:
            instead = " Call tenmeg.plan instead." if name == "dry_run" else did_you_mean(name, options)
            raise Refused(f"{command}: unknown keyword {name!r}.{instead} Known: {', '.join(sorted(options))}.")
    return {name: _read(command, options[name], value) for name, value in given.items() if value is not None}


def known_options(command: str) -> dict[str, click.Option]:
    """Return the flags of a command that are keywords here, by name."""
    found = [each for each in main.commands[command].params if isinstance(each, click.Option)]
    return {str(option.name): option for option in found if option.name not in NOT_DECISIONS}


def _read(command: str, option: click.Option, value: Any) -> Any:
    where = f"{command}: {option.name}={value!r}"
    if option.is_flag:
        if not isinstance(value, bool):
            raise Refused(f"{where}: expected True or False.")
        return value
    if option.name == "option" and isinstance(value, Mapping):
        return tuple(f"{key}={_toml(where, each)}" for key, each in value.items())
    if option.multiple:
        several = value if isinstance(value, list | tuple) else [value]
        return tuple(_cast(where, option, each) for each in several)
    if option.name == "repeat" and isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return _cast(where, option, value)


def _cast(where: str, option: click.Option, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | Real | PathLike):
        raise Refused(f"{where}: got a {type(value).__name__}, expected a text or a number. {option.help}")
    try:  # as the text that a person would type: 4.5 is no number of layers
        return option.type(str(value) if isinstance(value, Real) else fspath(value), option)
    except click.BadParameter as error:
        raise Refused(f"{where}: {error.message.rstrip('.')}. {option.help}") from error


def _toml(where: str, value: Any) -> str:
    try:
        if isinstance(value, Mapping):
            raise TypeError
        return tomli_w.dumps({"value": value}).partition(" = ")[2].strip()
    except TypeError as error:
        raise Refused(f"{where}: expected numbers, texts, truth values or lists of them as options.") from error

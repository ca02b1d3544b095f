"""The functions of ``import tenmeg``: each takes what its command takes, and models and rows in memory as well.

Keywords are the flags of the command (``tenmeg.decisions``). What a command refuses raises an error with the same
sentence, a ``ValueError`` or an ``OSError``; a missed budget does not raise, it is in the result.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

from compressor.commands.console import explain
from compressor.commands.decisions import to_recipe, with_columns
from compressor.files import user_path
from compressor.refused import Refused
from tenmeg.decisions import CompressDecisions, ExportFlags, FinetuneDecisions, VerifyFlags, flag_values
from tenmeg.inputs import beside, for_now, read_inputs, until_exit
from tenmeg.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressor.recipe.recipe import Recipe
    from compressor.run.planning.plan import Plan
    from edge_demo.runtime import Package
    from tenmeg.made import Made

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
AnyPath = str | PathLike[str]
Rows = AnyPath | list[Any]  # texts, tuples or dictionaries; ``tenmeg.rows`` checks them


def _door(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Switch off what libraries tell their makers, and let a missing package be an error that says what to type."""

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        from exporters.measuring import telemetry

        telemetry.switch_off()
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(explain(error)[0][0], name=error.name) from error

    return call


@_door
def compress(
    teacher: "AnyPath | PreTrainedModel | None" = None,
    train: Rows | None = None,
    *,
    output: AnyPath,
    eval: Rows | None = None,  # noqa: A002 - the flag's name
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    recipe: "AnyPath | Recipe | None" = None,
    overwrite: bool = False,
    cache: AnyPath | None = None,
    report_to: str | Sequence[str] | None = None,
    echo: Callable[[str], None] | None = None,
    **decisions: Unpack[CompressDecisions],
) -> "Made":
    """Compress a teacher from end to end, as ``tenmeg compress`` does; the same call again goes on where it stopped.

    Args:
        teacher: a folder, a hub id, or a transformers model, which needs its ``tokenizer``.
        train: a file, a hub id, or a list of texts, (text, label), (text, text, label) or dictionaries.
        output: folder to write to. A model and rows in memory are kept in a hidden folder beside it.
        eval: evaluation rows, like ``train``; left out, some are held out of it.
        tokenizer: of a teacher in memory.
        recipe: to start from: the name of a shipped one, a .toml file, or a ``Recipe``; all else wins over it.
        overwrite: replace what another run left in ``output``.
        cache: folder in which runs share vocabulary, teacher outputs and start.
        report_to: also send the curves to ``"tensorboard"`` (files in ``output/logs``), ``"wandb"``, ``"trackio"``.
        echo: is told each line of progress, ``print`` for one.
        **decisions: the flags of ``tenmeg compress``: ``max_size="7MB"``, ``layers=4``, ``method=["distill"]``, ...

    Returns:
        What was made: ``package`` (opened), ``package_dir``, ``archive_path``, ``report``, ``violations``, ``lines()``.
    """
    values, base = flag_values("compress", decisions), _tables(recipe)
    inputs = read_inputs({"teacher": teacher}, tokenizer, {"train": train, "eval": eval})
    folder = user_path(output)

    def is_read(name: str) -> bool:  # by the run that is in the folder now
        resolved = folder / "recipe.toml"
        return resolved.is_file() and name in resolved.read_text(encoding="utf-8")

    with quiet(), beside(inputs, folder, is_read) as names:
        made = _recipe("compress", {**values, **names}, base)
        from compressor.run.compress import compress as run
        from tenmeg.made import Made

        shared = user_path(cache) if cache else None
        return Made(**vars(run(made, folder, overwrite, echo or _silent, shared, report_to or ())))


@_door
def plan(
    teacher: "AnyPath | PreTrainedModel | None" = None,
    train: Rows | None = None,
    *,
    eval: Rows | None = None,  # noqa: A002 - the flag's name
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    recipe: "AnyPath | Recipe | None" = None,
    **decisions: Unpack[CompressDecisions],
) -> "Plan":
    """Say what ``compress`` would do with the same arguments: shape, bytes by part, steps, time; nothing is trained.

    The files of a teacher and of rows in memory, which the plan's ``resolved`` recipe names, last as long as the
    process.
    """
    values, base = flag_values("compress", decisions), _tables(recipe)
    inputs = read_inputs({"teacher": teacher}, tokenizer, {"train": train, "eval": eval})
    with quiet(), for_now(inputs, until_exit() if inputs.is_live else None) as names:
        made = _recipe("plan", {**values, **names}, base)
        from compressor.run.planning.plan import plan as look_ahead

        return look_ahead(made)


@_door
def finetune(
    model: "AnyPath | PreTrainedModel",
    train: Rows,
    *,
    output: AnyPath,
    eval: Rows | None = None,  # noqa: A002 - the flag's name
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    overwrite: bool = False,
    report_to: str | Sequence[str] | None = None,
    echo: Callable[[str], None] | None = None,
    **decisions: Unpack[FinetuneDecisions],
) -> dict[str, Any]:
    """Fine-tune a model on labelled rows into the folder ``output``, a teacher; return its scores.

    Args:
        model: a folder, a hub id, or a transformers model, which needs its ``tokenizer`` and is itself left as it is.
        train: a file, a hub id, or a list of (text, label), (text, text, label) or dictionaries; with
            ``task="multi_label"`` a label is a list.
        output: folder of the new model.
        eval: evaluation rows, like ``train``; left out, some are held out of it.
        tokenizer: of a model in memory.
        overwrite: replace what is in ``output``.
        report_to: as in ``compress``; tensorboard's files stand beside the model, in ``output.logs``.
        echo: is told each line of progress, ``print`` for one.
        **decisions: the flags of ``tenmeg finetune``: ``epochs=3``, ``learning_rate=5e-5``, ...
    """
    values = flag_values("finetune", decisions)
    inputs = read_inputs({"model": model}, tokenizer, {"train": train, "eval": eval})
    folder = user_path(output)
    unfinished = folder.with_name(f".{folder.name}.run")
    with quiet(), beside(inputs, folder, lambda _name: unfinished.is_dir()) as names:
        from compressor.recipe.recipe import finetune_job
        from compressor.run.finetune import finetune as make_teacher

        job = finetune_job(to_recipe({**values, **names, "method": ("finetune",)}))
        return make_teacher(job, folder, overwrite, echo or _silent, report_to or ())


@_door
def export(
    model: "AnyPath | PreTrainedModel",
    output: AnyPath,
    *,
    eval: Rows | None = None,  # noqa: A002 - the flag's name
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    overwrite: bool = False,
    **flags: Unpack[ExportFlags],
) -> dict[str, Any]:
    """Export a model to ONNX with the whole task inside, quantise it and check both; nothing is trained.

    Args:
        model: a folder, a hub id, or a transformers model, which needs its ``tokenizer``.
        output: folder to write to.
        eval: rows that torch and ONNX are compared on.
        tokenizer: of a model in memory.
        overwrite: replace what is in ``output``.
        **flags: those of ``tenmeg export``: ``quantize="int8"``, ``format="ort"``, ...

    Returns:
        Bytes, parity and ``violations``, the limits that are missed.
    """
    values = with_columns(flag_values("export", flags))
    inputs = read_inputs({"model": model}, tokenizer, {"eval": eval})
    folder = user_path(output)
    with quiet(), beside(inputs, folder, lambda _name: False) as names:
        from compressor.commands.folders import export_folder

        return export_folder(Path(names["model"]), folder, overwrite=overwrite, eval=names.get("eval"), **values)


@_door
def verify(
    package: AnyPath,
    *,
    eval: Rows | None = None,  # noqa: A002 - the flag's name
    teacher: "AnyPath | PreTrainedModel | None" = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    **flags: Unpack[VerifyFlags],
) -> dict[str, Any]:
    """Open a package as a device would, score it on ``eval``, and hold it to the ``max_...`` promises.

    Args:
        package: its folder.
        eval: labelled rows: a file, a hub id or a list.
        teacher: a folder, a hub id, or a transformers model with its ``tokenizer``, to compare with.
        tokenizer: of a teacher in memory.
        **flags: those of ``tenmeg verify``: ``max_size="7MB"``, ``max_drop=3``, ``runs=300``, ...

    Returns:
        The scores, and ``violations``, the promises that are broken.
    """
    values = with_columns(flag_values("verify", flags))
    inputs = read_inputs({"teacher": teacher}, tokenizer, {"eval": eval})
    with nullcontext() if teacher is None else quiet(), for_now(inputs) as names:
        from compressor.packaging.inspection import verify_package

        rows, known = names.get("eval"), names.get("teacher")
        return verify_package(user_path(package), eval=rows, teacher=known, **values)


@_door
def load(
    package: AnyPath,
    *,
    threads: int = 1,
    verify: bool = True,
    self_test: bool = True,
    prepack: bool = True,
    providers: list[str] | None = None,
) -> "Package":
    """Open a package, without torch: every hash is checked and the self-test is run; ``predict`` answers."""
    from edge_demo import runtime

    return runtime.load(
        Path(package), threads=threads, verify=verify, self_test=self_test, prepack=prepack, providers=providers
    )


def _tables(recipe: "AnyPath | Recipe | None") -> dict[str, Any]:
    """Return what a recipe says, and nothing that it leaves to its defaults."""
    if recipe is None:
        return {}
    if isinstance(recipe, str | PathLike):
        from compressor.recipe.shipped import base

        name = fspath(recipe)
        return base(str(user_path(name)) if name.startswith("~") else name)
    from compressor.recipe.recipe import Recipe

    if not isinstance(recipe, Recipe):
        raise Refused(f"recipe: got a {type(recipe).__name__}, expected a name, a .toml file or a tenmeg.Recipe.")
    return recipe.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def _recipe(name: str, values: dict[str, Any], base: dict[str, Any]) -> "Recipe":
    from compressor.recipe.recipe import from_dict

    content = to_recipe(values, base)
    for role, section, key in (("teacher", "teacher", "path"), ("train", "data", "train")):
        if key not in content.get(section, {}):
            raise Refused(f"{name}: there is no {role}. Give {role}=, or a recipe= that names one.")
    return from_dict(content)


def _silent(_line: str) -> None: ...

"""The command ``tenmeg``: every body is parse, import, one call, echo; nothing heavy is imported before it runs."""

import os
from pathlib import Path
from shlex import join, quote
from typing import Any

import click

from compressor import __version__
from compressor.commands.console import DefaultGroup, Group, result, say, stop_if
from compressor.commands.decisions import to_recipe, with_columns
from compressor.commands.flags import BITS, BUDGET, COLUMNS, OPTIMISATION, PATH, SHAPE, TEACHER, flags
from exporters.measuring import telemetry


@click.group("tenmeg", cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="tenmeg")
def main() -> None:
    r"""Turn a fine-tuned transformer into a verified package that runs without torch, under a byte budget.

    \b
    tenmeg compress --teacher MODEL --train rows.tsv --max-size 7MB --output out
    python -m edge_demo out/package "some text"
    """
    # Read by OpenMP when torch is imported: threads that wait by spinning make everybody slow on a machine in use.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    telemetry.switch_off()


@main.command()
@flags("teacher", "train", "eval", *BUDGET, "metric", "output", "recipe", "method", "option", *SHAPE, *BITS,
       "effort", "minutes", "variations", *OPTIMISATION, *COLUMNS, *TEACHER, "ep", "threads", "runs", "baselines",
       "cache", "report_to", "overwrite", "dry_run", "as_json",
       required=("teacher", "train", "output"))  # fmt: skip
def compress(recipe: str | None, output: Path, as_json: bool, **values: Any) -> None:
    """Compress a teacher from end to end: OUT/package, its archive, OUT/report.json and OUT/report.html.

    What is left out is decided by --max-size; --dry-run shows the decisions. A killed run goes on when repeated.
    """
    from compressor.recipe.recipe import from_dict
    from compressor.recipe.shipped import base

    said = {name: values.pop(name) for name in ("overwrite", "dry_run", "cache", "report_to")}
    _run(from_dict(to_recipe(values, base(recipe) if recipe else None)), output, **said)


@main.command()
@click.argument("recipe", type=PATH)
@flags("output", "cache", "report_to", "overwrite", "dry_run", "as_json", required=("output",))
def run(recipe: Path, output: Path, as_json: bool, **said: Any) -> None:
    """Compress as RECIPE (a .toml file) says; 'compress --dry-run' writes one to start from."""
    from compressor.recipe.recipe import load

    _run(load(recipe), output, **said)


def _run(
    recipe: Any,  # a Recipe, not imported for --help
    output: Path,
    overwrite: bool,
    dry_run: bool,
    cache: Path | None,
    report_to: tuple[str, ...],
) -> None:
    from compressor.commands.beforehand import check_recipe

    check_recipe(recipe)
    if dry_run:
        from compressor.commands.folders import save_plan

        planned, path = save_plan(recipe, output, overwrite)
        result(
            {**planned.as_dict(), "recipe_path": str(path)},
            [*planned.lines(), f"next: tenmeg run {quote(str(path))} --output {quote(str(output))}"],
        )
        return
    from compressor.run.compress import compress

    outcome = compress(recipe, output, overwrite, say, cache, report_to)
    result(outcome.report, outcome.lines())
    stop_if(outcome.violations)


@main.command()
@flags("model", "train", "eval", "output", "task", "epochs", "learning_rate", "batch_size", "micro_batch",
       "max_rows", "seed", *COLUMNS, *TEACHER, "baselines", "report_to", "overwrite", "as_json",
       required=("model", "train", "output"))  # fmt: skip
def finetune(output: Path, overwrite: bool, as_json: bool, report_to: tuple[str, ...], **values: Any) -> None:
    """Fine-tune a model on labelled rows: makes a teacher."""
    from compressor.commands.beforehand import check_finetuning
    from compressor.recipe.recipe import finetune_job

    job = finetune_job(to_recipe({**values, "method": ("finetune",)}))
    check_finetuning(job)
    from compressor.run.finetune import finetune as make_teacher

    done = make_teacher(job, output, overwrite, say, report_to)
    same = {"teacher": output, **{name: values[name] for name in ("train", "eval", *COLUMNS) if values[name]}}
    flags_of = [word for name, value in same.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    result(done, _lines(done, f"next: tenmeg compress {join(flags_of)} --max-size 7MB --output OUT"))


@main.group("vocab", cls=DefaultGroup)
def vocabulary() -> None:
    """Train a vocabulary of an exact size on the rows and map it onto the teacher's; 'curve' helps to choose it."""


@vocabulary.command("train")
@flags("teacher", "train_files", "vocab_size", "output", "vocab_kind", "vocab_rule", "balance", "seed", "text_column",
       "pair_column", "revision", "offline", "overwrite", "as_json",
       required=("teacher", "train_files", "vocab_size", "output"))  # fmt: skip
def train_vocabulary(output: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Train a vocabulary of an exact size on the rows and map it onto the teacher's."""
    from compressor.commands.vocabulary import train_vocab

    done = train_vocab(out_dir=output, overwrite=overwrite, **with_columns(values))
    result(done, _lines(done))


@vocabulary.command("curve")
@flags("teacher", "train_files", "output", "max_size", "vocab_bytes", "sizes", "vocab_kind", "vocab_rule", "balance",
       "layers", "hidden", "heads", "ffn", "repeat", *BITS, "max_length", "seed", "text_column", "pair_column",
       "revision", "offline", "overwrite", "as_json", required=("teacher", "train_files", "output"))  # fmt: skip
def vocabulary_curve(output: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Measure vocabularies of several sizes on held-out rows and pick one: OUT/curve.json, OUT/curve.svg."""
    from compressor.commands.vocabulary import draw_curve

    done, lines = draw_curve(out_dir=output, overwrite=overwrite, **with_columns(values))
    result(done, lines)
    stop_if(done["violations"])


@main.command()
@click.argument("model", type=PATH)
@flags("output", *BITS, "format", "other_vocab", "max_length", "eval", "text_column", "pair_column", "allow_pickle",
       "overwrite", "as_json", required=("output",))  # fmt: skip
def export(model: Path, output: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Export a saved MODEL folder to ONNX with the whole task inside, quantise it and check both."""
    from compressor.commands.beforehand import check_files
    from compressor.commands.folders import export_folder

    said = with_columns(values)
    check_files(str(model), [said["eval"]] if said["eval"] else [], said["columns"])
    done = export_folder(model, output, overwrite=overwrite, **said)
    result(done, _lines(done, f"next: tenmeg package {quote(str(output))} --output PACKAGE"))
    stop_if(done["violations"])


@main.command()
@click.argument("onnx_file", metavar="FILE.onnx", type=PATH)
@flags("output", *BITS, "overwrite", "as_json", required=("output",))
def quantize(onnx_file: Path, output: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Quantise one ONNX file that 'tenmeg export --quantize none' wrote; --output names the new file."""
    from compressor.commands.folders import quantize_file

    done = quantize_file(onnx_file, output, overwrite=overwrite, **values)
    result(done, _lines(done))


@main.command()
@click.argument("package", type=PATH)
@flags("eval", "text_column", "pair_column", "ep", "threads", "runs", "as_json")
def measure(package: Path, as_json: bool, **values: Any) -> None:
    """Measure a PACKAGE: bytes by part, time from text to answer (p50, p95, p99), peak memory."""
    from compressor.packaging.inspection import measure_package, tensor_lines

    done = measure_package(package, **with_columns(values))
    shown = {name: value for name, value in done.items() if name != "tensors"}
    result(done, [*_lines(shown), *tensor_lines(done["tensors"])])


@main.command()
@click.argument("package", type=PATH)
@flags("eval", *BUDGET, "metric", *COLUMNS, "teacher", "ep", "threads", "runs", "as_json")
def verify(package: Path, as_json: bool, **values: Any) -> None:
    """Open a PACKAGE as a device would, score it on --eval and hold it to the --max-... promises."""
    from compressor.packaging.inspection import verify_package

    done = verify_package(package, **with_columns(values))
    result(done, _lines(done))
    stop_if(done["violations"])


@main.command()
@click.argument("source", type=PATH)
@flags("output", "eval", "text_column", "pair_column", "overwrite", "as_json", required=("output",))
def package(source: Path, output: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Package SOURCE, a folder written by 'tenmeg export' or by a run, and archive it beside --output."""
    from compressor.commands.folders import make_package

    done = make_package(source, output, overwrite=overwrite, **with_columns(values))
    texts = '"some text"' + (' --pair "another"' if done["pair"] else "")
    result(done, _lines(done, f"next: python -m edge_demo {quote(str(output))} {texts}"))


@main.command()
@click.argument("report_json", metavar="REPORT", type=PATH)
@flags("output", "as_json", required=("output",))
def report(report_json: Path, output: Path, as_json: bool) -> None:
    """Write report.html and the model card again from REPORT, a report.json or the run's folder."""
    from compressor.report.report import rewrite_report

    done = rewrite_report(report_json, output)
    result(done, _lines(done))


@main.command()
@click.argument("name", required=False)
@flags("as_json")
def methods(name: str | None, as_json: bool) -> None:
    """List the training methods, or tell what NAME does and which options it has."""
    from compressor.training.registry import describe_methods

    done, lines = describe_methods(name)
    result(done, lines)


@main.command()
@click.argument("name", required=False)
@flags("as_json")
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes that 'tenmeg compress --recipe NAME' knows, or show the one called NAME."""
    from compressor.recipe.shipped import describe_recipes

    done, lines = describe_recipes(name)
    result(done, lines)


@main.command()
@flags("as_json")
def doctor(as_json: bool) -> None:
    """Report what this machine can do and what is wrong with the installation; exit 1 if something is."""
    from compressor.commands.doctor import examine

    found = examine()
    result(found.as_dict(), found.lines())
    click.get_current_context().exit(1 if found.problems else 0)


def _lines(done: dict[str, Any], *more: str) -> list[str]:
    """Return ``name: value`` lines of what a person wants to see of a step's result; long lists are for --json."""
    lines = []
    for name, value in done.items():
        if isinstance(value, dict):
            value = ", ".join(
                f"{key} {_short(item)}" for key, item in value.items() if not isinstance(item, dict | list)
            )
        elif isinstance(value, list):
            value = "; ".join(_row(item) if isinstance(item, dict) else str(item) for item in value) or "none"
        lines.append(f"{name.replace('_', ' ')}: {_short(value)}")
    return [*lines, *more]


def _row(item: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in item.items() if value is not None)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


if __name__ == "__main__":
    main()

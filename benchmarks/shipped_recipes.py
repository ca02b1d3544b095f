"""Run shipped recipes and keep their reports beside them; ``benchmarks.task_agnostic`` runs sentence-embedding-dual.

    python -m benchmarks.shipped_recipes --data DIR --sst2-teacher MODEL --work DIR [--recipe NAME ...]

``DIR`` holds SST-2, STS-B and wikipedia-en. A classification recipe makes a package of less than 7 MB of the SST-2
classifier, scored on the published dev set; a recipe for sentence embeddings one of the all-MiniLM-L6-v2 of the extra
``demo``, on lines of an encyclopaedia, scored on STS-B dev. Scaled down for two cores: 10,000 training rows, one epoch
(stages that make weights out of weights a quarter of one), one seed; the ``tiny-`` recipes say all themselves and are
run as they are, on so many rows. Writes compressor/recipes/NAME.report.json, with
names of files instead of their paths.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

from pathlib import Path
from typing import Any

import click

from benchmarks.docstring_search import teacher_folder
from compressor.files import write_json

OTHERS = ("sentence-embedding-dual",)
SIZE = {"hidden": 192, "heads": 6, "ffn": 768}


def keep_report(report: dict[str, Any], name: str) -> None:
    """Write a report beside the recipe ``name``, without this machine's paths and without every single latency."""
    from compressor.recipe.shipped import RECIPES_DIR

    recipe = dict(report["recipe"])
    recipe["teacher"] = {**recipe["teacher"], "path": Path(recipe["teacher"]["path"]).name}
    files = {key: Path(recipe["data"][key]) for key in ("train", "eval") if recipe["data"].get(key)}
    recipe["data"] = {**recipe["data"], **{key: f"{path.parent.name}/{path.name}" for key, path in files.items()}}
    latency = {key: value for key, value in report["latency"].items() if key != "samples"}
    write_json(RECIPES_DIR / f"{name}.report.json", {**report, "recipe": recipe, "latency": latency})


def whole_recipe(name: str, data: Path, sst2_teacher: Path, rows: int) -> dict[str, Any]:
    """Return a shipped recipe with teacher, data, shape, budget and lengths of its stages."""
    from compressor.recipe.shipped import base
    from compressor.training.registry import load_method

    shipped = base(name)
    if "classification" in name:
        teacher: dict[str, Any] = {"path": str(sst2_teacher)}
        files = {"train": str(data / "SST-2" / "train.tsv"), "eval": str(data / "SST-2" / "dev.tsv")}
    else:
        teacher = {"path": str(teacher_folder()), "max_length": 64}
        files = {"train": str(data / "wikipedia-en" / "train.txt.gz"), "eval": str(data / "STS-B" / "dev.tsv")}
    if name.startswith("tiny-"):
        return {**shipped, "teacher": teacher, "data": {**files, "max_rows": rows}, "measure": {"runs": 100}}
    stages = []
    for stage in shipped["stage"]:
        share = getattr(load_method(stage["method"]).objective_class, "token_share", 1.0)
        stages.append({**stage, "epochs": share, "batch_size": 32})
    student = {**SIZE, "layers": 3 if "repeat" in shipped.get("student", {}) else 6, **shipped.get("student", {})}
    return {
        **shipped,
        "teacher": teacher,
        "data": {**files, "max_rows": rows},
        "vocab": {"size": 5000},
        "student": student,
        "budget": {"max_size": "7MB"},
        "quantize": {"scheme": "int8"},
        "measure": {"runs": 100},
        "stage": stages,
    }


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--sst2-teacher", required=True, type=click.Path(path_type=Path, exists=True), help="SST-2 classifier.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--recipe", "chosen", multiple=True, help="Names of recipes; all when left out.")
@click.option("--rows", default=10_000, show_default=True, help="Training rows.")
def main(data: Path, sst2_teacher: Path, work: Path, chosen: tuple[str, ...], rows: int) -> None:
    """Run the recipes and keep their reports."""
    from compressor.recipe.recipe import from_dict
    from compressor.recipe.shipped import recipe_names
    from compressor.run.compress import compress

    for name in chosen or [each for each in recipe_names() if each not in OTHERS]:
        outcome = compress(from_dict(whole_recipe(name, data, sst2_teacher, rows)), work / name, echo=click.echo)
        for line in outcome.lines():
            click.echo(line)
        keep_report(outcome.report, name)


if __name__ == "__main__":
    main()

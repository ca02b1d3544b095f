"""Run the shipped classification recipe and keep its report beside it; ``benchmarks.task_agnostic`` runs the other.

    python -m benchmarks.shipped_recipes --data DIR --sst2-teacher MODEL --work DIR

``DIR`` holds SST-2 (train.tsv, dev.tsv). The recipe ``classification-dual`` makes a package of less than 7 MB of the
SST-2 classifier, on 20,000 training rows for two epochs (scaled down for two cores), scored on the published dev set,
one seed. Writes compressor/recipes/classification-dual.report.json, with names of files instead of their paths.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

from pathlib import Path
from typing import Any

import click

from compressor.journal import write_json

RECIPE = "classification-dual"
EPOCHS = 2.0


def keep_report(report: dict[str, Any], name: str) -> None:
    """Write a report beside the recipe ``name``, without this machine's paths and without every single latency."""
    from compressor.shipped import RECIPES_DIR

    recipe = dict(report["recipe"])
    recipe["teacher"] = {**recipe["teacher"], "path": Path(recipe["teacher"]["path"]).name}
    files = {key: Path(recipe["data"][key]) for key in ("train", "eval") if recipe["data"].get(key)}
    recipe["data"] = {**recipe["data"], **{key: f"{path.parent.name}/{path.name}" for key, path in files.items()}}
    latency = {key: value for key, value in report["latency"].items() if key != "samples"}
    write_json(RECIPES_DIR / f"{name}.report.json", {**report, "recipe": recipe, "latency": latency})


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--sst2-teacher", required=True, type=click.Path(path_type=Path, exists=True), help="SST-2 classifier.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the run goes.")
@click.option("--rows", default=20_000, show_default=True, help="Training rows.")
def main(data: Path, sst2_teacher: Path, work: Path, rows: int) -> None:
    """Run the recipe and keep its report."""
    from compressor.recipe import from_dict
    from compressor.run import compress
    from compressor.shipped import base

    files = {"train": str(data / "SST-2" / "train.tsv"), "eval": str(data / "SST-2" / "dev.tsv")}
    shipped = base(RECIPE)
    recipe = {
        **shipped,
        "stage": [{**stage, "epochs": EPOCHS} for stage in shipped["stage"]],
        "teacher": {"path": str(sst2_teacher)},
        "data": {**files, "max_rows": rows},
        "budget": {"max_size": "7MB", "max_drop": 3.0},
    }
    outcome = compress(from_dict(recipe), work / RECIPE, echo=click.echo)
    for line in outcome.lines():
        click.echo(line)
    keep_report(outcome.report, RECIPE)


if __name__ == "__main__":
    main()

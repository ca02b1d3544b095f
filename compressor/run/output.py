"""The folder of a run: whose it is, what may be replaced in it, and what it remembers for a call that goes on."""

import shutil
from pathlib import Path
from typing import Any

from compressor.files import read_json, write_json
from compressor.recipe.recipe import Recipe, load

RUN_MARKER = "run.json"
RECIPE = "recipe.toml"  # the resolved one
LOGS = "logs"
RESULTS = ("package", "package.zip", "package.rejected", "package.rejected.zip", "report.json", "report.html")


def check_output(recipe: Recipe, out_dir: Path, overwrite: bool) -> dict[str, str]:
    """Refuse a folder that holds something else, before anything is planned or written; return what marks this run.

    A run is known by what its files hold, wherever they lie, and by their names, whatever they hold now.

    Raises:
        FileExistsError: if the folder is not empty and not a run of the same recipe.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f"--output {out_dir} is a file, expected a folder. Choose another --output.")
    marks = {"recipe_sha256": recipe.digest(), "names_sha256": recipe.digest(read=False)}
    if overwrite or not out_dir.is_dir() or not any(path.name != RECIPE for path in out_dir.iterdir()):
        return marks  # a lone recipe.toml is what --dry-run left
    if not _is_run_of(out_dir, marks):
        held = "holds a run of another recipe" if _marked(out_dir) else "is not empty and holds no run"
        raise FileExistsError(f"--output {out_dir} {held}. Choose another --output, or give --overwrite to replace it.")
    return marks


def with_epochs(recipe: Recipe, out_dir: Path, marks: dict[str, str]) -> Recipe:
    """Return a recipe that asks for minutes with the epochs that they came to when this run was begun.

    Measured again they would be others, and what was trained would be thrown away.
    """
    path = out_dir / RECIPE
    if recipe.minutes is None or not path.is_file() or not _is_run_of(out_dir, marks):
        return recipe
    before = load(path).stage
    if [stage.method for stage in before] != [stage.method for stage in recipe.stage]:
        return recipe
    stages = zip(recipe.stage, before, strict=True)
    epochs = tuple(stage.model_copy(update={"epochs": stage.epochs or known.epochs}) for stage, known in stages)
    return recipe.model_copy(update={"minutes": None, "stage": epochs})


def _is_run_of(out_dir: Path, marks: dict[str, str]) -> bool:
    return any(_marked(out_dir).get(name) == digest for name, digest in marks.items())


def _marked(out_dir: Path) -> dict[str, Any]:
    """Return what a folder's run is marked with; nothing without a mark that can be read."""
    try:
        found = read_json(out_dir / RUN_MARKER)
        return found if isinstance(found["recipe_sha256"], str) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def open_output(marks: dict[str, str], out_dir: Path, overwrite: bool) -> None:
    """Mark the folder as this run's; ``--overwrite`` first removes what an earlier run left, and nothing else."""
    if overwrite and not _is_run_of(out_dir, marks) and out_dir.is_dir():
        logs = out_dir.glob(f"{LOGS}/train-*")  # of a stage each
        for path in (*(out_dir / name for name in ("steps", *RESULTS, RECIPE, RUN_MARKER)), *logs):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(out_dir / RUN_MARKER, {"version": 1, **marks})

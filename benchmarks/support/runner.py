"""Train many small students under equal conditions, several at once: what the comparisons of methods have in common.

An *arm* is a name and a part of a recipe. It is a run of the product, whose ``--cache`` all arms of a work folder have
in common: vocabularies, teachers' outputs and starts that are the same are made once. Each arm has a process of one
thread, as many at once as there are cores. A finished arm is not run again: its result lies in the work folder under
the digest of its recipe and its rows. Scores are of the float student, in torch.
"""

import json
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import click

from compressor.data import splits


class Prepared(NamedTuple):
    """Rows and teacher of one set, on disk."""

    name: str
    folder: Path  # where its steps and arms go
    teacher: Path
    train: Path
    evaluation: Path


def recipe_of(prepared: Prepared, arm: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the whole recipe of one arm."""
    return {
        **arm,
        "seed": seed,
        "teacher": {"path": str(prepared.teacher)},
        "data": {**arm.get("data", {}), "train": str(prepared.train), "eval": str(prepared.evaluation)},
    }


def write_subset(source: Path, n_rows: int, seed: int, folder: Path, share: float = 0.0) -> tuple[Path, Path | None]:
    """Write ``n_rows`` training rows, drawn once for all arms, as JSON lines; with ``share``, hold some of them out."""
    from compressor.data.table import read_table

    table = read_table(str(source), needs_label=True)
    table = splits.subset(table, min(n_rows, len(table)), seed)
    tables = [table] if not share else list(splits.split_holdout(table, share, seed))
    paths = [folder / name for name in ("train.jsonl", "held-out.jsonl")][: len(tables)]
    folder.mkdir(parents=True, exist_ok=True)
    for part, path in zip(tables, paths, strict=True):
        assert part.labels is not None
        columns = {"sentence1" if part.pairs else "text": part.texts, "label": part.labels}
        columns |= {"sentence2": part.pairs} if part.pairs else {}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != lines:
            path.write_text(lines, encoding="utf-8")
    return paths[0], paths[1] if share else None


def run_all(jobs: list[tuple[Prepared, str, dict[str, Any], int]], n_processes: int) -> list[dict[str, Any]]:
    """Run (set, arm name, arm, seed) jobs in processes of their own and return their results in order.

    Raises:
        click.ClickException: naming the job that failed and how.
    """
    paths = [_result_path(*job) for job in jobs]
    missing = [(job, path) for job, path in zip(jobs, paths, strict=True) if not path.is_file()]
    for variable, value in (("OMP_NUM_THREADS", "1"), ("TOKENIZERS_PARALLELISM", "false")):
        os.environ[variable] = value  # read by the processes when they import torch
    context = multiprocessing.get_context("spawn")
    with (
        click.progressbar(length=len(jobs), label="arms", file=sys.stderr) as shown,
        ProcessPoolExecutor(n_processes, mp_context=context) as pool,
    ):
        shown.update(len(jobs) - len(missing))
        futures = {pool.submit(_run, *job, path): path for job, path in missing}
        for future in as_completed(futures):
            try:
                future.result()
            except Exception as error:  # whatever the arm met: the others are worth finishing another time
                pool.shutdown(cancel_futures=True)
                raise click.ClickException(f"{futures[future].stem}: {type(error).__name__}: {error}") from error
            shown.update(1)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _run(prepared: Prepared, name: str, arm: dict[str, Any], seed: int, path: Path) -> None:
    """Train one arm and write its result; what it prints goes to a file beside it."""
    from compressor.files import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".log").open("w") as log, redirect_stderr(log), redirect_stdout(log):
        write_json(path, run_arm(prepared, name, recipe_of(prepared, arm, seed)))


def _result_path(prepared: Prepared, name: str, arm: dict[str, Any], seed: int) -> Path:
    import hashlib

    content = json.dumps(recipe_of(prepared, arm, seed), sort_keys=True).encode()
    rows = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in (prepared.train, prepared.evaluation))
    return prepared.folder / "arms" / f"{name}-{seed}-{hashlib.sha256(content + rows).hexdigest()[:12]}.json"


def prepare(prepared: Prepared, arm: dict[str, Any]) -> dict[str, Any]:
    """Run an arm for a step, so that what arms share is there before several begin; return what is said of the set."""
    recipe = recipe_of(prepared, arm, 0)
    recipe["stage"] = [{**each, "epochs": 1e-4} for each in recipe["stage"]]
    report = _compress(prepared, recipe, prepared.folder / "prepared")
    metric, hashes = report["task"]["metric"], report["hashes"]
    planned = json.loads((prepared.folder / "prepared" / "steps" / "check" / "plan.json").read_text(encoding="utf-8"))
    return {
        "rows": planned["rows"],
        "hashes": {"train": hashes["data_train"], "eval": hashes["data_eval"]},
        "teacher": report["metrics"]["teacher"][metric],
        "metric": metric,
    }


def _compress(prepared: Prepared, recipe: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    """Run the product and return its report; nothing stands beside the package, and few answers are timed."""
    from compressor.recipe.recipe import from_dict
    from compressor.run.compress import compress

    measured = {"measure": {"baselines": False, "runs": 20}}
    cache = prepared.folder.parent / "cache"
    return compress(from_dict(recipe | measured), out_dir, overwrite=True, cache=cache).report


def run_arm(prepared: Prepared, name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """Train one arm and score it."""
    import tempfile

    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=prepared.folder) as folder:
        report = _compress(prepared, recipe, Path(folder) / "out")
    return {
        "name": name,
        "seed": recipe["seed"],
        "metric": report["task"]["metric"],
        "teacher": report["metrics"]["teacher"],
        "metrics": report["metrics"]["student"],
        "package": {
            "metrics": report["metrics"]["package"],
            "bytes": report["size"]["total"],
            "p50_ms": report["latency"]["p50"],
        },
        "bytes": report["size"]["predicted"],
        "student": report["shape"],
        "described": report["student"],
        "stages": report["recipe"]["stage"],
        "training": report["training"],
        "train_seconds": round(sum(stage["seconds"] for stage in report["training"]), 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def finetuned_teacher(
    folder: Path, train: Path, evaluation: Path, *, epochs: float, batch_size: int, rate: float
) -> Path:
    """Fine-tune the all-MiniLM-L6-v2 of the extra ``demo`` into ``folder``, where it is not there yet."""
    from benchmarks.docstring_search import teacher_folder
    from compressor.recipe.recipe import finetune_job
    from compressor.run.finetune import finetune

    if not folder.is_dir():
        job = {
            "teacher": {"path": str(teacher_folder())},
            "data": {"train": str(train), "eval": str(evaluation)},
            "stage": [{"method": "finetune", "epochs": epochs, "batch_size": batch_size, "learning_rate": rate}],
        }
        folder.parent.mkdir(parents=True, exist_ok=True)
        finetune(finetune_job(job), folder, echo=click.echo)
    return folder


def stage(method: str, epochs: float, rate: float, **options: Any) -> dict[str, Any]:
    """Return one [[stage]]; the batch size is the set's."""
    return {
        "method": method,
        "epochs": round(epochs, 4),
        "learning_rate": rate,
        "options": options,
    }


def summary(name: str, results: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Return the row of one arm: mean and spread over the seeds."""
    scores = [result["metrics"][metric] for result in results]
    return {
        "name": name,
        "scores": scores,
        "mean": statistics.mean(scores),
        "spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "predicted_bytes": sum(results[0]["bytes"].values()),
        "train_seconds": statistics.median(result["train_seconds"] for result in results),
        "stages": results[0]["stages"],
        "student": results[0]["student"],
    }


def slug(name: str) -> str:
    """Return an arm's name as part of a file name."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)

"""A student for any task: MiniLM compressed on encyclopaedia text, then fine-tuned, next to the same shape without.

    python -m benchmarks.task_agnostic --data DIR --work DIR

``DIR`` holds wikipedia-en/train.txt.gz, STS-B, SST-2, MRPC and CLINC150. The teacher is the all-MiniLM-L6-v2 of the
extra ``demo``. The shipped recipe ``sentence-embedding-dual`` compresses it to less than 7 MB (int8, tokenizer
included), without any label; the package is scored on the pairs of STS-B, and the report goes beside the recipe. Then
three students of one shape and vocabulary are fine-tuned on each task with equal steps: the task-agnostic one, the one
that it started from (parts of the teacher, no training), and one of random weights. Scores: published dev sets, one
seed. Scaled down for two cores: 10,000 lines of the encyclopaedia, 64 tokens each, two epochs; 20,000 rows of SST-2.
Writes docs/results/task_agnostic.json; what is done is not done again.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click

from benchmarks.docstring_search import teacher_folder
from benchmarks.shipped_recipes import keep_report
from compressor.files import write_json
from exporters.measuring.machine import machine, versions

RECIPE = "sentence-embedding-dual"
RESULT_PATH = Path("docs/results/task_agnostic.json")
TASKS = {
    "SST-2": {"files": ("train.tsv", "dev.tsv"), "rows": 20_000, "epochs": 1.0, "batch_size": 64},
    "MRPC": {"files": ("train.tsv", "dev.tsv"), "rows": 4_000, "epochs": 3.0, "batch_size": 32},
    "CLINC150": {"files": ("train.jsonl", "dev.jsonl"), "rows": 15_000, "epochs": 2.0, "batch_size": 64},
}
STARTS = ("task-agnostic", "parts of the teacher", "random")
FINETUNE_RATE = 3e-4


def recipe(data: Path, rows: int) -> dict[str, Any]:
    """Return the recipe of the task-agnostic student: the shipped one, with this shape, these rows and these epochs."""
    from compressor.recipe.shipped import base

    shipped = base(RECIPE)
    return {
        **shipped,
        "teacher": {"path": str(teacher_folder()), "max_length": 64},
        "data": {
            "train": str(data / "wikipedia-en" / "train.txt.gz"),
            "eval": str(data / "STS-B" / "dev.tsv"),
            "max_rows": rows,
        },
        "vocab": {"size": 6000},
        "student": {"layers": 6, "hidden": 256, "heads": 8, "ffn": 1024},
        "quantize": {"scheme": "int8"},
        "budget": {"max_size": "7MB"},
        "measure": {"baselines": False},
        "stage": [{**stage, "epochs": 2.0, "batch_size": 32, "learning_rate": 5e-4} for stage in shipped["stage"]],
    }


def finetuned(model: Path, name: str, data: Path, output: Path) -> dict[str, Any]:
    """Fine-tune one student on one task and return its score."""
    from compressor.recipe.recipe import finetune_job
    from compressor.run.finetune import finetune

    found = output / "finetune.json"
    if not found.is_file():
        task = TASKS[name]
        train, dev = (str(data / name / file) for file in task["files"])  # type: ignore[attr-defined]
        stage = {"method": "finetune", "learning_rate": FINETUNE_RATE}
        stage |= {key: task[key] for key in ("epochs", "batch_size")}  # type: ignore[dict-item]
        job = {
            "teacher": {"path": str(model)},
            "data": {"train": train, "eval": dev, "max_rows": task["rows"]},
            "stage": [stage],
        }
        finetune(finetune_job(job), output)
    scores: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return {key: scores[key] for key in ("accuracy", "f1", "rows", "seconds") if key in scores}


def random_student(source: Path, folder: Path) -> None:
    """Save the shape of ``source`` with fresh weights of seed 0, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(source), add_pooling_layer=False).save_pretrained(folder)
    for path in source.glob("tokenizer*.json"):
        shutil.copyfile(path, folder / path.name)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--rows", default=10_000, show_default=True, help="Lines of the encyclopaedia.")
@click.option("--processes", default=os.cpu_count() or 1, show_default="one per core")
def main(data: Path, work: Path, rows: int, processes: int) -> None:
    """Make the student, fine-tune it and the others, and write the table."""
    from compressor.recipe.recipe import from_dict
    from compressor.run.compress import compress

    outcome = compress(from_dict(recipe(data, rows)), work / "student", echo=click.echo)
    report = outcome.report
    keep_report(report, RECIPE)
    models = {"task-agnostic": work / "student/steps/train-1-dual_training/model"}
    models |= {"parts of the teacher": work / "student/steps/student/model", "random": work / "random"}
    random_student(models["parts of the teacher"], models["random"])
    os.environ["OMP_NUM_THREADS"] = "1"
    jobs = [
        (models[start], name, data, work / f"{name}-{start.replace(' ', '-')}") for name in TASKS for start in STARTS
    ]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(finetuned, *zip(*jobs, strict=True)))
    rows_of = [
        {"task": job[1], "start": start, **result}
        for job, start, result in zip(jobs, STARTS * len(TASKS), results, strict=True)
    ]
    for row in rows_of:
        click.echo(f"{row['task']:9} {row['start']:22} {row['accuracy']:.4f}")
    write_json(
        RESULT_PATH,
        {
            "version": 1,
            "command": "python -m benchmarks.task_agnostic --data DIR --work DIR",
            "evaluated_on": "dev",
            "seeds": 1,
            "student": report["student"],
            "bytes": report["size"]["total"],
            "sts_b": report["metrics"],
            "status": report["status"],
            "stages": report["recipe"]["stage"],
            "lines": rows,
            "seconds": report["seconds"],
            "vocabulary": {key: value for key, value in report["vocabulary"].items() if key != "worst_words"},
            "finetuned": rows_of,
            "finetune_rate": FINETUNE_RATE,
            "hashes": report["hashes"],
            "versions": versions(),
            "machine": machine(),
        },
    )


if __name__ == "__main__":
    main()

"""What students of one to seven megabytes are worth: the ordinary command on five sets, as it is and as it was.

    python -m benchmarks.worth --data DIR --sst2-teacher MODEL --work DIR

``DIR`` holds SST-2, CLINC150, MRPC, STS-B and SNIPS. All rows are used. The teacher of SST-2 is given; the others are
made by ``tenmeg finetune`` from the all-MiniLM-L6-v2 of the extra ``demo``, with its defaults. The arm "now" has a byte
budget and nothing else. The arm "before" has the shape, the 1.6 million tokens, the learning rate and the rows as they
are that the same budget meant until training went by work; its maps are fitted too, which they were not. Every student
has a process of one thread; a job that is done is not done again. Settings were chosen on held-out training rows; all
scores are on the dev sets. TF-IDF at the same bytes stands beside. Writes docs/results/worth.json.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.docstring_search import teacher_folder
from benchmarks.support.runner import Prepared, run_all
from benchmarks.support.sets import readable
from compressor.files import sha256_file, write_json
from exporters.measuring.machine import machine, versions

RESULT_PATH = Path("docs/results/worth.json")
COMMAND = "python -m benchmarks.worth --data DIR --sst2-teacher MODEL --work DIR"
FILES = {
    "SST-2": ("train.tsv", "dev.tsv"),
    "CLINC150": ("train.jsonl", "dev.jsonl"),
    "MRPC": ("train.tsv", "dev.tsv"),
    "STS-B": ("train.tsv", "dev.tsv"),
    "SNIPS": ("train", "valid"),
}
# Layers, width, FFN and tokens that a byte budget meant for this teacher, and the learning rate.
BEFORE = {
    "1MB": (5, 160, 384, 2500, 3e-4),
    "2MB": (6, 224, 512, 3000, 3e-4),
    "4MB": (6, 320, 768, 4500, 3e-4),
    "7MB": (6, 384, 1280, 7000, 1e-4),
}
TOKENS, MOST_EPOCHS = 1_600_000, 15.0


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--sst2-teacher", required=True, type=click.Path(path_type=Path, exists=True), help="SST-2 classifier.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--set", "names", multiple=True, type=click.Choice(list(FILES)), help="Sets to run; all when left out.")
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(BEFORE)), help="Sizes; all when left out.")
@click.option("--arm", "arms", multiple=True, type=click.Choice(["now", "before"]), help="Arms; both when left out.")
@click.option("--seeds", default=1, show_default=True)
@click.option("--processes", default=os.cpu_count() or 1, show_default="one per core")
@click.option("--result", type=click.Path(path_type=Path), default=RESULT_PATH, show_default=True)
def main(
    data: Path,
    sst2_teacher: Path,
    work: Path,
    names: tuple[str, ...],
    sizes: tuple[str, ...],
    arms: tuple[str, ...],
    seeds: int,
    processes: int,
    result: Path,
) -> None:
    """Run the jobs and write what all that are done come to."""
    for name in names or FILES:
        prepared = prepare(name, data, sst2_teacher, work)
        jobs = [
            (prepared, f"{arm}-{size}", recipe_part(prepared, arm, size), seed)
            for seed in range(seeds)
            for size in sizes or BEFORE
            for arm in arms or ("now", "before")
        ]
        for (_, arm, _, seed), found in zip(jobs, run_all(jobs, processes), strict=True):
            write_row(result, prepared, arm, seed, found)


def prepare(name: str, data: Path, sst2_teacher: Path, work: Path) -> Prepared:
    """Return rows and teacher of a set; a teacher that is not there yet is fine-tuned."""
    from compressor.recipe.recipe import finetune_job
    from compressor.run.finetune import finetune

    train, dev = (readable(data / name / file, work / "rows" / name) for file in FILES[name])
    teacher = sst2_teacher
    if name != "SST-2":
        teacher = work / f"teacher-{name}"
        if not teacher.is_dir():
            work.mkdir(parents=True, exist_ok=True)
            job = {"teacher": {"path": str(teacher_folder())}, "data": {"train": str(train), "eval": str(dev)}}
            finetune(finetune_job(job), teacher, echo=click.echo)
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    return Prepared(name, folder, teacher, train, dev)


def recipe_part(prepared: Prepared, arm: str, size: str) -> dict[str, Any]:
    """Return what an arm decides."""
    if arm == "now":
        return {"budget": {"max_size": size}}
    from compressor.data.table import read_table

    layers, hidden, ffn, tokens, rate = BEFORE[size]
    table = read_table(str(prepared.train), needs_label=True)
    n_words = sum(len(text.split()) + 1 for text in [*table.texts, *(table.pairs or [])]) + len(table)
    epochs = round(min(TOKENS / (1.3 * n_words), MOST_EPOCHS), 1)
    return {
        "budget": {"max_size": size},
        "student": {"layers": layers, "hidden": hidden, "ffn": ffn},
        "vocab": {"size": tokens},
        "data": {"variations": 0},
        "stage": [
            {"method": "distill", "epochs": epochs, "learning_rate": rate, "options": {"dropout": 0.0}},
        ],
    }


def write_row(result: Path, prepared: Prepared, arm: str, seed: int, found: dict[str, Any]) -> None:
    """Put one job's figures into the file of results, beside those that are there."""
    content = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {"rows": {}}
    metric = found["metric"]
    content["rows"].setdefault(prepared.name, {}).setdefault(arm, {})[str(seed)] = {
        "metric": metric,
        "teacher": found["teacher"][metric],
        "student": found["metrics"][metric],
        "package": found["package"]["metrics"][metric],
        "bytes": found["package"]["bytes"],
        "shape": found["described"],
        "epochs": [stage["epochs"] for stage in found["stages"]],
        "cpu_seconds": [stage.get("cpu_seconds") for stage in found["training"]],
        "tfidf": simple(prepared, arm.rpartition("-")[2], metric),
    }
    write_content(result, content, prepared, COMMAND)
    row = content["rows"][prepared.name][arm][str(seed)]
    click.echo(f"{prepared.name} {arm} seed {seed}: {row}")


def write_content(result: Path, content: dict[str, Any], prepared: Prepared, command: str) -> None:
    """Write a file of results with what its newest row was measured on: command, hashes, versions, machine."""
    hashes = {
        "train": sha256_file(prepared.train),
        "dev": sha256_file(prepared.evaluation),
        "teacher": sha256_file(prepared.teacher / "model.safetensors"),
    }
    content |= {
        "version": 1,
        "command": command,
        "set": "dev",
        "hashes": {**content.get("hashes", {}), prepared.name: hashes},
        "versions": versions(),
        "machine": machine(),
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    write_json(result, content)


def simple(prepared: Prepared, size: str, metric: str) -> float | None:
    """Return what TF-IDF scores at the same bytes."""
    from compressor.data.table import read_table
    from compressor.models.teacher import read_teacher
    from compressor.packaging.baselines import tfidf
    from compressor.recipe.sections import TeacherSection
    from exporters.budget import parse_size

    train, dev = (read_table(str(path), needs_label=True) for path in (prepared.train, prepared.evaluation))
    info = read_teacher(TeacherSection(path=str(prepared.teacher)))
    return tfidf(train, dev, info.spec(pair=dev.pairs is not None), parse_size(size), 0).metrics.get(metric)


if __name__ == "__main__":
    main()

"""The ordinary command on four tasks, as one table: package, teacher, teacher as int8, and TF-IDF, from the same runs.

    python -m benchmarks.compress_table --data DIR --sst2-teacher MODEL --work DIR

``DIR`` holds SST-2, MRPC and STS-B as GLUE publishes them (SST-2/train.tsv, SST-2/dev.tsv and so on). Teachers of the
pair task and of the regression are fine-tuned here, by ``tenmeg finetune``, from the all-MiniLM-L6-v2 of the extra
``demo``, which is also the teacher of the embedding row. All settings are the defaults; every score is on the published
dev set, on which nothing was chosen; one seed. A job that is done is not done again. Writes docs/results/compress.json.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

import json
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.docstring_search import teacher_folder
from compressor.files import write_json

RESULT_PATH = Path("docs/results/compress.json")


class Job(NamedTuple):
    """One row of the table."""

    name: str
    folder: str  # of the data
    teacher: str  # "sst2", "minilm" or the folder whose data fine-tune it
    max_size: str
    quantize: str
    columns: dict[str, str]


JOBS = (
    Job("SST-2", "SST-2", "sst2", "7MB", "auto", {}),
    Job("SST-2, int8", "SST-2", "sst2", "7MB", "int8", {}),
    Job("MRPC (pairs)", "MRPC", "MRPC", "7MB", "auto", {}),
    Job("STS-B (regression)", "STS-B", "STS-B", "7MB", "auto", {}),
    Job("STS-B (embeddings)", "STS-B", "minilm", "7MB", "auto", {}),
)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--sst2-teacher", required=True, type=click.Path(path_type=Path, exists=True), help="SST-2 classifier.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--only", multiple=True, help="Names of the jobs to run; all when left out.")
@click.option("--result", type=click.Path(path_type=Path), default=RESULT_PATH, show_default=True)
def main(data: Path, sst2_teacher: Path, work: Path, only: tuple[str, ...], result: Path) -> None:
    """Run the jobs one after the other and write the table."""
    found = json.loads(result.read_text(encoding="utf-8"))["rows"] if result.is_file() else []
    rows = {row["name"]: row for row in found}
    for job in JOBS:
        if only and job.name not in only:
            continue
        rows[job.name] = run(job, data, sst2_teacher, work)
        result.parent.mkdir(parents=True, exist_ok=True)
        ordered = [rows[other.name] for other in JOBS if other.name in rows]
        command = "python -m benchmarks.compress_table --data DIR --sst2-teacher MODEL --work DIR"
        write_json(result, {"version": 1, "command": command, "set": "dev", "seeds": 1, "rows": ordered})
        click.echo(json.dumps(rows[job.name], indent=2))


def run(job: Job, data: Path, sst2_teacher: Path, work: Path) -> dict[str, Any]:
    """Return the row of one job."""
    from compressor.recipe.recipe import from_dict
    from compressor.run.compress import compress

    rows = {"train": str(data / job.folder / "train.tsv"), "eval": str(data / job.folder / "dev.tsv")}
    recipe = from_dict(
        {
            "teacher": {"path": str(find_teacher(job, data, sst2_teacher, work))},
            "data": {**rows, **job.columns},
            "budget": {"max_size": job.max_size, "max_drop": 3.0},
            "quantize": {"scheme": job.quantize},
        }
    )
    name = "".join(letter if letter.isalnum() else "-" for letter in job.name)
    outcome = compress(recipe, work / name, overwrite=True, echo=click.echo)
    return {"name": job.name, **summary(outcome.report)}


def find_teacher(job: Job, data: Path, sst2_teacher: Path, work: Path) -> Path:
    """Return the teacher of a job, fine-tuned first where it has to be."""
    from compressor.recipe.recipe import finetune_job
    from compressor.run.finetune import finetune

    if job.teacher in ("sst2", "minilm"):
        return sst2_teacher if job.teacher == "sst2" else teacher_folder()
    folder = work / f"teacher-{job.teacher}"
    if not folder.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        rows = {"train": str(data / job.folder / "train.tsv"), "eval": str(data / job.folder / "dev.tsv")}
        made = finetune(
            finetune_job({"teacher": {"path": str(teacher_folder())}, "data": rows}), folder, echo=click.echo
        )
        click.echo(json.dumps(made))
    return folder


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Return what the table shows of a run's report."""
    metric = report["task"]["metric"]
    scores = {name: found[metric] for name, found in report["metrics"].items()}
    return {
        "metric": metric,
        "scores": scores,
        "drop_points": 100 * (scores["teacher"] - scores["package"]),
        "quantization_drop_points": 100 * (scores["student"] - scores["package"]),
        "bytes": report["size"]["total"],
        "predicted_bytes": sum(report["size"]["predicted"].values()),
        "student": report["student"],
        "quantization": report["quantization"],
        "latency_ms": {name: report["latency"][name] for name in ("p50", "p95", "p99")},
        "memory": report["memory"],
        "baselines": [
            {
                "name": other["name"],
                "score": other["metrics"].get(metric),
                "bytes": other["bytes"],
                "p50_ms": other.get("p50_ms"),
            }
            for other in report["baselines"]
        ],
        "training_seconds": sum(stage["seconds"] for stage in report["training"]),
        "total_seconds": sum(report["seconds"].values()),
        "stages": report["recipe"]["stage"],
        "seed": report["recipe"]["seed"],
        "hashes": report["hashes"],
        "versions": report["versions"],
        "machine": report["machine"],
    }


if __name__ == "__main__":
    main()

"""Several labels a row, from rows to verified packages: a teacher is fine-tuned, and students of two sizes are made.

    python -m benchmarks.multi_label --data DIR --work DIR

``DIR`` holds CLINC150/train.jsonl and dev.jsonl, out of which the rows are joined (``benchmarks.support.joined_rows``).
The teacher is fine-tuned by ``tenmeg finetune`` from the all-MiniLM-L6-v2 of the extra ``demo``. All settings are the
defaults; thresholds are chosen on held-out training rows, and every score is on the test rows, on which nothing was
chosen; one seed. Writes docs/results/multi_label.json.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

from pathlib import Path
from typing import Any

import click

from benchmarks.docstring_search import teacher_folder
from benchmarks.support.joined_rows import Files, write_rows
from compressor.files import sha256_file, write_json

RESULT_PATH = Path("docs/results/multi_label.json")
SIZES = ("7MB", "2MB")
COMMAND = "python -m benchmarks.multi_label --data DIR --work DIR"


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--result", type=click.Path(path_type=Path), default=RESULT_PATH, show_default=True)
def main(data: Path, work: Path, result: Path) -> None:
    """Make rows, teacher and students, and write the table; what is done is not done again."""
    files = write_rows(data / "CLINC150", work / "rows")
    teacher = make_teacher(files, work / "teacher")
    rows = []
    for size in SIZES:
        rows.append(run(files, teacher, size, work))
        hashes = {path.name: sha256_file(path) for path in files}
        write_json(
            result,
            {"version": 1, "command": COMMAND, "set": "test", "seeds": 1, "rows_sha256": hashes, "students": rows},
        )


def make_teacher(files: Files, folder: Path) -> Path:
    """Fine-tune the teacher where it is not there yet, as ``tenmeg finetune --task multi_label`` does."""
    from compressor.recipe.recipe import finetune_job
    from compressor.run.finetune import finetune

    if not folder.is_dir():
        section = {"path": str(teacher_folder()), "max_length": 64}
        job = {"task": "multi_label", "teacher": section, "data": {"train": str(files.train), "eval": str(files.dev)}}
        finetune(finetune_job(job), folder, echo=click.echo)
    return folder


def run(files: Files, teacher: Path, size: str, work: Path) -> dict[str, Any]:
    """Return what a student of one size, its teacher and the baselines score, and what the package answers alone."""
    from compressor.packaging.inspection import verify_package
    from compressor.recipe.recipe import from_dict
    from compressor.run.compress import compress

    data = {"train": str(files.train), "eval": str(files.test)}
    recipe = from_dict({"teacher": {"path": str(teacher)}, "data": data, "budget": {"max_size": size}})
    outcome = compress(recipe, work / size, echo=click.echo, cache=work / "cache")
    report = outcome.report
    verified = verify_package(outcome.package_dir, eval=str(files.test))
    return {
        "max_size": size,
        "student": report["student"],
        "bytes": report["size"]["total"],
        "metrics": report["metrics"],
        "baselines": report["baselines"],
        "latency_ms": {name: report["latency"][name] for name in ("p50", "p95")},
        "thresholds": dict(zip(report["task"]["labels"], report["task"]["thresholds"], strict=True)),
        "verified": {name: verified[name] for name in ("micro_f1", "macro_f1", "exact_match", "self_test", "rows")},
        "violations": outcome.violations,
        "versions": report["versions"],
        "machine": report["machine"],
    }


if __name__ == "__main__":
    main()

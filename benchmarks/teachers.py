"""Teachers by ``tenmeg finetune`` with all its defaults, beside the linear model on the frozen encoder, and TF-IDF.

    python -m benchmarks.teachers --data DIR --work DIR

``DIR`` holds SST-2, MRPC, CLINC150, SNIPS and STS-B, whose training rows are learned from and whose dev rows judge; on
these nothing is chosen. The start is the all-MiniLM-L6-v2 of the extra ``demo``. ``CLINC150-8`` is CLINC150 with 8
training rows of every class, drawn by seed. The difference of teacher and frozen probe has a 95 % interval by paired
bootstrap over the dev rows. What is done is not done again; writes docs/results/teachers.json.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.docstring_search import teacher_folder
from benchmarks.support.sets import SETS, readable
from compressor.files import sha256_file, write_json

RESULT_PATH = Path("docs/results/teachers.json")
COMMAND = "python -m benchmarks.teachers --data DIR --work DIR"
RUNS = ("CLINC150", "CLINC150-8", "CLINC150-32", "CLINC150-128", "SNIPS", "MRPC", "STS-B", "SST-2")
N_RESAMPLES = 2000
SEED = 0


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the teachers go.")
@click.option("--only", multiple=True, type=click.Choice(RUNS), help="Some of the sets.  [default: all]")
@click.option("--result", type=click.Path(path_type=Path), default=RESULT_PATH, show_default=True)
def main(data: Path, work: Path, only: tuple[str, ...], result: Path) -> None:
    """Make a teacher of every set and write the table."""
    from exporters.measuring.machine import machine, versions

    for name in RUNS:
        if name in (only or RUNS):
            row = measure(name, data, work)
            click.echo(line(row))
        done = [json.loads(path.read_text(encoding="utf-8")) for path in map(work.joinpath, map(row_name, RUNS))
                if path.is_file()]  # fmt: skip
        facts = {"command": COMMAND, "judged_on": "dev", "seeds": 1, "versions": versions(), "machine": machine()}
        write_json(result, {"version": 1, **facts, "base": "all-MiniLM-L6-v2", "teachers": done})


def row_name(name: str) -> str:
    """Return the file that keeps what was measured."""
    return f"{name}.json"


def measure(name: str, data: Path, work: Path) -> dict[str, Any]:
    """Return what teacher, probe and TF-IDF score on one set; a teacher that is there is not made again."""
    from compressor.recipe.recipe import finetune_job
    from compressor.run.finetune import finetune

    kept = work / row_name(name)
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    source, _, n_of_class = name.partition("-") if name.startswith("CLINC150") else (name, "", "")
    train, dev = (readable(data / source / file, work / "rows" / source) for file in SETS[source].files)
    if n_of_class:
        train = few_rows(train, int(n_of_class), work / "rows" / f"{name}.jsonl")
    job = finetune_job({"teacher": {"path": str(teacher_folder())}, "data": {"train": str(train), "eval": str(dev)}})
    folder = work / name
    if not folder.is_dir():
        finetune(job, folder, echo=click.echo)
    told = json.loads((folder / "finetune.json").read_text(encoding="utf-8"))
    row = {
        "name": name,
        **{key: told[key] for key in ("rows", "tfidf", "verdict", "seconds", "sha256")},
        **compared(job, folder),
        "rows_sha256": {path.name: sha256_file(path) for path in (train, dev)},
    }
    write_json(kept, row)
    return row


def few_rows(train: Path, n_of_class: int, path: Path) -> Path:
    """Write so many rows of every class, or all where there are no more, drawn by seed."""
    rows = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    left: dict[str, int] = {}
    kept = []
    for index in np.random.default_rng(SEED).permutation(len(rows)):
        label = rows[index]["label"]
        left[label] = left.get(label, n_of_class) - 1
        if left[label] >= 0:
            kept.append(int(index))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(rows[index])}\n" for index in sorted(kept)), encoding="utf-8")
    return path


def compared(job: Any, folder: Path) -> dict[str, Any]:  # Any: a FinetuneJob
    """Return the metric, the scores of teacher and frozen probe, and the interval of their difference."""
    from scipy.stats import bootstrap

    from compressor.run.finetune import prepare, trained_predictor
    from compressor.run.teaching.frozen import Frozen, pooling_of, probe_outputs
    from compressor.scoring.evaluate import outputs_on, score

    prepared = prepare(job)
    spec, dev = prepared.spec, prepared.evaluation
    targets = spec.targets(dev)
    assert targets is not None
    ours = outputs_on(trained_predictor(prepared, folder), dev, spec)
    frozen = Frozen(prepared.info, pooling_of(prepared.info), prepared.max_length)
    theirs = probe_outputs(frozen, prepared.train, dev, spec, SEED)

    def difference(rows: Any) -> float:
        chosen = [targets[row] for row in rows]
        first, second = (score(outputs[rows], chosen, spec)[spec.metric] for outputs in (ours, theirs))
        return first - second

    drawn = np.random.default_rng(SEED)
    found = bootstrap(
        (np.arange(len(dev)),), difference, vectorized=False, method="percentile", n_resamples=N_RESAMPLES, rng=drawn
    ).confidence_interval
    return {
        "metric": spec.metric,
        "teacher": score(ours, targets, spec),
        "probe": score(theirs, targets, spec),
        "difference": difference(np.arange(len(dev))),
        "interval": [float(found.low), float(found.high)],
    }


def line(row: dict[str, Any]) -> str:
    """Return a row as a person reads it."""
    ours, probe, tfidf = (row[name][row["metric"]] for name in ("teacher", "probe", "tfidf"))
    low, high = row["interval"]
    return (
        f"{row['name']:14} {row['metric']:9} teacher {ours:.4f}  frozen probe {probe:.4f}  TF-IDF {tfidf:.4f}  "
        f"difference {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]  {row['seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()

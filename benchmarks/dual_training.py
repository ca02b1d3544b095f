"""Does another vocabulary cost quality, and does dual training help? One table, equal student, vocabulary and steps.

    python -m benchmarks.dual_training --data DIR --sst2-teacher MODEL --work DIR [--tune]

``DIR`` holds CLINC150 (train.jsonl, dev.jsonl) and SST-2 (train.tsv, dev.tsv). The CLINC150 teacher is fine-tuned here
from the all-MiniLM-L6-v2 of the extra ``demo``. Every arm trains the same student (6 layers x 96, 3 heads, FFN 384)
with the same 5,000-token vocabulary for the same number of optimizer steps in all, three seeds; two-stage arms spend a
part of those steps on the first stage. ``--tune`` instead compares settings on a tenth of the training rows, held out,
with one seed: the settings below were chosen by it, not on the sets that are reported. Scaled down for two cores:
20,000 rows of SST-2, a student of 1.3 M weights; a teacher that reads every eighth row of a batch in the arms that
train it. Writes docs/results/dual_training.json (or dual_tuning.json).
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.support.comparison import in_batches, options, run_arms, write_comparison
from benchmarks.support.runner import prepare, stage
from benchmarks.support.sets import SETS as ALL_SETS
from benchmarks.support.sets import sets

SHAPE = {"layers": 6, "hidden": 96, "heads": 3, "ffn": 384}
VOCAB = {"size": 5000}
SETS = {name: ALL_SETS[name] for name in ("SST-2", "CLINC150")}
EPOCHS = {"SST-2": 1.5, "CLINC150": 2.0}
TUNING_EPOCHS = {"SST-2": 2.0, "CLINC150": 4.0}
BATCH_SIZES = {"SST-2": 128, "CLINC150": 64}
STAGE_ONE = 0.2  # of the steps, for arms with two stages
RATE = 1e-3
EPS = 1e4


def arm(*stages: dict[str, Any], init: str = "random", vocab: Mapping[str, Any] = VOCAB) -> dict[str, Any]:
    """Return the part of a recipe that makes an arm."""
    return {
        "student": {**SHAPE, "init": init},
        "vocab": dict(vocab),
        "quantize": {"scheme": "int8"},
        "stage": list(stages),
    }


def arms(epochs: float) -> dict[str, dict[str, Any]]:
    """Return every arm of the table by its name."""
    first, second = STAGE_ONE * epochs, (1 - STAGE_ONE) * epochs
    logits = {"hidden": 0.0}

    def dual(projection: str) -> dict[str, Any]:
        return stage("dual_training", epochs, RATE, projection=projection, eps=EPS, every=8)

    return {
        "a  from scratch, labels": arm(stage("finetune", epochs, RATE)),
        "b  logits only": arm(stage("distill", epochs, RATE, **logits)),
        "c  logits, embeddings mapped from the teacher": arm(
            stage("distill", epochs, RATE, **logits), init="embeddings"
        ),
        "i  logits and states by words": arm(stage("distill", epochs, RATE)),
        "j  as i, embeddings mapped": arm(stage("distill", epochs, RATE), init="embeddings"),
        "d  mixed vocabulary, two stages": arm(
            stage("mixed_vocabulary", first, RATE, start="principal"), stage("distill", second, RATE)
        ),
        "e  dual training, no projection": arm(dual("none")),
        "f  dual training, down": arm(dual("down")),
        "g  dual training, up": arm(dual("up")),
        "k  as i, parts of the teacher (tenmeg's default)": arm(stage("distill", epochs, RATE), init="teacher"),
        "h  dual training, up, parts of the teacher": arm(dual("up"), init="teacher"),
        "l  as k, the teacher's 30,522 tokens": arm(stage("distill", epochs, RATE), init="teacher", vocab={"size": 0}),
    }


def tuning(epochs: float) -> dict[str, dict[str, Any]]:
    """Return the settings that are compared on held-out training rows."""
    first, second = STAGE_ONE * epochs, (1 - STAGE_ONE) * epochs
    found = {f"distill, rate {rate:g}": arm(stage("distill", epochs, rate)) for rate in (3e-4, 1e-3, 2e-3)}
    for projection in ("down", "up"):
        for eps in (100.0, 1000.0, 1e4, 1e5):
            options: dict[str, Any] = {"projection": projection, "eps": eps, "every": 8}
            found[f"dual {projection}, eps {eps:g}"] = arm(stage("dual_training", epochs, RATE, **options))
    for rate in (0.0, 1e-5):
        options = {"teacher_learning_rate": rate, "start": "student"}
        found[f"mixed then distill, teacher's rate {rate:g}"] = arm(
            stage("mixed_vocabulary", first, RATE, **options), stage("distill", second, RATE), init="teacher"
        )
    found["distill, parts of the teacher"] = arm(stage("distill", epochs, RATE), init="teacher")
    tied: dict[str, Any] = {"projection": "up", "eps": 1e4, "every": 8}
    found["dual up, eps 10000, parts of the teacher"] = arm(
        stage("dual_training", epochs, RATE, **tied), init="teacher"
    )
    found["mixed then dual up, eps 10000, parts of the teacher"] = arm(
        stage("mixed_vocabulary", first, RATE, start="student"),
        stage("dual_training", second, RATE, **tied),
        init="teacher",
    )
    return found


@click.command()
@options
@click.option("--only", multiple=True, help="First letters of the arms to run; all when left out.")
def main(
    data: Path,
    sst2_teacher: Path,
    work: Path,
    tune: bool,
    only: tuple[str, ...],
    set_names: tuple[str, ...],
    seeds: int,
    processes: int,
) -> None:
    """Run the arms and write the table."""
    started = time.monotonic()
    prepared = sets(data, sst2_teacher, work, {name: SETS[name] for name in set_names or SETS}, tune)
    epochs = TUNING_EPOCHS if tune else EPOCHS
    plans = {}
    for each in prepared:
        found = (tuning if tune else arms)(epochs[each.name])
        chosen = {name: one for name, one in found.items() if not only or name.startswith(only)}
        plans[each.name] = in_batches(chosen, BATCH_SIZES[each.name])
    facts = [{**prepare(each, arm(stage("distill", 1.0, RATE))), "epochs": epochs[each.name]} for each in prepared]
    n_seeds = 1 if tune else seeds
    results = run_arms(prepared, plans, n_seeds, processes)
    option = " --tune" if tune else ""
    write_comparison(
        "dual_tuning" if tune else "dual_training",
        started,
        prepared,
        facts,
        results,
        {
            "command": f"python -m benchmarks.dual_training --data DIR --sst2-teacher MODEL --work DIR{option}",
            "evaluated_on": "a tenth of the training rows, held out" if tune else "dev",
            "seeds": n_seeds,
            "shape": SHAPE,
            "batch_sizes": BATCH_SIZES,
            "processes": processes,
        },
    )


if __name__ == "__main__":
    main()

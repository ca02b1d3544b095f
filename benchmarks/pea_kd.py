"""Do shared layers and a start on the teacher's predictions help? The parts of Pea-KD one by one, at equal steps.

    python -m benchmarks.pea_kd --data DIR --sst2-teacher MODEL --work DIR [--tune]

``DIR`` holds SST-2, MRPC, CLINC150 and SNIPS, whose teachers are those of ``benchmarks.support.sets``.
Students of 1, 2 and 3 stored layers (128 wide, 4 heads, FFN 512, 5,000 tokens) start as parts of their teacher and are
trained by patient distillation: alone; with every layer run twice; run twice with query and key exchanged; after a
stage on the teacher's predictions; with all of it. Beside them stands a plain student of twice the layers, so narrow
that it has as many parameters. Every arm takes the same number of optimizer steps in all: the stage on the teacher's
predictions takes its share of them. ``--tune`` compares the learning rate and that share on a tenth of the training
rows of two sets, held out, one seed.
Writes docs/results/pea_kd.json (or pea_kd_tuning.json).
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

import time
from pathlib import Path
from typing import Any

import click

from benchmarks.support.comparison import Arms, in_batches, options, run_arms, write_comparison
from benchmarks.support.runner import prepare, stage
from benchmarks.support.sets import SETS as ALL_SETS
from benchmarks.support.sets import TUNING_SETS, Setting, sets
from exporters.shape import Shape

SETS = {name: ALL_SETS[name] for name in ("SST-2", "MRPC", "CLINC150", "SNIPS")}
SHAPE = {"hidden": 128, "heads": 4, "ffn": 512}
TOKENS = 5000
POSITIONS = 64  # of about what the texts need; for the choice of the narrow student
DEPTHS = (1, 2, 3)
RATE = 1e-3  # 2e-3 was better on held-out rows, but some runs at it end with one answer for all
LABELS_RATE = 3e-4  # of the stage on the teacher's predictions: it is too short for a long warm-up
SHARE = 0.1  # of the steps, for the teacher's predictions
HEAD = "keep"  # after them: the projection that the teacher gave; "fresh" as published


def arm(student: dict[str, Any], *stages: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a recipe that makes an arm."""
    return {
        "student": {**SHAPE, **student},
        "vocab": {"size": TOKENS},
        "quantize": {"scheme": "int8"},
        "stage": list(stages),
    }


def patient(epochs: float, *, rate: float = RATE, share: float = 0.0, head: str = HEAD) -> list[dict[str, Any]]:
    """Return the stages: the teacher's predictions for a share of the steps, then patient distillation."""
    first = [stage("teacher_predictions", share * epochs, min(rate, LABELS_RATE), head=head)] if share else []
    return [*first, stage("patient", (1 - share) * epochs, rate)]


def narrow_width(layers: int) -> int:
    """Return the width at which a plain student of twice the layers has as many parameters (a multiple of 4)."""

    def parameters(n_layers: int, width: int) -> int:
        heads, ffn = SHAPE["heads"], SHAPE["ffn"] * width // SHAPE["hidden"]
        return Shape(TOKENS, width, n_layers, heads, ffn, POSITIONS, n_labels=2, head_layers=1).n_parameters

    wanted = parameters(layers, SHAPE["hidden"])
    return min(range(4, SHAPE["hidden"] + 1, 4), key=lambda width: abs(parameters(2 * layers, width) - wanted))


def arms(epochs: float) -> Arms:
    """Return every arm of the table by its name."""
    found: Arms = {}
    for layers in DEPTHS:
        plain, once = {"layers": layers}, patient(epochs)
        shared: dict[str, Any] = {"layers": layers, "repeat": "all", "exchange": False}
        exchanged = {**shared, "exchange": True}
        width = narrow_width(layers)
        narrow = {"layers": 2 * layers, "hidden": width, "ffn": SHAPE["ffn"] * width // SHAPE["hidden"]}
        found |= {
            f"{layers}  patient distillation": arm(plain, *once),
            f"{layers}  + layers run twice": arm(shared, *once),
            f"{layers}  + layers run twice, exchanged": arm(exchanged, *once),
            f"{layers}  + teacher's predictions": arm(plain, *patient(epochs, share=SHARE)),
            f"{layers}  all (Pea-KD)": arm(exchanged, *patient(epochs, share=SHARE)),
            f"{layers}  plain, {2 * layers} layers x {width}": arm(narrow, *once),
        }
    return found


def tuning(epochs: float) -> Arms:
    """Return the settings that are compared on held-out training rows."""
    plain: dict[str, Any] = {"layers": 3}
    exchanged = {**plain, "repeat": "all", "exchange": True}
    found = {}
    for rate in (5e-4, 1e-3, 2e-3):
        found[f"patient, rate {rate:g}"] = arm(plain, *patient(epochs, rate=rate))
        found[f"exchanged, rate {rate:g}"] = arm(exchanged, *patient(epochs, rate=rate))
    for share in (0.1, 0.25):
        for head in ("fresh", "keep"):
            name = f"teacher's predictions, share {share:g}, {head} head"
            found[name] = arm(plain, *patient(epochs, share=share, head=head))
    return found


@click.command()
@options
def main(
    data: Path, sst2_teacher: Path, work: Path, tune: bool, set_names: tuple[str, ...], seeds: int, processes: int
) -> None:
    """Run the arms and write the table."""
    started = time.monotonic()
    names = set_names or (TUNING_SETS if tune else tuple(SETS))
    prepared = sets(data, sst2_teacher, work, {name: SETS[name] for name in names}, tune)
    deepest = arm({"layers": 6}, *patient(1.0))  # reads every layer of the teacher that any arm reads
    facts = [prepare(each, deepest) for each in prepared]
    plans = {each.name: _plan(SETS[each.name], tune) for each in prepared}
    n_seeds = 1 if tune else seeds
    results = run_arms(prepared, plans, n_seeds, processes)
    facts = [{**known, "setting": SETS[each.name]._asdict()} for each, known in zip(prepared, facts, strict=True)]
    write_comparison(
        f"pea_kd{'_tuning' if tune else ''}",
        started,
        prepared,
        facts,
        results,
        {
            "command": "python -m benchmarks.pea_kd --data DIR --sst2-teacher MODEL --work DIR"
            + (" --tune" if tune else ""),
            "evaluated_on": "a tenth of the training rows, held out" if tune else "dev",
            "seeds": n_seeds,
            "shape": SHAPE,
            "share": SHARE,
            "head": HEAD,
            "processes": processes,
        },
    )


def _plan(setting: Setting, is_tuning: bool) -> Arms:
    return in_batches((tuning if is_tuning else arms)(setting.epochs), setting.batch_size)


if __name__ == "__main__":
    main()

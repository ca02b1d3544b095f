"""Are weights better inherited or outputs imitated? One table: equal student, data and steps, and at equal time.

    python -m benchmarks.inheritance --data DIR --sst2-teacher MODEL --work DIR [--tune]

``DIR`` holds SST-2, MRPC, STS-B, CLINC150 and wikipedia-en. The teacher of STS-B is the all-MiniLM-L6-v2 of the extra
``demo`` (6 layers x 384), a sentence encoder: there are no labels alone to learn from, and the similarities of dev are
scored. Those of MRPC and CLINC150 are fine-tuned from it here. Every arm trains the same student (6 layers x 96, 3
heads of 32, FFN 384) with the same 5,000 tokens, for the same number of optimizer steps in all; an arm that inherits
spends a share of them on the maps and ends, like the others, with distillation. The student that is pretrained already
is made first: MiniLM's sentence embeddings imitated on encyclopaedia text; its vocabulary is everybody's. The second
view gives the arms that inherit the time that distillation of the sliced student took: what they spend before the first
step counts, and is found by timing one seed at half the steps too. ``--curve`` scores some arms all along instead, one
seed. ``--tune`` compares settings on a tenth of the training rows of two sets, held out, one seed. Scaled
down for two cores: 20,000 rows of SST-2, one to three epochs, a student of 1.2 M weights.
Writes docs/results/inheritance.json (or inheritance_curve.json, inheritance_tuning.json).
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

import statistics
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.docstring_search import teacher_folder
from benchmarks.support.comparison import Arms, Results, in_batches, options, run_arms, write_comparison
from benchmarks.support.runner import prepare, stage
from benchmarks.support.sets import SETS as ALL_SETS
from benchmarks.support.sets import TUNING_SETS, Setting, sets

SHAPE = {"layers": 6, "hidden": 96, "heads": 3, "ffn": 384}
RATE = 1e-3  # where a student starts at random or pretrained
SLICED_RATE = 2e-3  # where it starts as a part of its teacher
SETS = {name: ALL_SETS[name] for name in ("SST-2", "MRPC", "STS-B", "CLINC150")}
CURVE_SETS = ("SST-2", "CLINC150")
SHARE = 0.25  # of the steps, for the maps
LEAST = 0.02  # of the steps, where a method takes all the time before them
MAPS: dict[str, dict[str, Any]] = {
    "weight_squeezing": {"tables": "student", "student_rate": SLICED_RATE},
    "weight_distillation": {"tables": "student", "student_rate": SLICED_RATE},
    "weight_inheritance": {},
}
RATES = {"weight_squeezing": 1e-3, "weight_distillation": 1e-3, "weight_inheritance": 3e-4}
INHERITED: dict[str, dict[str, Any]] = {
    "e  Weight Squeezing": {"method": "weight_squeezing"},
    "f  Weight Distillation": {"method": "weight_distillation"},
    "g  WID": {"method": "weight_inheritance"},
    "i  pretrained student, Gated Weight Squeezing": {"method": "weight_squeezing", "gated": True},
}


def arm(*stages: dict[str, Any], pretrained: Path, init: str = "random", is_pretrained: bool = False) -> dict[str, Any]:
    """Return the part of a recipe that makes an arm."""
    start = {"student": {**SHAPE, "init": init}, "vocab": {"path": str(pretrained)}}
    if is_pretrained:
        start = {"student": {"pretrained": str(pretrained)}}
    return {**start, "quantize": {"scheme": "int8"}, "stage": list(stages)}


def inherited(
    method: str, epochs: float, pretrained: Path, *, share: float = SHARE, rate: float = 0.0, **options: Any
) -> dict[str, Any]:
    """Return an arm that starts as an image of the teacher: its maps are trained first, then the student."""
    is_gated = bool(options.get("gated"))
    own = {"student_rate": RATE} if is_gated else {}
    first = stage(method, share * epochs, rate or RATES[method], **{**MAPS[method], **own, **options})
    after = [stage("distill", (1 - share) * epochs, RATE if is_gated else SLICED_RATE)]
    return arm(first, *after, pretrained=pretrained, init="teacher", is_pretrained=is_gated)


def arms(epochs: float, pretrained: Path) -> dict[str, dict[str, Any]]:
    """Return every arm of the table by its name."""
    return {
        "a  from scratch, labels": arm(stage("finetune", epochs, RATE), pretrained=pretrained),
        "b  logits distillation": arm(stage("distill", epochs, RATE, hidden=0.0), pretrained=pretrained),
        "c  distillation: logits and states": arm(stage("distill", epochs, RATE), pretrained=pretrained),
        "d  layers picked and sliced": arm(
            stage("distill", epochs, SLICED_RATE), pretrained=pretrained, init="teacher"
        ),
        "h  pretrained student": arm(stage("distill", epochs, RATE), pretrained=pretrained, is_pretrained=True),
        **{name: inherited(epochs=epochs, pretrained=pretrained, **each) for name, each in INHERITED.items()},
    }


def halves(epochs: float, pretrained: Path) -> Arms:
    """Return the arms that inherit at half the steps: they are only timed."""
    return {
        f"{name}, half the steps": inherited(epochs=epochs / 2, pretrained=pretrained, **each)
        for name, each in INHERITED.items()
    }


def in_equal_time(epochs: float, pretrained: Path, results: Results) -> Arms:
    """Return the arms that inherit, cut to the time that distillation of the sliced student took.

    What an arm spends before its first step (activations, singular vectors, loading) is not cut with its steps: a line
    through its seconds at all and at half the steps says what is left for steps.

    Args:
        epochs: of the arms at equal steps.
        pretrained: the pretrained student.
        results: of those arms and of the same at half the steps, one seed at least.
    """
    seconds = {name: statistics.median(each["train_seconds"] for each in found) for name, found in results.items()}
    allowed = next(value for name, value in seconds.items() if name.startswith("d "))
    found = {}
    for name, each in INHERITED.items():
        if name in seconds:
            whole, half = seconds[name], seconds[f"{name}, half the steps"]
            share = (allowed - whole) / (2 * max(whole - half, 1e-9)) + 1
            share = min(1.0, max(LEAST, round(share, 2)))
            found[f"{name}, equal time"] = inherited(epochs=share * epochs, pretrained=pretrained, **each)
    return found


def tuning(epochs: float, pretrained: Path) -> dict[str, dict[str, Any]]:
    """Return the settings that are compared on held-out training rows."""
    found = {}
    for rate in (1e-3, 2e-3):
        found[f"logits, rate {rate:g}"] = arm(stage("distill", epochs, rate, hidden=0.0), pretrained=pretrained)
        found[f"sliced, rate {rate:g}"] = arm(stage("distill", epochs, rate), pretrained=pretrained, init="teacher")
        found[f"pretrained, rate {rate:g}"] = arm(
            stage("distill", epochs, rate), pretrained=pretrained, is_pretrained=True
        )
    halves = [stage("distill", share * epochs, SLICED_RATE) for share in (SHARE, 1 - SHARE)]
    found["sliced, in two stages"] = arm(*halves, pretrained=pretrained, init="teacher")
    for share, rate in ((0.25, 1e-3), (0.5, 1e-3), (0.25, 2e-3)):
        for method in ("weight_squeezing", "weight_distillation"):
            name = f"{method}, share {share:g}, rate {rate:g}"
            found[name] = inherited(method, epochs, pretrained, share=share, rate=rate)
    for option in ({"tables": "teacher"}, {"start": "principal", "tables": "teacher"}, {"student_rate": 1e-3}):
        words = ", ".join(f"{key} {value}" for key, value in option.items())
        found[f"weight_squeezing, {words}"] = inherited("weight_squeezing", epochs, pretrained, **option)
    for gate in (4.0, 0.0):
        name = f"weight_squeezing, gate {gate:g}"
        found[name] = inherited("weight_squeezing", epochs, pretrained, gated=True, gate=gate)
    for rate in (1e-4, 3e-4, 1e-3):
        found[f"weight_inheritance, rate {rate:g}"] = inherited("weight_inheritance", epochs, pretrained, rate=rate)
    return found


def pretrained_student(data: Path, work: Path) -> Path:
    """Return a student of this shape that imitated MiniLM's embeddings on 10,000 lines of encyclopaedia text."""
    from compressor.recipe.recipe import from_dict
    from compressor.run.compress import compress

    recipe = {
        "teacher": {"path": str(teacher_folder()), "max_length": 64},
        "data": {
            "train": str(data / "wikipedia-en" / "train.txt.gz"),
            "eval": str(data / "STS-B" / "dev.tsv"),
            "max_rows": 10_000,
        },
        "vocab": {"size": 5000},
        "student": SHAPE,
        "quantize": {"scheme": "int8"},
        "measure": {"baselines": False, "runs": 50},
        "stage": [{"method": "distill", "epochs": 2.0, "batch_size": 32, "learning_rate": RATE}],
    }
    model = work / "pretrained" / "steps" / "train-1-distill" / "model"
    if not model.is_dir():  # once: every arm of every later run starts from the same one
        compress(from_dict(recipe), work / "pretrained", echo=click.echo)
    return model


@click.command()
@options
@click.option("--curve", is_flag=True, help="Score some arms all along, one seed.")
@click.option("--only", multiple=True, help="Beginnings of the arms' names to run; all when left out.")
def main(
    data: Path,
    sst2_teacher: Path,
    work: Path,
    tune: bool,
    curve: bool,
    only: tuple[str, ...],
    set_names: tuple[str, ...],
    seeds: int,
    processes: int,
) -> None:
    """Run the arms and write the table."""
    started = time.monotonic()
    pretrained = pretrained_student(data, work)
    names = set_names or (TUNING_SETS if tune else CURVE_SETS if curve else tuple(SETS))
    prepared = sets(data, sst2_teacher, work, {name: SETS[name] for name in names}, tune)
    facts = [prepare(each, arm(stage("distill", 1.0, RATE), pretrained=pretrained)) for each in prepared]
    n_seeds = 1 if tune or curve else seeds
    plans = {each.name: _plan(SETS[each.name], pretrained, tune, curve, only) for each in prepared}
    results = run_arms(prepared, plans, n_seeds, processes)
    if not tune and not curve:
        timed = {name: in_batches(halves(SETS[name].epochs, pretrained), SETS[name].batch_size) for name in plans}
        for name, known in run_arms(prepared, timed, 1, processes).items():
            found = in_equal_time(SETS[name].epochs, pretrained, results[name] | known)
            both = plans[name] | in_batches(found, SETS[name].batch_size)
            plans[name] = dict(sorted(both.items()))  # an arm at equal time below its own
        results = run_arms(prepared, plans, n_seeds, processes)
    kind, option = ("tuning", " --tune") if tune else ("curve", " --curve") if curve else ("", "")
    facts = [{**known, "setting": SETS[each.name]._asdict()} for each, known in zip(prepared, facts, strict=True)]
    write_comparison(
        f"inheritance{f'_{kind}' if kind else ''}",
        started,
        prepared,
        facts,
        results,
        {
            "command": f"python -m benchmarks.inheritance --data DIR --sst2-teacher MODEL --work DIR{option}"
            + "".join(f" --only {each}" for each in only),
            "evaluated_on": "a tenth of the training rows, held out" if tune else "dev",
            "seeds": n_seeds,
            "shape": SHAPE,
            "share": SHARE,
            "processes": processes,
        },
        has_logs=curve,
    )


def _plan(
    setting: Setting, pretrained: Path, is_tuning: bool, is_curve: bool, only: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return the arms of one set with its batch size, and for a curve with scores ten times in all."""
    if is_tuning:
        found = tuning(setting.epochs, pretrained)
    else:
        found = arms(setting.epochs, pretrained)
        if setting.is_encoder:
            found = {name: each for name, each in found.items() if name[0] != "a"}
        if is_curve:
            found = {name: each for name, each in found.items() if name[0] in "bcdefgi"}
    if is_curve:
        for each in found.values():
            for one in each["stage"]:
                one["evaluate_every"] = max(1, round(setting.rows / setting.batch_size * setting.epochs / 12))
    chosen = {name: each for name, each in found.items() if not only or name.startswith(only)}
    return in_batches(chosen, setting.batch_size)


if __name__ == "__main__":
    main()

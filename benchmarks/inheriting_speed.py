"""What making weights costs: time and memory of an optimizer step beside plain distillation of the same student.

    python -m benchmarks.inheriting_speed --data FILE --teacher MODEL --work DIR

Batches of 32 rows of 32 tokens (sentences of ``FILE`` joined to that length), the student and the trainer of
``benchmarks.inheritance``: 6 layers x 96, 5,000 tokens, beside a teacher of 6 x 384. Every method has a process of its
own and they take turns, some rounds long; a step's time is the median over the steps of a round after a warm-up, and
the ratio that of the medians over the rounds. Memory is the peak of the whole process. Writes
docs/results/inheriting_speed.json. Needs the extras train and cpu.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

import json
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.inheritance import MAPS, SHAPE
from compressor.files import write_json
from exporters.measuring.machine import machine, versions

RESULT_PATH = Path("docs/results/inheriting_speed.json")
BATCH, LENGTH = 32, 32
WARM_UP = 6
METHODS: dict[str, dict[str, Any]] = {
    "distill": {"method": "distill"},
    **{name: {"method": name, "options": options} for name, options in MAPS.items()},
    "gated": {"method": "weight_squeezing", "options": {**MAPS["weight_squeezing"], "gated": True}},
    "weight_squeezing, teacher's coordinates": {"method": "weight_squeezing", "options": {"basis": "teacher"}},
    "weight_distillation, teacher's coordinates": {"method": "weight_distillation", "options": {"basis": "teacher"}},
}


def write_rows(source: Path, path: Path, n_rows: int) -> None:
    """Write rows of about 32 tokens: two or three sentences each."""
    from compressor.data.table import read_table

    table = read_table(str(source), needs_label=True)
    assert table.labels is not None
    found = []
    for start in range(0, len(table) - 3, 3):
        for n_joined in (2, 3):
            text = " ".join(each.strip() for each in table.texts[start : start + n_joined])
            if 24 <= len(text.split()) <= 34:
                found.append(json.dumps({"text": text, "label": table.labels[start]}))
                break
    path.write_text("\n".join(found[:n_rows]) + "\n", encoding="utf-8")


def measure(stage: dict[str, Any], rows: Path, teacher: Path, work: Path, n_steps: int, queue: Any) -> None:
    """Train one stage for some steps and put the median seconds of a step and the peak bytes into ``queue``."""
    from compressor.recipe.recipe import from_dict
    from compressor.run import student_steps
    from compressor.run.feeding.batches import stage_batches
    from compressor.run.journal import Journal
    from compressor.run.planning.plan import plan
    from compressor.run.progress import quiet_libraries
    from compressor.student.student import load_student
    from compressor.training.trainer import Optimisation, train_stage

    quiet_libraries()
    recipe = {
        "teacher": {"path": str(teacher), "max_length": LENGTH},
        "data": {"train": str(rows), "eval": str(rows)},
        "vocab": {"size": 5000},
        "student": SHAPE,
        "quantize": {"scheme": "int8"},
        "stage": [{**stage, "batch_size": BATCH}],
    }
    planned = plan(from_dict(recipe))
    journal = Journal(work / "steps", lambda _line: None)
    journal.step("vocab", {}, (), lambda part: student_steps.run_vocab(planned, part))
    journal.step("teacher", {}, (), lambda part: student_steps.run_teacher(planned, part), resumes=True)
    journal.step("student", {}, (), lambda part: student_steps.run_student(planned, journal, part))
    student = load_student(planned.info, journal.folder("student") / "model")
    objective = student_steps.build_objective(planned, journal, student, 1)
    encoded, collate = stage_batches(planned, journal, student_steps.student_tokenizer(journal), objective, 1, work)
    epochs = n_steps * BATCH / len(encoded.lengths)
    moments: list[float] = []
    target = work / f"work-{os.getpid()}"
    target.mkdir()
    train_stage(
        objective, encoded, collate, Optimisation(epochs, 1e-3, BATCH, 0.06, 0.01, 0), target, None,
        lambda _done, _all: moments.append(time.perf_counter()),
    )  # fmt: skip
    took = [after - before for before, after in zip(moments[WARM_UP:], moments[WARM_UP + 1 :], strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    n_trained = sum(each.numel() for each in objective.parameters() if each.requires_grad)
    queue.put(
        {"seconds": statistics.median(took), "peak": peak, "trained": n_trained, "tokens": int(encoded.lengths.mean())}
    )


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Labelled sentences.")
@click.option("--teacher", required=True, type=click.Path(path_type=Path, exists=True), help="Classifier for them.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where rows and steps go.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--steps", default=40, show_default=True)
def main(data: Path, teacher: Path, work: Path, rounds: int, steps: int) -> None:
    """Measure in turn and write the ratios."""
    work.mkdir(parents=True, exist_ok=True)
    write_rows(data, work / "rows.jsonl", BATCH * 20)
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    for _ in range(rounds):
        for name, stage in METHODS.items():
            queue = context.Queue()
            process = context.Process(target=measure, args=(stage, work / "rows.jsonl", teacher, work, steps, queue))
            process.start()
            found[name].append(queue.get())
            process.join()
            click.echo(f"{name:45} {1000 * found[name][-1]['seconds']:7.1f} ms {found[name][-1]['peak'] / 1e6:7.0f} MB")
    plain = _medians(found["distill"])
    ratios = {
        name: {key: round(value / plain[key], 3) for key, value in _medians(each).items() if key in ("time", "memory")}
        for name, each in found.items()
    }
    for name, ratio in ratios.items():
        click.echo(f"{name:45} time x {ratio['time']:.2f}   memory x {ratio['memory']:.2f}")
    write_json(
        RESULT_PATH,
        {
            "version": 1,
            "command": "python -m benchmarks.inheriting_speed --data FILE --teacher MODEL --work DIR",
            "data": data.name,
            "batch": BATCH,
            "tokens": found["distill"][0]["tokens"],
            "rounds": rounds,
            "steps": steps,
            "shape": SHAPE,
            "measured": {name: {**_medians(each), "rounds": each} for name, each in found.items()},
            "ratios": ratios,
            "versions": versions(),
            "machine": machine(),
        },
    )


def _medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "time": statistics.median(each["seconds"] for each in rounds),
        "memory": statistics.median(each["peak"] for each in rounds),
        "trained": rounds[0]["trained"],
    }


if __name__ == "__main__":
    main()

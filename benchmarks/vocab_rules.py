"""Which tokens to keep: the rules of ``vocab.choosing`` compared by the students trained on them, at equal bytes.

    python -m benchmarks.vocab_rules --data DIR --sst2-teacher MODEL --work DIR

``DIR`` as for ``benchmarks.dual_training``, whose rows, shape and CLINC150 teacher are used. Each rule gets as many
tokens as give the same bytes of embeddings (int8) and tokenizer.json as the rule ``cuts`` takes for 3,000 tokens, about
a thousand beyond the characters that must stay readable. The student starts as parts of the teacher and is distilled.
Scores are on the dev sets, nothing was chosen by them. Writes docs/results/vocab_rules.json.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

from pathlib import Path
from typing import Any

import click

from benchmarks.dual_training import BATCH_SIZES, EPOCHS, RATE, SETS, SHAPE, arm
from benchmarks.support.runner import Prepared, prepare, run_all, stage, summary
from benchmarks.support.sets import sets
from compressor.files import write_json
from exporters.measuring.machine import machine, versions

RESULT_PATH = Path("docs/results/vocab_rules.json")
RULES = ("cuts", "frequency", "likelihood", "embedding")
REFERENCE_SIZE = 3000
SEEDS = 3


def vocabulary_bytes(prepared: Prepared, size: int, rule: str) -> int:
    """Return the bytes of a vocabulary's embeddings at the student's width and of its tokenizer.json."""
    from compressor.data.table import read_table
    from compressor.models.checkpoint import read_embeddings
    from compressor.models.teacher import load_tokenizer
    from vocab.save import compact_json
    from vocab.train import train_vocabulary

    table = read_table(str(prepared.train), needs_label=True)
    teacher = load_tokenizer(prepared.teacher)._tokenizer
    embeddings = read_embeddings(prepared.teacher) if rule == "embedding" else None
    made = train_vocabulary(table.texts, size, "wordpiece", teacher, rule=rule, embeddings=embeddings)  # type: ignore[arg-type]
    return size * SHAPE["hidden"] + len(compact_json(made).encode("utf-8"))


def equal_size(prepared: Prepared, rule: str, n_bytes: int) -> tuple[int, int]:
    """Return the size at which a rule's vocabulary takes about ``n_bytes``, and what it takes: two corrections do."""
    size = REFERENCE_SIZE
    for _ in range(2):
        found = vocabulary_bytes(prepared, size, rule)
        size += round((n_bytes - found) * size / found)
    return size, vocabulary_bytes(prepared, size, rule)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--sst2-teacher", required=True, type=click.Path(path_type=Path, exists=True), help="SST-2 classifier.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the runs go.")
@click.option("--seeds", default=SEEDS, show_default=True)
@click.option("--processes", default=os.cpu_count() or 1, show_default="one per core")
def main(data: Path, sst2_teacher: Path, work: Path, seeds: int, processes: int) -> None:
    """Train the students and write the table."""
    jobs, facts = [], {}
    for each in sets(data, sst2_teacher, work, SETS, is_tuning=False):
        prepare(each, arm(stage("distill", 1.0, RATE)))
        n_bytes = vocabulary_bytes(each, REFERENCE_SIZE, "cuts")
        for rule in RULES:
            size, found = equal_size(each, rule, n_bytes)
            training = {**stage("distill", EPOCHS[each.name], RATE), "batch_size": BATCH_SIZES[each.name]}
            recipe = arm(training, init="teacher", vocab={"size": size, "rule": rule})
            own = each._replace(folder=work / f"{each.name}-rule-{rule}")
            known = prepare(own, recipe)
            facts[each.name, rule] = {"size": size, "vocabulary_bytes": found, **known, **_cut(own)}
            jobs += [(own, rule, recipe, seed) for seed in range(seeds)]
    results = run_all(jobs, processes)
    rows: list[dict[str, Any]] = []
    for (name, rule), known in facts.items():
        folder = work / f"{name}-rule-{rule}"
        mine = [result for job, result in zip(jobs, results, strict=True) if job[0].folder == folder]
        rows.append({"set": name, **known, **summary(rule, mine, known["metric"])})
        click.echo(f"{name:9} {rule:12} {rows[-1]['size']} tokens {rows[-1]['mean']:.4f} {rows[-1]['spread'] or 0:.4f}")
    write_json(
        RESULT_PATH,
        {
            "version": 1,
            "command": "python -m benchmarks.vocab_rules --data DIR --sst2-teacher MODEL --work DIR",
            "evaluated_on": "dev",
            "seeds": seeds,
            "rows": rows,
            "versions": versions(),
            "machine": machine(),
        },
    )


def _cut(prepared: Prepared) -> dict[str, float]:
    import json

    found = json.loads(
        (prepared.folder / "prepared" / "steps" / "vocab" / "statistics.json").read_text(encoding="utf-8")
    )
    return {key: found[key] for key in ("student_tokens_per_text", "teacher_tokens_per_text", "identical_words")}


if __name__ == "__main__":
    main()

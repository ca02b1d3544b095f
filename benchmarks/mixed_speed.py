"""How fast mixed tokenisation is, beside plain encoding: ``python -m benchmarks.mixed_speed --data FILE``.

Lines per second of ``encode_batch`` alone by both tokenizers, of ``MixedTokenizer.encode`` (both, with words and units;
done once), and of what a training then does per batch: ``draw`` and ``mix``, and the masking of both streams. One
thread, processor time (what else runs on the machine counts little); the median of some repetitions over all lines,
warmed up by one that is not counted. Writes ``docs/results/mixed_speed.json``. Needs the extras train, cpu and, without
``--teacher``, demo.
"""

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # before tokenizers: one thread, so that shares can be compared

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from tokenizers import Tokenizer

from compressor.data.table import read_table
from compressor.files import write_json
from exporters.measuring.machine import machine, versions
from vocab.mixing import masking
from vocab.mixing.cut import CutRows, MixedRows, select
from vocab.mixing.mixed import MixedTokenizer, Mixture, chosen_units, draw, flat_units, mix
from vocab.mixing.units import Integers
from vocab.train import train_vocabulary

RESULT_PATH = Path("docs/results/mixed_speed.json")
BATCH = 128
MAX_LENGTH = 128
PROBABILITY, SHARE = 0.5, 0.15
SEED = 0


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Texts, in any form that compress reads.")
@click.option("--teacher", type=click.Path(path_type=Path), default=None, help="Folder; default: all-MiniLM-L6-v2.")
@click.option("--vocab-size", default=5000, show_default=True, help="Of the student, trained on the same texts.")
@click.option("--repetitions", default=5, show_default=True)
def main(data: Path, teacher: Path | None, vocab_size: int, repetitions: int) -> None:
    """Measure, print the table and write it."""
    texts = read_table(str(data), needs_label=False).texts
    ours = Tokenizer.from_file(str((teacher or _default_teacher()) / "tokenizer.json"))
    theirs = train_vocabulary(texts, vocab_size, "wordpiece", ours)
    both = MixedTokenizer(ours, theirs, MAX_LENGTH)
    for tokenizer in (ours, theirs):
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_LENGTH)
    rows = both.encode(texts)
    pools = masking.replacement_pool(theirs), masking.replacement_pool(ours, both.n_student)
    tasks: dict[str, Callable[[], None]] = {
        "encode_batch, both tokenizers": partial(encode_plainly, (ours, theirs), texts),
        "encode": lambda: void(both.encode(texts)),
        "draw and mix": partial(mix_batches, rows, both),
        "draw, mix and mask both streams": partial(mask_batches, rows, both, pools),
    }
    measured = {name: measure(task, len(texts), repetitions) for name, task in tasks.items()}
    for name, found in measured.items():
        click.echo(f"{name:34}{found['lines_per_second']:12,} lines/s{found['ms_per_batch']:10.3f} ms per {BATCH}")
    write_json(RESULT_PATH, {
        "version": 1,
        "command": "python -m benchmarks.mixed_speed --data FILE --teacher DIR",
        "data": data.name,
        "teacher": teacher.name if teacher else "all-MiniLM-L6-v2",
        "lines": len(texts),
        "settings": {
            "batch": BATCH, "max_length": MAX_LENGTH, "probability": PROBABILITY, "masked_share": SHARE, "seed": SEED,
            "repetitions": repetitions, "threads": 1, "clock": "processor time", "vocab_size": vocab_size,
        },
        "measured": measured,
        "tokens_per_line": lengths(rows, both),
        "bytes_per_line": round(n_bytes(rows) / len(texts), 1),
        "machine": machine(),
        "versions": versions(),
    })  # fmt: skip


def measure(task: Callable[[], None], n_lines: int, repetitions: int) -> dict[str, Any]:
    """Return the median, fastest and slowest of the repetitions as lines per second, and milliseconds per batch."""
    task()
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        task()
        seconds.append(time.process_time() - started)
    median = statistics.median(seconds)
    return {
        "lines_per_second": round(n_lines / median),
        "fastest": round(n_lines / min(seconds)),
        "slowest": round(n_lines / max(seconds)),
        "ms_per_batch": round(1000 * median * BATCH / n_lines, 3),
    }


def encode_plainly(tokenizers: tuple[Tokenizer, ...], texts: list[str]) -> None:
    """Encode as a training on one vocabulary would: ids and types of every line, in batches of a thousand."""
    for tokenizer in tokenizers:
        for first in range(0, len(texts), 1000):
            void([(each.ids, each.type_ids) for each in tokenizer.encode_batch(texts[first : first + 1000])])


def mix_batches(rows: MixedRows, both: MixedTokenizer) -> None:
    """Draw and mix all rows in shuffled batches."""
    rng = np.random.default_rng(SEED)
    for indices in batches(len(rows.n_units), rng):
        void(mix(rows, indices, draw(rows, indices, PROBABILITY, rng), both.n_student, MAX_LENGTH))


def mask_batches(rows: MixedRows, both: MixedTokenizer, pools: tuple[Integers, Integers]) -> None:
    """Do all that a batch of masked language modelling needs: the mixture, the student's rows, both masked."""
    rng = np.random.default_rng(SEED)
    for indices in batches(len(rows.n_units), rng):
        mixture = mix(rows, indices, draw(rows, indices, PROBABILITY, rng), both.n_student, MAX_LENGTH)
        cut = select(rows.student, indices)
        unit_starts = chosen_units(rows, indices)[1]
        actions = masking.choose(rows, indices, SHARE, rng)
        # Which id masks does not matter to the time.
        void(masking.mask_mixture(mixture, unit_starts, actions, 0, pools, rng))
        void(masking.apply(cut.ids, flat_units(cut, unit_starts), actions, 0, pools[0], rng))


def batches(n_rows: int, rng: np.random.Generator) -> list[Integers]:
    """Return shuffled row numbers in batches."""
    order = rng.permutation(n_rows)
    return [order[first : first + BATCH] for first in range(0, n_rows, BATCH)]


def lengths(rows: MixedRows, both: MixedTokenizer) -> dict[str, float]:
    """Return the mean number of tokens of a line, special ones included."""
    everything = np.arange(len(rows.n_units))
    drawn = draw(rows, everything, PROBABILITY, np.random.default_rng(SEED))
    mixture = mix(rows, everything, drawn, both.n_student, MAX_LENGTH)
    cuts: dict[str, CutRows | Mixture] = {"teacher": rows.teacher, "student": rows.student, "mixture": mixture}
    return {name: round(len(cut.ids) / len(everything), 3) for name, cut in cuts.items()}


def n_bytes(rows: MixedRows) -> int:
    """Return the bytes that the rows hold in memory."""
    return sum(column.nbytes for column in (*rows.teacher, *rows.student, *rows[2:]))


def void(_: object) -> None:
    """Take a result that is only timed."""


def _default_teacher() -> Path:
    from benchmarks.docstring_search import teacher_folder

    return teacher_folder()


if __name__ == "__main__":
    main()

"""How much a step of ``distill`` takes beside a bare forward, backward and update of the same student, in one process.

    python -m benchmarks.narrow_step

Both read the same batches of random tokens, of lengths like those of short reviews, with the outputs and word states of
a teacher of width 384 in memory; weights are random, for time does not depend on them. The bare step has no batches to
make, no teacher, no trainer: model(...), loss.backward(), clipping, AdamW.step(), under the same autocast. The two take
turns; processor time, one thread, median of the rounds. Writes docs/results/narrow_step.json.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from compressor.batches.encoded import Collator, EncodedRows, LengthSampler
from compressor.batches.outputs import has_fast_bfloat16
from compressor.batches.teacher_cache import ShardOutput, TeacherCache
from compressor.files import write_json
from compressor.methods import distill
from compressor.scoring.registry import load_kind
from compressor.training.contract import Context, model_inputs
from compressor.training.trainer import Optimisation, train_stage
from exporters.measuring.machine import machine, versions

SHAPES = {"5 x 160": (5, 160, 384, 2500), "6 x 256": (6, 256, 1024, 6000), "6 x 384": (6, 384, 1408, 6000)}
HEAD, TEACHER, LAYERS = 32, 384, (3, 6)
BATCH, MEAN_WORDS, PIECES = 128, 9, 1.4
RESULT_PATH = Path("docs/results/narrow_step.json")


def student_of(layers: int, hidden: int, ffn: int, tokens: int) -> Any:
    """Return a student with random weights, as a stage trains it: attention by plain products, no dropout."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokens, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // HEAD,
        intermediate_size=ffn, max_position_embeddings=80, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    model.set_attn_implementation("eager")
    return model.train()


def rows_of(n_rows: int, tokens: int) -> tuple[EncodedRows, TeacherCache]:
    """Return rows of random words, each of one or more tokens, and what a teacher says of them."""
    rng = np.random.default_rng(0)
    ids, words, states, units, lengths, counts = [], [], [], [], [], []
    for _ in range(n_rows):
        n_words = 1 + min(int(rng.exponential(MEAN_WORDS)), 40)
        pieces = rng.geometric(1 / PIECES, size=n_words).clip(max=3)
        own = np.concatenate([[0], np.repeat(np.arange(1, n_words + 1), pieces), [-1]])[:78]
        ids.append(rng.integers(5, tokens, size=len(own)))
        words.append(own)
        lengths.append(len(own))
        counts.append(own.max() + 1)
        units.append(np.arange(own.max() + 1))
        states.append(rng.normal(size=(own.max() + 1, len(LAYERS), TEACHER)).astype(np.float16))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = np.concatenate(ids).astype(np.int32)
    rows = EncodedRows(flat, np.zeros(len(flat), np.int8), np.concatenate(words).astype(np.int32), starts)
    outputs = rng.normal(size=(n_rows, 2)).astype(np.float32)
    unit_starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    shard = ShardOutput(outputs, np.concatenate(states), np.concatenate(units).astype(np.int32), unit_starts)
    return rows, TeacherCache([shard], LAYERS)


def bare(model: Any, batches: list[dict[str, torch.Tensor]]) -> float:
    """Return the processor seconds of a step that only forwards, backwards and updates."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    started = 0.0
    for number, batch in enumerate(batches):
        if number == N_WARM:
            started = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_fast_bfloat16()):
            logits = model(**model_inputs(batch)).logits
        loss = logits.float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return (time.process_time() - started) / (len(batches) - N_WARM)


N_WARM = 3


def staged(model: Any, rows: EncodedRows, collate: Collator, n_steps: int) -> float:
    """Return the processor seconds of a step of the product's own stage."""
    spec = load_kind("classification").of(("no", "yes"), pair=False)
    context = Context(model, spec, None, TEACHER, LAYERS, max(LAYERS))
    objective = distill.Objective(context, distill.Options())
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        optimisation = Optimisation(n_steps * BATCH / rows.n_rows, 1e-5, BATCH, 0.06, 0.01, 0)
        train_stage(
            objective, rows, collate, optimisation, Path(work), None, lambda *_: marks.append(time.process_time())
        )
    return (marks[-1] - marks[N_WARM - 1]) / (len(marks) - N_WARM)


def measure(shape: tuple[int, int, int, int], n_steps: int, rounds: int) -> dict[str, float]:
    """Return milliseconds and their ratio, in turns."""
    rows, cache = rows_of(n_steps * BATCH, shape[3])
    collate = Collator(rows, 0, has_segments=True, teacher=cache)
    batches = [collate(chosen) for chosen in LengthSampler(rows.lengths, BATCH, 0).batches()]
    found: dict[str, list[float]] = {"bare": [], "distill": []}
    for _ in range(rounds):
        found["bare"].append(bare(student_of(*shape), batches))
        found["distill"].append(staged(student_of(*shape), rows, collate, n_steps))
    ratios = [ours / theirs for ours, theirs in zip(found["distill"], found["bare"], strict=True)]
    medians = {f"{name}_ms": 1000 * statistics.median(values) for name, values in found.items()}
    return {**medians, "ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}


@click.command()
@click.option("--steps", default=24, show_default=True, help="Of each stage and round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--result", type=click.Path(path_type=Path), default=RESULT_PATH, show_default=True)
def main(steps: int, rounds: int, result: Path) -> None:
    """Measure every shape and write the table."""
    torch.set_num_threads(1)
    table = {}
    for name, shape in SHAPES.items():
        table[name] = measure(shape, steps, rounds)
        click.echo(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in table[name].items()))
    write_json(
        result,
        {
            "version": 1,
            "command": "python -m benchmarks.narrow_step",
            "batch": BATCH,
            "rounds": rounds,
            "shapes": table,
            "versions": versions(),
            "machine": machine(),
        },
    )


if __name__ == "__main__":
    main()

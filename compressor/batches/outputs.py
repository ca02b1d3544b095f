"""Run a torch model over encoded rows without gradients: outputs for scoring, and the teacher's outputs for the cache.

Batches are built from rows of similar length and bounded by tokens, so padding is rare and memory is known.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from compressor.batches.encoded import Collator, EncodedRows, Side, encode_rows
from compressor.batches.pooling import pool, word_means
from compressor.batches.teacher_cache import ShardOutput
from compressor.data.table import Table
from compressor.models.families import plain_type
from compressor.models.teacher import TeacherInfo
from compressor.refused import Refused
from exporters.pooling import Pooling
from exporters.small.shape import is_small

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

BATCH_TOKENS = 8192
BATCH_ROWS = 256


def has_fast_bfloat16() -> bool:
    """Return whether this machine multiplies bfloat16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def device() -> torch.device:
    """Return the device that models run on here."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def takes_segments(model_type: str) -> bool:
    """Return whether models of this type read ``token_type_ids`` (RoBERTa has a table of one row and ignores them)."""
    return plain_type(model_type) in ("bert", "electra", "albert") or is_small(model_type)


def predict(
    model: "PreTrainedModel", rows: EncodedRows, pad_id: int, pooling: Pooling | None
) -> npt.NDArray[np.float32]:
    """Return logits (rows, classes), or embeddings (rows, width) when ``pooling`` is given, in float32."""
    model = model.eval().to(device())
    collate = Collator(rows, pad_id, takes_segments(model.config.model_type))
    outputs: list[npt.NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(rows.lengths)
    with torch.inference_mode():
        for indices in batches_by_length(rows.lengths):
            batch = {name: tensor.to(device()) for name, tensor in collate(indices.tolist()).items()}
            output = model(**batch)
            values = output.logits if pooling is None else _pooled(output, batch, pooling)
            for index, value in zip(indices, values.float().cpu().numpy(), strict=True):
                outputs[index] = value
    return np.stack(outputs)


def _pooled(output: Any, batch: dict[str, torch.Tensor], pooling: Pooling) -> torch.Tensor:  # Any: a ModelOutput
    return pool(output.last_hidden_state, batch["attention_mask"], pooling)


def predictor(
    model: "PreTrainedModel",
    tokenizer: "Tokenizer",
    max_length: int,
    pooling: Pooling | None,
    side: Side = "right",
) -> Callable[[list[str], list[str] | None], npt.NDArray[np.float32]]:
    """Return a function from texts (and pairs) to outputs, as ``compressor.scoring.evaluate`` takes it."""

    def run(texts: list[str], pairs: list[str] | None) -> npt.NDArray[np.float32]:
        table = Table(texts=texts, pairs=pairs, labels=None, columns={}, sha256="", source="")
        pad_id = model.config.pad_token_id or 0
        return predict(model, encode_rows(tokenizer, table, max_length, side), pad_id, pooling)

    return run


def teacher_outputs(
    model: "PreTrainedModel",
    info: TeacherInfo,
    rows: EncodedRows,
    layers: tuple[int, ...],
    wanted: range,
    first_layers: tuple[int, ...] = (),
) -> ShardOutput:
    """Return what the teacher says about ``wanted`` rows, from one pass over them.

    Args:
        model: the teacher.
        info: of it.
        rows: in its own tokens.
        layers: hidden states of which the mean over every word is kept; 0 is the embedding output.
        wanted: row numbers.
        first_layers: hidden states of which the first token's is kept.
    """
    collate = Collator(rows, model.config.pad_token_id or 0, takes_segments(model.config.model_type))
    n_rows = len(wanted)
    outputs: list[npt.NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * n_rows
    states: list[npt.NDArray[np.float16]] = [np.zeros((0, 0, 0), dtype=np.float16)] * n_rows
    units: list[npt.NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)] * n_rows
    first = np.zeros((n_rows, len(first_layers), info.shape.hidden), dtype=np.float16)
    autocast = torch.autocast(device().type, dtype=torch.bfloat16, enabled=has_fast_bfloat16())
    with torch.inference_mode(), autocast:
        for part in batches_by_length(rows.lengths[wanted.start : wanted.stop]):
            indices = part + wanted.start
            batch = {name: tensor.to(device()) for name, tensor in collate(indices.tolist()).items()}
            output = model(**batch, output_hidden_states=bool(layers or first_layers))
            values = output.logits if info.pooling is None else _pooled(output, batch, info.pooling)
            found = values.float().cpu().numpy()
            check_outputs(found)
            for index, value in zip(part, found, strict=True):
                outputs[index] = value
            for place, layer in enumerate(first_layers):
                first[part, place] = _halves(output.hidden_states[layer][:, 0].float().cpu().numpy())
            if layers:
                _keep_states(
                    part, indices, rows, torch.stack([output.hidden_states[i] for i in layers], 2), states, units
                )
    lengths = [len(unit) for unit in units]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return ShardOutput(
        np.stack(outputs).astype(np.float32),
        np.concatenate(states) if layers else states[0],
        np.concatenate(units) if layers else units[0],
        starts,
        first,
    )


def check_outputs(outputs: npt.NDArray[np.float32]) -> None:
    """Refuse a teacher whose answers cannot be imitated: in training they would be a loss that is NaN."""
    is_wrong = ~np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
    if is_wrong.any():
        raise Refused(
            f"teacher: its outputs on {is_wrong.sum():,} of {len(outputs):,} rows are not finite numbers, though its "
            "weights are: they overflow. Train it again, with a lower learning rate, or use another."
        )


def _halves(states: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return hidden states as the cache keeps them; refuse those that float16 cannot hold."""
    with np.errstate(over="ignore"):
        halves = states.astype(np.float16)
    if not np.isfinite(halves).all():
        largest = float(np.abs(states).max())  # NaN where one is
        raise Refused(
            f"teacher: its hidden states reach {largest:.3g}, expected {np.finfo(np.float16).max:,.0f} at most: they "
            "are kept as float16. Let the student imitate outputs alone (of 'distill': --option hidden=0), or use "
            "another teacher."
        )
    return halves


def _keep_states(
    part: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    rows: EncodedRows,
    hidden: torch.Tensor,  # (batch, tokens, layers, width)
    states: list[npt.NDArray[np.float16]],
    units: list[npt.NDArray[np.int32]],
) -> None:
    words = np.full(hidden.shape[:2], -1, dtype=np.int64)
    for line, index in enumerate(indices):
        of_row = rows.words[rows.starts[index] : rows.starts[index + 1]]
        words[line, : len(of_row)] = of_row
    n_words = int(words.max()) + 1
    flat = hidden.float().flatten(2)  # (batch, tokens, layers * width)
    means, present = word_means(flat, torch.from_numpy(words).to(flat.device), n_words)
    halves = _halves(means.cpu().numpy()).reshape(len(indices), n_words, *hidden.shape[2:])
    for line, index in enumerate(part):
        found = np.flatnonzero(present[line].cpu().numpy())
        states[index], units[index] = halves[line, found], found.astype(np.int32)


def batches_by_length(lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield row numbers, longest rows first: at most ``BATCH_TOKENS`` padded tokens and ``BATCH_ROWS`` rows a time."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        n_rows = max(1, min(BATCH_ROWS, BATCH_TOKENS // max(int(lengths[order[start]]), 1)))
        yield order[start : start + n_rows]
        start += n_rows


def measure_flops() -> float:
    """Return the speed of a matrix product here, in operations per second; takes a tenth of a second."""
    import time

    dtype = torch.bfloat16 if has_fast_bfloat16() else torch.float32
    left, right = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
    left @ right
    started, n_done = time.perf_counter(), 0
    while time.perf_counter() - started < 0.1:
        left @ right
        n_done += 1
    return 2 * 1024 * 384 * 1536 * n_done / (time.perf_counter() - started)

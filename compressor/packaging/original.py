"""Our answers beside those of sentence-transformers, where it is installed and saved the model: a check of our reading.

The model is opened by another library, from the files alone: whatever we overlook around it shows in the numbers. It
opens no pickle, runs no code of the checkpoint and asks no hub. What it cannot open is told, and not compared.
"""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.data.table import Table

logger = logging.getLogger(__name__)
N_ROWS = 16
MAX_DIFFERENCE = 1e-4  # of two runs in float32
STEP = "torch to sentence-transformers"
# What it and transformers raise for files that are not theirs, a text beyond the positions, or code without trust.
UNOPENED = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)


def rows_to_compare(table: Table) -> list[int]:
    """Return the numbers of the longest rows, which are cut, and of others spread over the table."""
    seconds = table.pairs or [""] * len(table)
    lengths = [len(first) + len(second) for first, second in zip(table.texts, seconds, strict=True)]
    longest = sorted(range(len(table)), key=lambda row: -lengths[row])[: N_ROWS // 2]
    spread = range(0, len(table), max(1, len(table) // (N_ROWS // 2)))
    return sorted({*longest, *list(spread)[: N_ROWS // 2]})


def compare_original(
    root: Path,
    ours: npt.NDArray[np.float32],
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    *,
    scores: bool,
    cut: int | None = None,
    step: str = STEP,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare our float answers with those of sentence-transformers.

    Args:
        root: the folder that it opens.
        ours: logits or vectors (rows, values).
        texts: of these rows.
        pairs: their second texts.
        scores: it is a CrossEncoder.
        cut: tokens of an input where somebody asked for fewer than the folder says.
        step: what the comparison is called.

    Returns:
        The comparison as the report shows it and the sentences of a missed limit; nothing where it did not run.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        return [], []
    from exporters.measuring.parity import Limits, check, compare

    try:
        theirs = _answers(root, texts, pairs, scores, cut)
    except UNOPENED as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        logger.warning("sentence-transformers cannot open %s (%s), so its answers are not compared", root, first)
        return [], []
    parity = compare([ours], [theirs])
    return [{"step": step, **parity._asdict()}], check(parity, Limits(step, max_abs=MAX_DIFFERENCE))


def _answers(
    root: Path, texts: Sequence[str], pairs: Sequence[str] | None, scores: bool, cut: int | None
) -> npt.NDArray[np.float32]:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    how: dict[str, Any] = {
        "device": "cpu",
        "local_files_only": True,
        "trust_remote_code": False,
        "model_kwargs": {"dtype": "float32", "use_safetensors": True},
    }
    # One text at a time: padding is nothing that a device has.
    asked: dict[str, Any] = {"batch_size": 1, "show_progress_bar": False, "convert_to_numpy": True}
    if not scores:
        encoder = SentenceTransformer(str(root), **how)
        encoder.max_seq_length = cut or encoder.max_seq_length
        return np.asarray(encoder.encode(list(texts), **asked))
    from torch.nn import Identity

    scorer = CrossEncoder(str(root), **how)
    if cut:
        scorer.tokenizer.model_max_length = cut
    inputs = list(zip(texts, pairs, strict=True)) if pairs else list(texts)
    return np.asarray(scorer.predict(inputs, activation_fn=Identity(), **asked)).reshape(len(texts), -1)

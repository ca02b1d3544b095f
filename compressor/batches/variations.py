"""Variations of the training rows: other texts out of their own words, which the teacher answers like any text.

A small student that sees few rows many times learns them by heart. A student that imitates needs no labels, so the rows
may vary from epoch to epoch: words left out, words exchanged for others of the corpus, a part cut out, two parts joined
(Tang et al., 1903.12136, and TinyBERT, 1909.10351, have variations of their own). What is drawn depends on seed and
number alone, so the teacher answers each once and its outputs are kept like those of the rows.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compressor.batches.encoded import EncodedRows
from compressor.data.table import Table

LONG_WORD = 20  # characters: what has longer ones on average is written without spaces, and varies by character
DROPPED = (0.1, 0.25)  # shares of words
EXCHANGED = 0.2


def vary(table: Table, number: int, seed: int) -> Table:
    """Return a variation of every row, without labels; of a pair one text varies or both.

    Args:
        table: the rows.
        number: of the variation, from 0; each has its own draws.
        seed: of the run.
    """
    rng = np.random.default_rng((seed, number))
    texts, pairs = _vary(table.texts, rng, joins=table.pairs is None), None
    if table.pairs is not None:
        both, pairs = rng.integers(3, size=len(table)), _vary(table.pairs, rng, joins=False)
        texts = [new if which != 1 else old for new, old, which in zip(texts, table.texts, both, strict=True)]
        pairs = [new if which != 2 else old for new, old, which in zip(pairs, table.pairs, both, strict=True)]
    return replace(table, texts=texts, pairs=pairs, labels=None)


def _vary(texts: Sequence[str], rng: np.random.Generator, *, joins: bool) -> list[str]:
    """Return a variation of each text; parts are cut and joined where ``joins`` (a pair would lose what relates it)."""
    cut = [_words(text) for text in texts]
    corpus = [word for words, _ in cut for word in words]
    varied = []
    for own, space in cut:
        which = rng.integers(4 if joins else 2)
        if which == 0:
            kept = rng.random(len(own)) >= rng.choice(DROPPED)
            made = [word for word, keep in zip(own, kept, strict=True) if keep]
        elif which == 1:
            drawn, others = rng.random(len(own)) < EXCHANGED, rng.integers(len(corpus), size=len(own))
            made = [corpus[other] if draw else word for word, draw, other in zip(own, drawn, others, strict=True)]
        elif which == 2:
            made = _part(own, rng)
        else:
            made = [*_part(own, rng), *_part(cut[rng.integers(len(cut))][0], rng)]
        varied.append(space.join(made or own))
    return varied


def _words(text: str) -> tuple[list[str], str]:
    """Return the words and what stands between them: of a script without spaces the characters, and nothing."""
    words = text.split()
    return (words, " ") if words and len(text) <= LONG_WORD * len(words) else (list(text.strip() or text), "")


def _part(words: list[str], rng: np.random.Generator) -> list[str]:
    """Return a part of at least one word, at most all but one where there are several."""
    if len(words) < 2:
        return words
    length = rng.integers(1, len(words))
    start = rng.integers(len(words) - length + 1)
    return words[start : start + length]


def with_variations(rows: EncodedRows, varied: EncodedRows) -> EncodedRows:
    """Return the rows followed by their variations: ``varied`` holds whole rounds of them, one after the other."""
    n_rows = len(rows.lengths)
    assert len(varied.lengths) % n_rows == 0
    starts = np.concatenate([rows.starts, varied.starts[1:] + rows.starts[-1]])
    ids = np.concatenate([rows.ids, varied.ids])
    segments = np.concatenate([rows.segments, varied.segments])
    words = np.concatenate([rows.words, varied.words])
    return EncodedRows(ids, segments, words, starts, len(varied.lengths) // n_rows)

"""Token ids of awkward texts are those of transformers, cut on either side, in training and in the reader."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.batches.encoded import encode_rows
from compressor.data.table import Table
from edge_demo import runtime
from tests.support.tiny import tiny_tokenizer
from vocab.save import save_tokenizer

EMOJI, MARKS, RIGHT_TO_LEFT = "😀👩‍👩‍👧🏽🇩🇪❤️", "é̄̈ẛ̣", "שלום مرحبا\u200f"
CONTROLS, SPACES = "\x00\x01\x07\x1b\ufeff\u200b\u00ad\x7f", " \t\n\r\u00a0\u2003\u3000\u2028\x0b\x85"
ALPHABETS = (
    EMOJI,
    MARKS,
    RIGHT_TO_LEFT,
    CONTROLS,
    SPACES,
    "abcdefg hij",
    "漢字カナ한글",
    "АБВ где",
    "İıſßΣς",
    "0123456789.,;!?#@[]",
)
WORDS = ("the film", "wonderful", "[SEP]", "[MASK]", "don't", "##ing")
N_TEXTS = 10_000


def awkward(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.06:
            part = "".join(rng.choices("abcxyz", k=rng.randint(90, 400)))  # a very long word
        elif kind < 0.12:
            part = rng.choice(WORDS)
        elif kind < 0.2:
            part = "".join(rng.choices(SPACES, k=rng.randint(1, 30)))
        elif kind < 0.25:
            part = chr(rng.choice([rng.randint(1, 0xD7FF), rng.randint(0xE000, 0x10FFFF)])) * rng.randint(1, 5)
        else:
            part = "".join(rng.choices(rng.choice(ALPHABETS), k=rng.randint(1, 10)))
        parts += [part, rng.choice(SPACES)] if rng.random() < 0.5 else [part]
    return "".join(parts)


def reader(tokenizer_json: bytes, max_length: int, is_pair: bool, side: str) -> runtime.Package:
    """The reader without a model: only what makes token ids."""
    manifest = {"pair": is_pair, "max_length": max_length, "tokenizer": "tokenizer.json"}
    if side == "left":
        manifest["truncation"] = "left"
    return runtime.Package(manifest, 0, *runtime._open_tokenizer(tokenizer_json, manifest), None)


def table_of(texts: list[str], pairs: list[str] | None) -> Table:
    return Table(texts=texts, pairs=pairs, labels=None, columns={}, sha256="", source="")


def ids_of(tokenizer: Any, texts: list[str], pairs: list[str] | None, max_length: int, side: Any) -> list[list[int]]:
    rows = encode_rows(tokenizer, table_of(texts, pairs), max_length, side)
    return [rows.ids[start:end].tolist() for start, end in zip(rows.starts, rows.starts[1:], strict=False)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(0)
    return [awkward(rng) for _ in range(N_TEXTS)]


@pytest.mark.slow
@pytest.mark.parametrize("is_pair", [False, True], ids=["one text", "two texts"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_awkward_texts_have_the_ids_of_transformers(tmp_path: Path, texts: list[str], side: str, is_pair: bool) -> None:
    from transformers import AutoTokenizer

    tiny_tokenizer().save_pretrained(tmp_path / "theirs")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "theirs", truncation_side=side)
    save_tokenizer(theirs._tokenizer, tmp_path / "ours", {"truncation_side": side}, 64)
    saved = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert saved.truncation_side == side
    pairs = texts[::-1] if is_pair else None
    for max_length in (16, 64):
        expected = theirs(texts, pairs, truncation=True, max_length=max_length)["input_ids"]
        assert ids_of(theirs._tokenizer, texts, pairs, max_length, side) == expected
        assert saved(texts, pairs, truncation=True, max_length=max_length)["input_ids"] == expected
        package = reader((tmp_path / "ours" / "tokenizer.json").read_bytes(), max_length, is_pair, side)
        assert [package.encode(*row) for row in zip(texts, pairs or [None] * len(texts), strict=True)] == expected


@pytest.mark.parametrize("side", ["right", "left"])
def test_very_long_pairs_are_cut_by_tokens(side: Any) -> None:
    """Thousands of characters may be no token at all, and a long word may be one."""
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side = side
    nothing, word = "\u200b\x00" * 2000, "y" * 3000
    texts = [nothing + "the film is wonderful" + nothing + "and dull", word + " a film " + word, "the film " * 500, "a"]
    pairs = ["dull " * 900, nothing + "a film that was", "its plot " * 700, nothing]
    theirs = tokenizer(texts, pairs, truncation=True, max_length=16)["input_ids"]
    assert ids_of(tokenizer._tokenizer, texts, pairs, 16, side) == theirs
    package = reader(tokenizer._tokenizer.to_str().encode(), 16, True, side)
    assert [package.encode(*row) for row in zip(texts, pairs, strict=True)] == theirs


def test_a_row_cut_on_the_left_keeps_its_segments_and_words() -> None:
    tokenizer, long = tiny_tokenizer()._tokenizer, "the film is wonderful and the story is dull " * 40
    for text, pair in (("a film", long), (long, "a film"), (long, long)):
        whole = encode_rows(tokenizer, table_of([text], [pair]), 10_000)
        cut = encode_rows(tokenizer, table_of([text], [pair]), 12, "left")
        ends = np.flatnonzero(whole.ids == tokenizer.token_to_id("[SEP]"))
        kept = np.flatnonzero(cut.ids == tokenizer.token_to_id("[SEP]"))
        for (start, end), (first, last) in (((0, ends[0]), (0, kept[0])), ((ends[0], ends[1]), (kept[0], kept[1]))):
            n_tokens = last - first - 1
            for name in ("ids", "segments", "words"):
                theirs = getattr(whole, name)[start + 1 : end][-n_tokens:]
                assert (getattr(cut, name)[first + 1 : last] == theirs).all()

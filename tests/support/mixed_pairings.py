"""Pairs of tokenizers of many kinds, and what the tests of mixed tokenisation ask of them."""

import json
from collections import defaultdict
from functools import cache
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.support.vocab_teachers import AWKWARD, student, teacher
from vocab.comparing.align import align_batch
from vocab.mixing.mixed import MixedTokenizer, draw, mix

SLOW = [HealthCheck.too_slow]
PAIRINGS = {
    "bert to wordpiece": ("bert", "bert wordpiece"),
    "bert to unigram": ("bert", "bert unigram"),
    "cased bert to bpe": ("bert-cased", "bert-cased bpe"),
    "roberta to unigram": ("roberta", "roberta unigram"),
    "roberta to bpe": ("roberta", "roberta bpe"),
    "xlmr to wordpiece": ("xlmr", "xlmr wordpiece"),
    "xlmr to unigram": ("xlmr", "xlmr unigram"),
    "bert to one pre-token a text": ("bert", "unsplit"),
    "one pre-token a text to roberta's": ("unsplit", "roberta bpe"),
    "roberta to wordpiece": ("roberta", "bert wordpiece"),  # the student knows fewer characters: unknown ones
    "cased bert to a tokenizer without template": ("bert-cased", "bare"),
    "a tokenizer without template to bert": ("bare", "bert wordpiece"),
}
names = st.sampled_from(sorted(PAIRINGS))
rows_of_pairs = st.lists(st.tuples(AWKWARD, AWKWARD), min_size=1, max_size=4)


@cache
def tokenizer(name: str) -> Tokenizer:
    """A tokenizer without truncation: a teacher, a student "teacher kind", or one of two odd ones."""
    if name == "unsplit":  # as SentencePiece's without a pre-tokenizer: words are parted by "▁" alone
        spec = json.loads(tokenizer("xlmr unigram").to_str())
        spec["pre_tokenizer"] = None
        spec["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        return Tokenizer.from_str(json.dumps(spec))
    if name == "bare":
        return Tokenizer.from_str(json.dumps({**json.loads(tokenizer("bert").to_str()), "post_processor": None}))
    made = student(*name.split()) if " " in name else teacher(name)
    made = Tokenizer.from_str(made.to_str())
    made.no_truncation()
    return made


@cache
def pairing(name: str, max_length: int | None = None) -> tuple[Tokenizer, Tokenizer, MixedTokenizer]:
    ours, theirs = (tokenizer(each) for each in PAIRINGS[name])
    return ours, theirs, MixedTokenizer(ours, theirs, max_length)


def inputs(rows, has_pairs):
    texts, pairs = [row[0] for row in rows], [row[1] for row in rows]
    return (texts, pairs, list(rows)) if has_pairs else (texts, None, texts)


def mixed_at(both, rows, probability, seed=0, max_length=None):
    everything = np.arange(len(rows.n_units))
    drawn = draw(rows, everything, probability, np.random.default_rng(seed))
    return mix(rows, everything, drawn, both.n_student, max_length), drawn


def by_row(flat, starts):
    return [flat[first:last].tolist() for first, last in pairwise(starts.tolist())]


def without_special(encoding, values):
    return [value for value, is_special in zip(values, encoding.special_tokens_mask, strict=True) if not is_special]


def pieces_of_units(cut, row):
    """Return unit -> ids of one row, without special tokens."""
    found = defaultdict(list)
    for place in range(cut.starts[row], cut.starts[row + 1]):
        if not cut.is_special[place]:
            found[int(cut.units[place])].append(int(cut.ids[place]))
    return found


def check_ends(name, rows, has_pairs):
    """Nothing drawn gives exactly the teacher's encodings, everything drawn the student's."""
    ours, theirs, both = pairing(name)
    texts, pairs, given_rows = inputs(rows, has_pairs)
    cut = both.encode(texts, pairs)
    teacher_like, _ = mixed_at(both, cut, 0.0)
    expected = ours.encode_batch(given_rows)
    assert by_row(teacher_like.ids - both.n_student, teacher_like.starts) == [each.ids for each in expected]
    assert by_row(teacher_like.segments, teacher_like.starts) == [each.type_ids for each in expected]
    assert by_row(teacher_like.is_special * 1, teacher_like.starts) == [each.special_tokens_mask for each in expected]
    words = np.concatenate(align_batch(texts, pairs, expected))
    np.testing.assert_array_equal(teacher_like.words, words)
    assert not teacher_like.is_student.any()

    student_like, drawn = mixed_at(both, cut, 1.0)
    is_text = ~student_like.is_special
    expected = theirs.encode_batch(given_rows)
    text_ids = [without_special(each, each.ids) for each in expected]
    assert student_like.ids[is_text].tolist() == [id_ for ids in text_ids for id_ in ids]
    assert [len(ids) - sum(flags) for ids, flags in zip(
        by_row(student_like.ids, student_like.starts), by_row(student_like.is_special, student_like.starts), strict=True
    )] == [len(ids) for ids in text_ids]  # fmt: skip
    assert (student_like.is_student == is_text).all()
    np.testing.assert_array_equal(drawn, cut.is_drawable)
    all_words = align_batch(texts, pairs, expected)
    words = [without_special(each, row.tolist()) for each, row in zip(expected, all_words, strict=True)]
    assert student_like.words[is_text].tolist() == [word for row in words for word in row]


def mixed_columns(
    batch: dict[str, list[str]], indices: list[int], *, tokenizer: MixedTokenizer, probability: float, seed: int
) -> dict[str, list[list[int]]]:
    """Return ``ids``, ``is_student`` and ``units`` of the mixtures of a batch with columns ``text`` and maybe ``pair``.

    For ``dataset.map(functools.partial(mixed_columns, tokenizer=..., probability=0.5, seed=0), batched=True,
    with_indices=True)``. What is drawn for a row depends on the seed and the row's index alone, not on the batch.
    """
    rows = tokenizer.encode(batch["text"], batch.get("pair"))
    everything = np.arange(len(rows.n_units))
    draw(rows, everything, probability, np.random.default_rng(seed))  # refuses what is no probability
    numbers = [np.random.default_rng((seed, index)).random(n) for index, n in zip(indices, rows.n_units, strict=True)]
    drawn = np.concatenate([np.empty(0), *numbers]) < probability
    mixture = mix(rows, everything, drawn, tokenizer.n_student, tokenizer.max_length)
    names = ("ids", "is_student", "units")
    return {name: by_row(getattr(mixture, name), mixture.starts) for name in names}

"""Mixed tokenisation: p=0 is the teacher, p=1 the student; between them each word is wholly the one's or the other's.

Numbered as the invariants of a correct implementation of mixed-vocabulary training: 1 the ends, 3 seeds; whole words
(2) are in test_vocab_units.py.
"""

import functools
import pickle
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.support.mixed_pairings import (
    PAIRINGS,
    SLOW,
    by_row,
    check_ends,
    mixed_at,
    mixed_columns,
    names,
    pairing,
    rows_of_pairs,
    tokenizer,
)
from tests.support.vocab_teachers import AWKWARD_TEXTS, LINES, unknown_id
from vocab.mixing import mixed
from vocab.mixing.cut import select
from vocab.mixing.mixed import MixedTokenizer, chosen_units, draw, mix

# --- 1: the ends


@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize("has_pairs", [False, True])
def test_nothing_drawn_is_the_teacher_and_everything_drawn_the_student(name, has_pairs):
    check_ends(name, list(zip(AWKWARD_TEXTS, AWKWARD_TEXTS[::-1], strict=True)), has_pairs)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(name=names, rows=rows_of_pairs, has_pairs=st.booleans())
def test_the_ends_hold_for_any_text(name, rows, has_pairs):
    check_ends(name, rows, has_pairs)


def test_both_cuts_are_the_plain_encodings():
    ours, theirs, both = pairing("xlmr to wordpiece")
    cut = both.encode(AWKWARD_TEXTS)
    for one, tokenizer_ in ((cut.teacher, ours), (cut.student, theirs)):
        expected = tokenizer_.encode_batch(AWKWARD_TEXTS)
        assert by_row(one.ids, one.starts) == [each.ids for each in expected]
        assert by_row(one.segments, one.starts) == [each.type_ids for each in expected]


# --- 3: seeds and shares


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_share_of_drawn_words_is_the_probability(probability):
    _, _, both = pairing("bert to unigram")
    cut = both.encode(LINES * 60)
    everything = np.arange(len(cut.n_units))
    n_words = int(cut.is_drawable.sum())
    assert n_words > 5000
    tolerance = 4 * np.sqrt(probability * (1 - probability) / n_words)
    for seed in range(5):
        drawn = draw(cut, everything, probability, np.random.default_rng(seed))
        assert abs(drawn.sum() / n_words - probability) <= tolerance


def test_the_seed_decides_the_segmentation():
    _, _, both = pairing("bert to wordpiece")
    cut = both.encode(LINES)
    first, again, other = (mixed_at(both, cut, 0.5, seed)[0].ids for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


def test_a_larger_probability_only_adds_words_and_leaves_the_generator_alike():
    _, _, both = pairing("roberta to unigram")
    cut = both.encode(LINES)
    before = np.zeros(int(cut.n_units.sum()), bool)
    states = set()
    for probability in (0.0, 0.2, 0.5, 1.0):
        rng = np.random.default_rng(3)
        drawn = draw(cut, np.arange(len(LINES)), probability, rng)
        assert not (before & ~drawn).any()
        before = drawn
        states.add(rng.random())
    assert len(states) == 1


def test_any_batch_size_gives_the_same_mixture():
    _, _, both = pairing("xlmr to unigram", 20)
    columns = functools.partial(mixed_columns, tokenizer=both, probability=0.5, seed=7)
    pairs = AWKWARD_TEXTS[::-1]
    whole = columns({"text": AWKWARD_TEXTS, "pair": pairs}, list(range(len(AWKWARD_TEXTS))))
    for size in (1, 7, 64):
        parts = defaultdict(list)
        for first in range(0, len(AWKWARD_TEXTS), size):
            texts = AWKWARD_TEXTS[first : first + size]
            batch = {"text": texts, "pair": pairs[first : first + size]}
            for name, lists in columns(batch, list(range(first, first + len(texts)))).items():
                parts[name] += lists
        assert parts == whole
    assert columns({"text": LINES}, list(range(15))) != columns({"text": LINES}, list(range(1, 16)))


def test_datasets_can_map_it():
    datasets = pytest.importorskip("datasets")
    _, _, both = pairing("bert to wordpiece")
    columns = functools.partial(mixed_columns, tokenizer=both, probability=0.5, seed=7)
    dataset = datasets.Dataset.from_dict({"text": LINES})
    made = [dataset.map(columns, batched=True, batch_size=size, with_indices=True) for size in (4, 100)]
    expected = columns({"text": LINES}, list(range(len(LINES))))
    for name in ("ids", "is_student", "units"):
        assert made[0][name][:] == made[1][name][:] == expected[name]
    assert made[0]._fingerprint != dataset._fingerprint

    def cut(batch: dict) -> dict:
        student = both.encode(batch["text"]).student
        return {"student_ids": by_row(student.ids, student.starts)}

    assert dataset.map(cut, batched=True)["student_ids"][:] == cut({"text": LINES})["student_ids"]


def test_rows_encoded_in_many_chunks_are_the_same(monkeypatch):
    _, _, both = pairing("bert to unigram", 12)
    whole = both.encode(AWKWARD_TEXTS, AWKWARD_TEXTS[::-1])
    monkeypatch.setattr(mixed, "CHUNK", 3)
    chunked = both.encode(AWKWARD_TEXTS, AWKWARD_TEXTS[::-1])
    for one, other in zip(
        (*whole.teacher, *whole.student, *whole[2:]), (*chunked.teacher, *chunked.student, *chunked[2:]), strict=True
    ):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


# --- choosing rows


def test_rows_can_be_chosen_in_any_order():
    _, _, both = pairing("roberta to bpe")
    cut = both.encode(LINES)
    indices = [3, 0, 3, 14]
    chosen = select(cut.teacher, indices)
    all_ids = by_row(cut.teacher.ids, cut.teacher.starts)
    assert by_row(chosen.ids, chosen.starts) == [all_ids[index] for index in indices]
    assert by_row(chosen.units, chosen.starts) == [
        by_row(cut.teacher.units, cut.teacher.starts)[index] for index in indices
    ]
    places, unit_starts = chosen_units(cut, indices)
    assert np.diff(unit_starts).tolist() == cut.n_units[indices].tolist()
    drawn = draw(cut, indices, 0.5, np.random.default_rng(0))
    together = mix(cut, indices, drawn, both.n_student)
    for row, index in enumerate(indices):
        alone = mix(cut, [index], drawn[unit_starts[row] : unit_starts[row + 1]], both.n_student)
        part = slice(together.starts[row], together.starts[row + 1])
        for name in ("ids", "is_student", "segments", "words", "units", "is_special"):
            np.testing.assert_array_equal(getattr(together, name)[part], getattr(alone, name))
    assert (places[: unit_starts[1]] == np.arange(cut.unit_starts[3], cut.unit_starts[4])).all()


def test_no_rows_are_no_rows():
    _, _, both = pairing("bert to wordpiece")
    for cut in (both.encode([]), both.encode([], [])):
        assert len(cut.n_units) == 0 and cut.unit_starts.tolist() == [0]
    mixture, _ = mixed_at(both, cut, 0.5, max_length=8)
    assert mixture.starts.tolist() == [0] and len(mixture.ids) == 0
    some = both.encode(LINES)
    assert mix(some, [], np.zeros(0, bool), both.n_student, 8).starts.tolist() == [0]


# --- what it leaves alone, and what it refuses


def test_the_given_tokenizers_are_left_alone_and_their_own_limits_ignored():
    ours = Tokenizer.from_str(tokenizer("bert").to_str())
    ours.enable_truncation(5)
    ours.enable_padding(length=64)
    before = ours.to_str()
    both = MixedTokenizer(ours, tokenizer("bert wordpiece"))
    assert np.diff(both.encode([LINES[0]]).teacher.starts).tolist() == [len(tokenizer("bert").encode(LINES[0]).ids)]
    assert ours.to_str() == before


def test_it_can_be_pickled():
    _, _, both = pairing("xlmr to unigram", 9)
    copy = pickle.loads(pickle.dumps(both))
    assert (copy.n_student, copy.n_teacher, copy.max_length) == (both.n_student, both.n_teacher, 9)
    np.testing.assert_array_equal(copy.encode(LINES).student.ids, both.encode(LINES).student.ids)


def test_words_of_a_hundred_kilobytes_work():
    for name in ("bert to wordpiece", "roberta to bpe", "xlmr to unigram"):
        check_ends(name, [("x" * 100_000, "é1" * 5_000), ("the film", "a")], has_pairs=True)


def test_vocabularies_are_counted():
    ours, theirs, both = pairing("roberta to unigram")
    assert both.n_teacher == ours.get_vocab_size()
    assert both.n_student == theirs.get_vocab_size()
    ids = mixed_at(both, both.encode(AWKWARD_TEXTS), 0.5)[0]
    assert (ids.ids < both.n_student).tolist() == ids.is_student.tolist()
    assert ids.ids.max() < both.n_student + both.n_teacher


def test_words_with_unknown_or_special_tokens_are_not_maskable():
    ours, _, both = pairing("bert to wordpiece")
    text = "the \U00010348 film [MASK]"
    assert unknown_id(ours) in ours.encode(text).ids
    cut = both.encode([text])
    assert cut.is_maskable.tolist() == [False, True, False, True, False, False]
    assert cut.is_drawable.tolist() == [False, True, True, True, True, False]


def test_wrong_arguments_are_refused():
    ours, theirs, both = pairing("bert to wordpiece")
    cut = both.encode(LINES)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"probability=1\.5 is not between 0 and 1"):
        draw(cut, [0], 1.5, rng)
    with pytest.raises(ValueError, match="probability=nan is not between 0 and 1"):
        mixed_columns({"text": LINES}, list(range(len(LINES))), tokenizer=both, probability=float("nan"), seed=0)
    with pytest.raises(ValueError, match="got 1 texts and 2 pairs"):
        both.encode(["a"], ["b", "c"])
    with pytest.raises(ValueError, match=r"max_length=2 leaves no room beside 2 special tokens. Use 3 or more"):
        MixedTokenizer(ours, theirs, 2)
    with pytest.raises(ValueError, match=r"max_length=3 leaves no room beside 3 special tokens. Use 4 or more"):
        MixedTokenizer(ours, theirs, 3).encode(["a"], ["b"])
    with pytest.raises(ValueError, match=r"got 3 draws for 23 units"):
        mix(cut, [0], np.zeros(3, bool), both.n_student)
    with pytest.raises(ValueError, match="max_length=1 does not hold 2 special tokens"):
        mix(cut, [0], draw(cut, [0], 0.5, rng), both.n_student, max_length=1)

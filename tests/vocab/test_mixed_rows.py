"""Rows of mixtures: special tokens and segments are the teacher's, truncation leaves no hole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.support.mixed_pairings import (
    PAIRINGS,
    SLOW,
    by_row,
    inputs,
    mixed_at,
    names,
    pairing,
    pieces_of_units,
    rows_of_pairs,
)
from tests.support.vocab_teachers import AWKWARD, AWKWARD_TEXTS
from vocab.comparing.align import align_batch

# --- special tokens, segments, pairs


@pytest.mark.parametrize("name", PAIRINGS)
def test_special_tokens_are_the_teachers_and_units_of_their_own(name):
    ours, _, both = pairing(name)
    rows = list(zip(AWKWARD_TEXTS, AWKWARD_TEXTS[::-1], strict=True))
    cut = both.encode(*inputs(rows, True)[:2])
    mixture, _ = mixed_at(both, cut, 0.5)
    for row, encoding in enumerate(ours.encode_batch(rows)):
        part = slice(mixture.starts[row], mixture.starts[row + 1])
        special = [
            id_ for id_, is_special in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if is_special
        ]
        assert (mixture.ids[part][mixture.is_special[part]] - both.n_student).tolist() == special
        units = mixture.units[part].tolist()
        assert all(units.count(unit) == 1 for unit in mixture.units[part][mixture.is_special[part]].tolist())
        in_row = slice(cut.unit_starts[row], cut.unit_starts[row + 1])
        assert not cut.is_drawable[in_row][mixture.units[part][mixture.is_special[part]]].any()
    assert (cut.student.units[cut.student.is_special] == -1).all()
    every_unit = {unit for row in range(len(rows)) for unit in enumerate_units(cut, row)}
    assert every_unit == {(row, unit) for row, n in enumerate(cut.n_units.tolist()) for unit in range(n)}


def enumerate_units(cut, row):
    for each in (cut.teacher, cut.student):
        units = each.units[each.starts[row] : each.starts[row + 1]]
        yield from ((row, unit) for unit in units[units >= 0].tolist())


def test_units_count_the_teachers_special_tokens():
    _, _, both = pairing("bert to wordpiece")
    cut = both.encode(["the film moves", ""], ["a story", "\x07"])
    assert [sorted(set(units)) for units in by_row(cut.teacher.units, cut.teacher.starts)] == [
        list(range(8)),
        [0, 1, 2],
    ]
    assert by_row(cut.is_drawable * 1, cut.unit_starts) == [[0, 1, 1, 1, 0, 1, 1, 0], [0, 0, 0]]


def test_segments_are_the_teachers_template():
    for name, second in (
        ("bert to unigram", 1),
        ("roberta to unigram", 0),
        ("a tokenizer without template to bert", 1),
    ):
        _, _, both = pairing(name)
        cut = both.encode(["the film", "", "a dull one"], ["it moves", "honest", ""])
        for probability in (0.0, 0.5, 1.0):
            mixture, _ = mixed_at(both, cut, probability)
            by_unit = cut.unit_segments[np.repeat(cut.unit_starts[:-1], np.diff(mixture.starts)) + mixture.units]
            np.testing.assert_array_equal(mixture.segments, by_unit)
        text_b = mixture.words >= np.repeat([2, 0, 3], np.diff(mixture.starts))
        assert (mixture.segments[text_b] == second).all()
        assert (mixture.segments[~text_b & ~mixture.is_special] == 0).all()


def test_a_text_that_only_the_student_reads_stands_where_its_text_would():
    _, _, both = pairing("bert to one pre-token a text")  # BERT drops control characters and spaces
    cut = both.encode(["\x07", "\x07"], ["the film", "\x07"])
    mixture, _ = mixed_at(both, cut, 1.0)
    for row in (0, 1):
        is_special = mixture.is_special[mixture.starts[row] : mixture.starts[row + 1]].tolist()
        assert is_special[0] and is_special[-1] and is_special.count(True) == 3
        assert not is_special[1] and not is_special[-2]


# --- truncation


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(name=names, rows=rows_of_pairs, has_pairs=st.booleans(), max_length=st.integers(5, 24))
def test_each_cut_is_truncated_as_its_tokenizer_does(name, rows, has_pairs, max_length):
    *plain, both = pairing(name, max_length)
    texts, pairs, given_rows = inputs(rows, has_pairs)
    cut = both.encode(texts, pairs)
    for each, one in zip((cut.teacher, cut.student), plain, strict=True):
        truncating = Tokenizer.from_str(one.to_str())
        truncating.enable_truncation(max_length)
        expected = truncating.encode_batch(given_rows)
        assert by_row(each.ids, each.starts) == [encoding.ids for encoding in expected]
        np.testing.assert_array_equal(each.words, np.concatenate(align_batch(texts, pairs, expected)))
    nothing, _ = mixed_at(both, cut, 0.0)
    np.testing.assert_array_equal(nothing.ids - both.n_student, cut.teacher.ids)


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(name=names, text=AWKWARD, max_length=st.integers(5, 24), probability=st.sampled_from([0.3, 0.7, 1.0]))
def test_a_truncated_mixture_has_no_hole(name, text, max_length, probability):
    _, _, free = pairing(name)
    _, _, both = pairing(name, max_length)
    cut = both.encode([text])
    mixture, drawn = mixed_at(both, cut, probability)
    found = pieces_of_units(mixture, 0)
    whole = free.encode([text])
    theirs, ours = pieces_of_units(whole.student, 0), pieces_of_units(whole.teacher, 0)
    last = max(found, default=-1)
    for unit in range(last + 1):
        complete = theirs[unit] if drawn[unit] else [id_ + both.n_student for id_ in ours[unit]]
        if unit < last:
            assert found[unit] == complete
        else:
            assert found[unit] == complete[: len(found[unit])]
    # As far as the shorter of the two cuts reaches, at least.
    kept = [pieces_of_units(each, 0) for each in (cut.teacher, cut.student)]
    for unit in sorted(unit for unit in {*ours, *theirs} if ours[unit] or theirs[unit]):
        if kept[0][unit] != ours[unit] or kept[1][unit] != theirs[unit]:
            break
        assert cut.is_drawable[unit]


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(name=names, rows=rows_of_pairs, has_pairs=st.booleans(), max_length=st.integers(4, 24))
def test_a_long_mixture_loses_pieces_of_text_at_its_end(name, rows, has_pairs, max_length):
    _, _, both = pairing(name)
    cut = both.encode(*inputs(rows, has_pairs)[:2])
    full, _ = mixed_at(both, cut, 0.5)
    short, _ = mixed_at(both, cut, 0.5, max_length=max_length)
    for row in range(len(rows)):
        long_part, part = (slice(each.starts[row], each.starts[row + 1]) for each in (full, short))
        n_kept = part.stop - part.start
        assert n_kept == min(max_length, long_part.stop - long_part.start)
        special, text = full.is_special[long_part], full.ids[long_part][~full.is_special[long_part]]
        assert short.ids[part][short.is_special[part]].tolist() == full.ids[long_part][special].tolist()
        kept_text = short.ids[part][~short.is_special[part]].tolist()
        assert kept_text == text[: len(kept_text)].tolist()
        if special.any() and special[-1]:
            assert short.is_special[part][-1]

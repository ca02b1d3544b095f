"""Units: every word is cut wholly by one of two tokenizers, of any kinds, and is as small as both allow."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.mixed_pairings import (
    SLOW,
    by_row,
    inputs,
    mixed_at,
    names,
    pairing,
    pieces_of_units,
    rows_of_pairs,
    without_special,
)
from tests.support.vocab_teachers import AWKWARD
from vocab.surfaces import byte_letters


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(name=names, rows=rows_of_pairs, has_pairs=st.booleans(), seed=st.integers(0, 2**32))
def test_every_word_is_cut_wholly_by_one_tokenizer(name, rows, has_pairs, seed):
    _, _, both = pairing(name)
    texts, pairs, _ = inputs(rows, has_pairs)
    cut = both.encode(texts, pairs)
    mixture, drawn = mixed_at(both, cut, 0.5, seed)
    drawn_rows = by_row(drawn, cut.unit_starts)
    for row, is_drawn in enumerate(drawn_rows):
        theirs, ours = pieces_of_units(cut.student, row), pieces_of_units(cut.teacher, row)
        expected = {}
        for unit in sorted({*theirs, *ours}):
            chosen = theirs[unit] if is_drawn[unit] else [id_ + both.n_student for id_ in ours[unit]]
            expected |= {unit: chosen} if chosen else {}
        assert dict(pieces_of_units(mixture, row)) == expected
        units = mixture.units[mixture.starts[row] : mixture.starts[row + 1]]
        assert (np.diff(units) >= 0).all()


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(text=AWKWARD, seed=st.integers(0, 2**32))
def test_joined_pieces_are_the_normalised_word(text, seed):
    ours, theirs, both = pairing("bert to wordpiece")
    cut = both.encode([text])
    mixture, _ = mixed_at(both, cut, 0.5, seed)
    vocabularies = {True: theirs, False: ours}
    joined = defaultdict(str)
    for unit, ids in pieces_of_units(mixture, 0).items():
        for id_ in ids:
            is_student = id_ < both.n_student
            joined[unit] += (
                vocabularies[is_student].id_to_token(id_ - both.n_student * (not is_student)).removeprefix("##")
            )
    if "[" in text or "[UNK]" in joined.values():  # special tokens in the text, unknown letters, words too long
        return
    words = ours.pre_tokenizer.pre_tokenize_str(ours.normalizer.normalize_str(text))
    assert list(joined.values()) == [word for word, _ in words]
    assert list(joined) == list(range(1, len(words) + 1))


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(text=AWKWARD, seed=st.integers(0, 2**32))
def test_joined_bytes_are_the_text(text, seed):
    ours, theirs, both = pairing("roberta to bpe")
    mixture, _ = mixed_at(both, both.encode([text]), 0.5, seed)
    tokens = [
        theirs.id_to_token(id_) if id_ < both.n_student else ours.id_to_token(id_ - both.n_student)
        for id_ in mixture.ids[~mixture.is_special].tolist()
    ]
    if "<" not in text:  # special tokens in the text
        assert "".join(tokens) == byte_letters(text)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("bert to wordpiece", "The film, don't!", ["The", "film", ",", "don", "'", "t", "!"]),
        ("bert to unigram", "The film, don't!", ["The", "film,", "don't!"]),
        ("roberta to unigram", "The film, don't!", ["The", "film,", "don't!"]),
        ("roberta to wordpiece", "The film, don't!", ["The", "film", ",", "don", "'t", "!"]),
        ("bert to one pre-token a text", "the film, don't!", ["the", "film,", "don't!"]),
        ("one pre-token a text to roberta's", "the  film\t, x y", ["the", "film", "\t,", "x", "y"]),
        ("bert to wordpiece", "电影 nai\u0308ve", ["电", "影", "nai\u0308ve"]),
        ("xlmr to wordpiece", "电影 nai\u0308ve", ["电影", "nai\u0308ve"]),
        ("xlmr to unigram", "العربيّة עִבְרִית 👩\u200d👧", ["العربيّة", "עִבְרִית", "👩\u200d👧"]),
        ("roberta to bpe", "what a😀 \x00", ["what", "a", "😀", "\x00"]),
    ],
)
def test_words_are_as_small_as_both_allow(name, text, expected):
    ours, theirs, both = pairing(name)
    cut = both.encode([text])
    spans = defaultdict(lambda: (len(text), 0))
    for each, one in ((cut.teacher, ours), (cut.student, theirs)):
        for unit, (start, end) in zip(each.units.tolist(), one.encode(text).offsets, strict=True):
            spans[unit] = min(spans[unit][0], start), max(spans[unit][1], end)
    found = [text[start:end].strip(" ") for unit, (start, end) in sorted(spans.items()) if unit >= 0]
    assert [word for word in found if word] == expected


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(name=names, text=AWKWARD)
def test_units_are_the_definition(name, text):
    ours, theirs, both = pairing(name)
    cut = both.encode([text])
    mine = defaultdict(list)
    for which, each in enumerate((cut.teacher, cut.student)):
        place = 0
        for unit, is_special in zip(each.units.tolist(), each.is_special.tolist(), strict=True):
            if not is_special:
                mine[unit].append((which, place))
                place += 1
    assert sorted(mine.values()) == reference_units(text, ours, theirs)


def reference_units(text, *both):
    """The definition, slowly: pieces of one pre-token, unless spaces part them; joined for as long as any overlap."""
    groups = []
    for which, each in enumerate(both):
        encoding = each.encode(text)
        pieces = without_special(encoding, zip(encoding.offsets, encoding.word_ids, strict=True))
        before, reach = None, 0
        for place, ((start, end), word) in enumerate(pieces):
            if start == end:  # trimmed to nothing
                while start > reach and text[start - 1].isspace():
                    start -= 1
            reach = max(reach, end)
            core = text[start:end].strip()
            if core:
                start += text[start:end].index(core[0])
                end = start + len(core)
            is_apart = before is not None and any(char.isspace() for char in text[before[0] : start])
            starts_blank = start < len(text) and text[start].isspace()
            if before is not None and before[1] == word and not is_apart and not starts_blank:
                low, high, members = groups[-1]
                groups[-1] = min(low, start), max(high, end), [*members, (which, place)]
            else:
                groups.append((start, end, [(which, place)]))
            before = (groups[-1][1], word)
    while clash := first_clash(groups):
        one, other = clash
        joined = min(one[0], other[0]), max(one[1], other[1]), one[2] + other[2]
        groups = [group for group in groups if group not in (one, other)] + [joined]
    return sorted(sorted(members) for _, _, members in groups)


def first_clash(groups):
    for one in groups:
        for other in groups:
            is_before = any(first[0] == second[0] and first < second for first in one[2] for second in other[2])
            is_apart = one[1] <= other[0] or (other[1] <= one[0] and not is_before)
            is_same_place = one[0] == one[1] == other[0] == other[1]
            if one is not other and (is_same_place or not is_apart):
                return one, other
    return None

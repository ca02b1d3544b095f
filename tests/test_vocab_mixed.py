"""Mixed tokenisation: p=0 is the teacher, p=1 the student; between them each word is wholly the one's or the other's.

Numbered as the invariants of a correct implementation of mixed-vocabulary training: 1 the ends, 2 whole words, 3 seeds.
"""

import functools
import json
import pickle
from collections import defaultdict
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from vocab_teachers import AWKWARD, AWKWARD_TEXTS, LINES, student, teacher, unknown_id

from vocab import mixed
from vocab.align import align_batch
from vocab.mixed import MixedTokenizer, chosen_units, draw, mix, mixed_columns, select
from vocab.surfaces import byte_letters

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


# --- 1: the ends


@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize("has_pairs", [False, True])
def test_nothing_drawn_is_the_teacher_and_everything_drawn_the_student(name, has_pairs):
    check_ends(name, list(zip(AWKWARD_TEXTS, AWKWARD_TEXTS[::-1], strict=True)), has_pairs)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(name=names, rows=rows_of_pairs, has_pairs=st.booleans())
def test_the_ends_hold_for_any_text(name, rows, has_pairs):
    check_ends(name, rows, has_pairs)


def check_ends(name, rows, has_pairs):
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


def test_both_cuts_are_the_plain_encodings():
    ours, theirs, both = pairing("xlmr to wordpiece")
    cut = both.encode(AWKWARD_TEXTS)
    for one, tokenizer_ in ((cut.teacher, ours), (cut.student, theirs)):
        expected = tokenizer_.encode_batch(AWKWARD_TEXTS)
        assert by_row(one.ids, one.starts) == [each.ids for each in expected]
        assert by_row(one.segments, one.starts) == [each.type_ids for each in expected]
    columns = both({"text": AWKWARD_TEXTS})
    assert columns["student_ids"] == by_row(cut.student.ids, cut.student.starts)
    assert columns["teacher_units"] == by_row(cut.teacher.units, cut.teacher.starts)


# --- 2: whole words


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
    assert dataset.map(both, batched=True)["student_ids"][:] == both({"text": LINES})["student_ids"]


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
        check_ends(name, [("x" * 100_000, "é1" * 50_000), ("the film", "a")], has_pairs=True)


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

"""The vocabulary curve and the pick: measures that count what they say, and a choice that keeps its limits."""

import doctest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.support.vocab_teachers import CORPUS, LINES, teacher
from vocab.comparing import curve as curve_module
from vocab.comparing.curve import Bytes, Point, balanced, curve, pick, split
from vocab.comparing.measures import Measures, Ruler

ENGLISH, GERMAN = LINES[:3] * 30, [LINES[3]] * 20


def bytes_of(size: int, n_tokenizer_bytes: int) -> Bytes:
    return Bytes(16 * size, 16 * size + n_tokenizer_bytes + 10_000)


def words_only(*tokens: str) -> Tokenizer:
    """Return a WordPiece of the given tokens."""
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(("[UNK]", *tokens))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def point(size: int, time: float, package: int) -> Point:
    return Point(size, Measures(10 * time, {"f": 10 * time}, 0.9, 0.8, 0.0, time), size, 10, package)


# --- measures


def test_measures_count_what_they_say() -> None:
    mine = words_only("play", "##ing", "film", "a")
    other = words_only("play", "film", "playing")
    held_out = {"x": ["playing film", "film film"], "y": ["a ? film"]}
    found = Ruler(other, held_out).measure(mine)
    assert found.tokens_per_text_by_file == {"x": 2.5, "y": 3.0}
    assert found.tokens_per_text == pytest.approx(8 / 3)
    assert found.whole_words == pytest.approx(5 / 7)  # playing is two tokens, ? is unknown
    assert found.coverage == pytest.approx(5 / 8)  # play, and film four times; ##ing, a and [UNK] are not the other's
    assert found.unknown_rate == pytest.approx(1 / 8)
    assert found.time == pytest.approx(((5 / 4) * (3 / 3)) ** 0.5)  # geometric mean over the files


def test_the_teacher_measured_by_itself_is_one() -> None:
    mine = teacher("bert")  # truncates: must not matter
    found = Ruler(mine, {"x": LINES, "long": [" ".join(LINES) * 3]}).measure(mine)
    assert (found.time, found.coverage, found.unknown_rate) == (1.0, 1.0, 0.0)
    assert found.tokens_per_text_by_file["long"] > 128


def test_balanced_measures_weigh_files_equally() -> None:
    mine = words_only("a", "b")
    held_out = {"x": ["a"] * 9, "y": ["a b a b"]}
    assert Ruler(mine, held_out, is_balanced=False).measure(mine).tokens_per_text == pytest.approx(1.3)
    assert Ruler(mine, held_out, is_balanced=True).measure(mine).tokens_per_text == pytest.approx(2.5)


@given(n=st.integers(2, 200), seed=st.integers(0, 9))
@settings(deadline=None, derandomize=True)
def test_a_split_is_a_seeded_tenth_and_loses_nothing(n: int, seed: int) -> None:
    texts = [str(number) for number in range(n)]
    train, held_out = split(texts, seed)
    assert sorted(train + held_out) == sorted(texts)
    assert len(held_out) == max(1, round(0.1 * n))
    assert split(texts, seed) == (train, held_out)


def test_one_text_cannot_be_held_out() -> None:
    with pytest.raises(ValueError, match=r"f.txt: 1 texts are too few to hold some out"):
        curve({"f.txt": ["one"]}, [700], "wordpiece", teacher("bert"), bytes_of)


@given(files=st.lists(st.lists(st.text("abc", max_size=3), max_size=7), max_size=4), seed=st.integers(0, 9))
@settings(deadline=None, derandomize=True)
def test_balanced_files_have_equally_many_texts(files: list[list[str]], seed: int) -> None:
    corpus = balanced(files, seed)
    most = max(map(len, files), default=0)
    assert len(corpus) == most * sum(1 for texts in files if texts)
    for texts in files:
        if len(texts) == most:
            assert "".join(texts) in "".join(corpus)


def test_the_example_of_balanced_is_true() -> None:
    assert doctest.testmod(curve_module).failed == 0


# --- the curve


@pytest.mark.parametrize(("name", "kind"), [("bert", "wordpiece"), ("roberta", "bpe"), ("xlmr", "unigram")])
def test_more_tokens_cut_shorter_and_take_more_bytes(name: str, kind: Any) -> None:
    found = curve({"f": CORPUS}, [900, 640, 760], kind, teacher(name), bytes_of)
    assert [p.size for p in found.points] == [640, 760, 900]
    lengths = [p.measures.tokens_per_text for p in found.points]
    assert lengths == sorted(lengths, reverse=True)
    assert all(p.measures.unknown_rate <= found.teacher.unknown_rate for p in found.points)
    assert [p.vocabulary_bytes for p in found.points] == sorted(p.vocabulary_bytes for p in found.points)
    assert found.n_texts == {"f": len(CORPUS)}


def test_a_size_that_the_corpus_does_not_give_becomes_the_largest_that_it_does() -> None:
    found = curve({"f": LINES * 2}, [640, 40_000, 50_000], "wordpiece", teacher("bert"), bytes_of)
    assert len(found.points) == 2
    assert 640 < found.points[1].size < 40_000


def test_balance_gives_the_small_language_more() -> None:
    files = {"en": ENGLISH * 20, "de": GERMAN}
    sizes = [380]  # the letters take 355
    plain = curve(files, sizes, "wordpiece", teacher("bert"), bytes_of).points[0].measures
    equal = curve(files, sizes, "wordpiece", teacher("bert"), bytes_of, is_balanced=True).points[0].measures
    assert equal.tokens_per_text_by_file["de"] < plain.tokens_per_text_by_file["de"]
    assert equal.tokens_per_text_by_file["en"] >= plain.tokens_per_text_by_file["en"]


# --- the pick

POINTS = [point(1000, 2.0, 100), point(2000, 1.5, 110), point(4000, 1.2, 130), point(8000, 1.1, 170)]


def test_the_pick_has_the_least_product_of_bytes_and_time() -> None:
    found = pick(POINTS)
    assert found is not None
    assert found.point.size == 4000  # 200, 165, 156, 187
    assert found.reasons[0] == "package bytes x time per text is least here among the sizes tried"
    assert "from 2,000 tokens the package grows by 18.2 % and the step saves 20.0 % of the time" in found.reasons
    assert "on to 8,000 tokens the package would grow by 30.8 % and the step would save 8.3 % of the time" in (
        found.reasons
    )


def test_the_pick_keeps_both_limits_and_says_what_they_cost() -> None:
    by_package, by_vocabulary = pick(POINTS, max_bytes=120), pick(POINTS, max_vocabulary_bytes=1500)
    assert by_package is not None and by_vocabulary is not None
    assert (by_package.point.size, by_vocabulary.point.size) == (2000, 1000)
    assert "least at 4,000 tokens, which is over the limit; this is the best that fits" in by_package.reasons[0]
    assert pick(POINTS, max_bytes=99) is None


@given(
    times=st.lists(st.floats(0.5, 3), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 10**6), min_size=8, max_size=8, unique=True),
    limit=st.integers(1, 10**6),
)
@settings(deadline=None, derandomize=True)
def test_no_size_within_the_limit_has_a_smaller_product(times: list[float], sizes: list[int], limit: int) -> None:
    points = [point(size, time, size) for size, time in zip(sorted(sizes), times, strict=False)]
    found = pick(points, max_bytes=limit)
    fitting = [p for p in points if p.package_bytes <= limit]
    assert (found is None) == (not fitting)
    if found is not None:
        products = [p.package_bytes * p.measures.time for p in fitting]
        assert found.point.package_bytes * found.point.measures.time == min(products)
        assert found.point in fitting

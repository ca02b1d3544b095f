"""Words per token: the same words whatever the tokenizer, for single texts and pairs, on any text."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.support.vocab_teachers import AWKWARD, AWKWARD_TEXTS, CORPUS, teacher
from vocab.comparing.align import _first_overlap, align_batch, word_spans
from vocab.train import train_vocabulary


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Tokenizer]:
    made = {name: teacher(name) for name in ("bert", "roberta", "xlmr")}
    made["bert"].no_truncation()
    made["wordpiece"] = train_vocabulary(CORPUS, 500, "wordpiece", made["bert"])
    made["unigram"] = train_vocabulary(CORPUS, 500, "unigram", made["bert"])
    made["bytes"] = train_vocabulary(CORPUS, 700, "unigram", made["roberta"])
    return made


def reference(text: str, pair: str | None, encoding) -> list[int]:
    """The definition, slowly: the first word of its own text that the token overlaps."""
    documents = [word_spans(text), word_spans(pair or "")]
    words = []
    for (start, end), which in zip(encoding.offsets, encoding.sequence_ids, strict=True):
        found = -1
        if which is not None:
            overlaps = [i for i, (first, last) in enumerate(documents[which]) if first < end and start < last]
            if overlaps:
                found = overlaps[0] + which * len(documents[0])
        words.append(found)
    return words


# --- words of a text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n", []),
        ("it's 5.", ["it", "'", "s", "5", "."]),
        ("snake_case x2", ["snake_case", "x2"]),
        ("wait... what?!", ["wait", "...", "what", "?!"]),
        ("nai\u0308ve café", ["nai\u0308ve", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("العربيّة", ["العربيّة"]),
        ("电影很好。", ["电影很好", "。"]),
        ("👩\u200d👩\u200d👧 ❤\ufe0f!", ["👩\u200d👩\u200d👧", "❤", "\ufe0f", "!"]),
        ("a" * 250, ["a" * 250]),
    ],
)
def test_words_are_runs_of_letters_or_of_signs(text, words):
    assert [text[start:end] for start, end in word_spans(text)] == words


@settings(max_examples=300, deadline=None, derandomize=True)
@given(AWKWARD)
def test_words_cover_everything_but_spaces_in_order(text):
    spans = word_spans(text)
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    covered = {place for start, end in spans for place in range(start, end)}
    assert all(text[place].isspace() for place in set(range(len(text))) - covered)


# --- words of tokens


def test_a_worked_example(tokenizers):
    encoding = tokenizers["bert"].encode("The film moves.", "It is unreadable!")
    words = align_batch(["The film moves."], ["It is unreadable!"], [encoding])[0]
    assert words.dtype == np.int32
    by_word: dict[int, str] = {}
    for word, token in zip(words.tolist(), encoding.tokens, strict=True):
        by_word[word] = by_word.get(word, "") + token.removeprefix("##")
    assert by_word == {
        -1: "[CLS][SEP][SEP]",
        0: "the",
        1: "film",
        2: "moves",
        3: ".",
        4: "it",
        5: "is",
        6: "unreadable",
        7: "!",
    }


def test_token_words_follow_offsets():
    def token_words(offsets, spans):
        bounds, limits = (np.array(each, np.int64).reshape(-1, 2) for each in (offsets, spans))
        return _first_overlap(*bounds.T, *limits.T)

    spans = [(0, 3), (4, 6), (6, 7)]
    offsets = [(0, 0), (0, 2), (2, 3), (3, 4), (3, 5), (5, 7), (7, 9), (0, 0)]
    assert token_words(offsets, spans).tolist() == [-1, 0, 0, -1, 1, 1, -1, -1]
    assert token_words([], spans).tolist() == []
    assert token_words([(0, 1)], []).tolist() == [-1]


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["bert", "roberta", "xlmr", "wordpiece", "unigram", "bytes"]),
    rows=st.lists(st.tuples(AWKWARD, AWKWARD), min_size=1, max_size=4),
    has_pairs=st.booleans(),
    max_length=st.none() | st.integers(4, 20),
)
def test_a_batch_equals_the_definition(tokenizers, name, rows, has_pairs, max_length):
    tokenizer = Tokenizer.from_str(tokenizers[name].to_str()) if max_length else tokenizers[name]
    if max_length:
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding()
    texts, pairs = [row[0] for row in rows], [row[1] for row in rows]
    encodings = tokenizer.encode_batch(rows if has_pairs else texts)
    ours = align_batch(texts, pairs if has_pairs else None, encodings)
    for row, words, encoding in zip(rows, ours, encodings, strict=True):
        assert words.tolist() == reference(row[0], row[1] if has_pairs else None, encoding)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(text=AWKWARD)
def test_two_wordpiece_tokenizers_touch_the_same_words(tokenizers, text):
    if "[" in text or len(text) > 90:  # a special token, or a word so long that one of them gives up
        return
    both = [tokenizers[name].encode(text) for name in ("bert", "wordpiece")]
    if any("[UNK]" in encoding.tokens for encoding in both):
        return
    first, second = (set(align_batch([text], None, [encoding])[0].tolist()) for encoding in both)
    assert first == second


@pytest.mark.parametrize("name", ["bert", "roberta", "xlmr", "wordpiece", "unigram"])
def test_words_never_go_back(tokenizers, name):
    pairs = AWKWARD_TEXTS[::-1]
    encodings = tokenizers[name].encode_batch(list(zip(AWKWARD_TEXTS, pairs, strict=True)))
    for words in align_batch(AWKWARD_TEXTS, pairs, encodings):
        real = words[words >= 0]
        assert (np.diff(real) >= 0).all()


def test_one_row_equals_its_place_in_a_batch(tokenizers):
    encodings = tokenizers["xlmr"].encode_batch(AWKWARD_TEXTS)
    for text, encoding, words in zip(
        AWKWARD_TEXTS, encodings, align_batch(AWKWARD_TEXTS, None, encodings), strict=True
    ):
        np.testing.assert_array_equal(align_batch([text], None, [encoding])[0], words)


def test_an_empty_batch_is_empty():
    assert align_batch([], None, []) == []


def test_unequal_lengths_are_refused(tokenizers):
    encoding = tokenizers["bert"].encode("a")
    with pytest.raises(ValueError, match="got 2 texts, no pairs, 1 encodings"):
        align_batch(["a", "b"], None, [encoding])
    with pytest.raises(ValueError, match="got 1 texts, 2 pairs, 1 encodings"):
        align_batch(["a"], ["b", "c"], [encoding])

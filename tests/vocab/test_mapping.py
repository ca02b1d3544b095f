"""Maps from student tokens to teacher tokens: exact where they can be, cut by the teacher where not, nothing lost."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.support.vocab_teachers import CORPUS, KINDS, SIZE, student, teacher
from vocab.mapping import VocabMap, apply, load, map_vocabulary, save
from vocab.train import train_vocabulary

NAMES = ("bert", "roberta", "xlmr")
CASES = [*(("bert", kind) for kind in KINDS), ("roberta", "bpe"), ("roberta", "unigram"), ("xlmr", "unigram")]


@pytest.fixture(scope="session")
def maps() -> dict[tuple[str, str], tuple[Tokenizer, Tokenizer, VocabMap]]:
    made = {}
    for name, kind in CASES:
        mine = teacher(name)
        ours = student(name, kind)
        made[name, kind] = (ours, mine, map_vocabulary(ours, mine))
    return made


def wordpiece(tokens: list[str], special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")) -> Tokenizer:
    vocab = {token: i for i, token in enumerate([*special, *tokens])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def sources(vocab_map: VocabMap, student: Tokenizer, teacher: Tokenizer, token: str) -> list[str | None]:
    row = student.token_to_id(token)
    ids = vocab_map.indices[vocab_map.indptr[row] : vocab_map.indptr[row + 1]]
    return [teacher.id_to_token(int(i)) for i in ids]


def test_a_worked_example():
    theirs = wordpiece(["un", "##un", "know", "##know", "##n", "known", "k", "##k", "s", "##s", "xy", "##able"])
    ours = wordpiece(["known", "unknown", "##known", "##able", "##knowz", "ables", "zz"], ("[PAD]", "[UNK]", "[CLS]"))
    found = map_vocabulary(ours, theirs)
    assert sources(found, ours, theirs, "known") == ["known"]
    assert sources(found, ours, theirs, "unknown") == ["un", "##know", "##n"]
    # A continuation is cut as one: not into "known", which opens a word.
    assert sources(found, ours, theirs, "##known") == ["##know", "##n"]
    assert sources(found, ours, theirs, "##knowz") == []  # no "##z"
    assert sources(found, ours, theirs, "ables") == []  # "##able" cannot open a word, and there is no "a"
    assert sources(found, ours, theirs, "[CLS]") == ["[CLS]"]
    assert found.coverage == {
        "exact": 2,
        "special": 3,
        "composed": 2,
        "unmapped": 3,
        "unmapped_tokens": ["##knowz", "ables", "zz"],
    }


def test_roles_meet_where_names_differ(maps):
    ours = wordpiece(["film"])
    theirs = teacher("xlmr")
    found = map_vocabulary(ours, theirs)
    assert [sources(found, ours, theirs, token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [
        ["<pad>"],
        ["<unk>"],
        ["<s>"],
        ["</s>"],
    ]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_map_is_a_valid_matrix(maps, name, kind):
    student, mine, found = maps[name, kind]
    assert len(found.indptr) == student.get_vocab_size() + 1 == SIZE + 1
    assert found.indptr[0] == 0
    assert found.indptr[-1] == len(found.indices) == len(found.weights)
    assert (np.diff(found.indptr) >= 0).all()
    assert found.indices.max() < mine.get_vocab_size()
    sums = np.add.reduceat(np.append(found.weights, 0), found.indptr[:-1])[np.diff(found.indptr) > 0]
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    counts = [found.coverage[key] for key in ("exact", "special", "composed", "unmapped")]
    assert sum(counts) == SIZE
    assert len(found.coverage["unmapped_tokens"]) == found.coverage["unmapped"] == (np.diff(found.indptr) == 0).sum()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_almost_everything_has_a_source(maps, name, kind):
    student, _, found = maps[name, kind]
    has_bytes = json.loads(student.to_str())["model"].get("byte_fallback")
    unmapped = [token for token in found.coverage["unmapped_tokens"] if not token.startswith("<0x")]
    assert found.coverage["unmapped"] - len(unmapped) == (256 if has_bytes else 0)
    assert len(unmapped) <= 0.12 * SIZE, unmapped


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_maps_onto_itself(name):
    mine = teacher(name)
    found = map_vocabulary(mine, mine)
    np.testing.assert_array_equal(found.indices, np.arange(mine.get_vocab_size()))
    np.testing.assert_array_equal(found.weights, 1)
    table = np.random.default_rng(0).normal(size=(mine.get_vocab_size(), 8)).astype(np.float32)
    np.testing.assert_array_equal(apply(found, table), table)


@pytest.mark.parametrize("kind", KINDS)
def test_word_starts_are_cut_as_the_teacher_cuts_the_word(maps, kind):
    student, mine, found = maps["bert", kind]
    mark = "" if kind == "wordpiece" else "▁"
    n_seen = 0
    for token in student.get_vocab():
        word = token.removeprefix(mark)
        if not token.startswith(mark) or not word.isalpha() or token.startswith("##"):
            continue
        expected = mine.encode(word, add_special_tokens=False).tokens
        if "[UNK]" not in expected:
            assert sources(found, student, mine, token) == expected
            n_seen += 1
    assert n_seen > 100


def test_punctuation_inside_a_piece_starts_a_new_word_for_wordpiece():
    theirs = wordpiece(["don", "t", "##t", "'", "##n"])
    ours = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁don't", -1.0), ("n't", -1.0), ("'t", -1.0)], unk_id=0))
    ours.pre_tokenizer = pre_tokenizers.Metaspace()
    found = map_vocabulary(ours, theirs)
    assert sources(found, ours, theirs, "▁don't") == ["don", "'", "t"]
    assert sources(found, ours, theirs, "n't") == ["##n", "'", "t"]
    assert sources(found, ours, theirs, "'t") == ["'", "t"]


def test_byte_fragments_are_cut_by_the_teacher():
    mine = teacher("roberta")
    student = train_vocabulary(CORPUS, 700, "bpe", mine)
    found = map_vocabulary(student, mine)
    assert found.coverage["unmapped"] == 0


# --- embeddings


def test_apply_averages_pieces_and_gives_the_rest_the_mean():
    found = VocabMap(
        np.array([0, 1, 3, 3]), np.array([2, 0, 1]), np.array([1, 0.5, 0.5], np.float32), {"unmapped_tokens": ["x"]}
    )
    table = np.array([[1, 0], [3, 2], [7, 7]], np.float32)
    np.testing.assert_allclose(apply(found, table), [[7, 7], [2, 1], [11 / 3, 3]], rtol=1e-6)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=12), st.integers(0, 2**16))
def test_apply_equals_the_dense_product(rows, seed):
    table = np.random.default_rng(seed).normal(size=(10, 3)).astype(np.float32)
    dense = np.array([[row.count(i) / max(1, len(row)) for i in range(10)] for row in rows], np.float32)
    expected = np.where([[bool(row)] for row in rows], dense @ table, table.mean(axis=0))
    flat = [i for row in rows for i in row]
    weights = [1 / len(row) for row in rows for _ in row]
    indptr = np.cumsum([0, *map(len, rows)])
    ours = apply(VocabMap(indptr, np.array(flat, np.int64), np.array(weights, np.float32), {}), table)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_apply_refuses_the_wrong_table(maps):
    _, _, found = maps["bert", "wordpiece"]
    with pytest.raises(ValueError, match=r"embedding table has 20 rows. Use the tokenizer that belongs"):
        apply(found, np.zeros((20, 4), np.float32))


# --- files


def test_a_saved_map_comes_back_and_its_bytes_are_stable(maps, tmp_path):
    _, _, found = maps["xlmr", "unigram"]
    for name in ("one.npz", "two.npz"):
        save(found, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.npz"]
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    back = load(tmp_path / "one.npz")
    for ours, theirs in zip(back[:3], found[:3], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert back.coverage == found.coverage


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist. Make it with 'tenmeg vocab'"):
        load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", version=np.int64(9))
    with pytest.raises(ValueError, match="has format 9, expected 1"):
        load(tmp_path / "other.npz")

"""A vocabulary that exists: used as it is, mapped and certified like a trained one, and held against the teacher's."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from compressor.recipe import recipe as recipes
from compressor.recipe.recipe import Recipe
from compressor.run.compress import compress
from compressor.run.planning.plan import Plan, plan
from compressor.run.student_steps import run_vocab
from edge_demo import runtime
from tests.support.given_models import change_json
from tests.support.method_cases import tokenizers
from tests.support.runs import make_recipe, pair_rows, write_table
from tests.support.tiny import make_rows
from tests.support.vocab_teachers import KINDS, student, teacher
from vocab import mapping
from vocab.roles import role_problems, roles_of
from vocab.save import save_tokenizer
from vocab.surfaces import spec_of
from vocab.train import train_vocabulary

NATURAL = {"bert": "wordpiece", "bert-cased": "wordpiece", "roberta": "bpe", "xlmr": "unigram"}
LEAST = {"teacher": {"path": "t"}, "data": {"train": "f"}}


def save(tokenizer: Tokenizer, folder: Path, config: dict[str, object] | None = None) -> Path:
    save_tokenizer(tokenizer, folder, config or {}, 48)
    return folder


def ours(size: int = 230) -> Tokenizer:
    return train_vocabulary([text for text, _ in make_rows(300, 0)], size, "wordpiece", tokenizers()[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(ours(), tmp_path_factory.mktemp("given") / "vocab")


@pytest.fixture
def make(tiny_teacher_dir: Path, tiny_rows: Any) -> Any:
    """A recipe on the tiny teacher with this vocabulary."""

    def made(path: Path, **more: Any) -> Recipe:
        return make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, vocab={"path": str(path)}, **more)

    return made


def vocab_step(planned: Plan, part: Path) -> Path:
    part.mkdir()
    run_vocab(planned, part)
    return part


# --- the recipe and the plan


@pytest.mark.parametrize("beside", [{"size": 300}, {"size": 0}, {"kind": "bpe"}, {"rule": "cuts"}])
def test_how_to_train_one_beside_one_that_exists_is_refused(beside: dict[str, Any]) -> None:
    key = next(iter(beside))
    sentence = f"recipe: [vocab] path (--vocab-from) brings its own kind, size, rule. Leave out {key}, or path."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        recipes.from_dict({**LEAST, "vocab": {"path": "x", **beside}})


def test_the_plan_has_its_size_its_kind_and_its_bytes(make: Any, folder: Path, tmp_path: Path) -> None:
    planned = plan(make(folder))
    n_tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    assert planned.shape.vocab_size == n_tokens == 230
    part = vocab_step(planned, tmp_path / "part")
    assert planned.choice.predicted["tokenizer"] == (part / "tokenizer" / "tokenizer.json").stat().st_size
    assert f"vocab    wordpiece of 230 tokens, as it is (--vocab-from {folder})" in planned.lines()
    assert planned.as_dict()["vocabulary"]["sha256"].keys() == {"tokenizer.json", "tokenizer_config.json"}


def test_the_resolved_recipe_keeps_the_path_and_reads_back(make: Any, folder: Path) -> None:
    resolved = plan(make(folder)).resolved
    assert resolved.vocab.path == str(folder) and resolved.vocab.size is None
    again = recipes.parse(resolved.dumps())
    assert again == resolved and again.digest() == resolved.digest()
    assert "rule" not in resolved.dumps()
    assert plan(again).resolved == resolved


def test_the_file_is_as_good_as_its_folder(make: Any, folder: Path) -> None:
    of_file, of_folder = (plan(make(path)).vocabulary for path in (folder / "tokenizer.json", folder))
    assert of_file is not None and of_folder is not None
    assert of_file.tokenizer.to_str() == of_folder.tokenizer.to_str() and of_file.hashes == of_folder.hashes


def test_the_hashes_change_with_the_tokenizer_and_its_configuration(make: Any, tmp_path: Path) -> None:
    path = save(ours(), tmp_path / "vocab")
    before = plan(make(path)).vocabulary
    change_json(path / "tokenizer_config.json", padding_side="left")
    between = plan(make(path)).vocabulary
    save(ours(240), path)
    after = plan(make(path)).vocabulary
    assert before is not None and between is not None and after is not None
    assert before.hashes["tokenizer.json"] == between.hashes["tokenizer.json"] != after.hashes["tokenizer.json"]
    assert before.hashes["tokenizer_config.json"] != between.hashes["tokenizer_config.json"]


# --- the step


def test_it_is_used_as_it_is_and_mapped_and_certified(make: Any, folder: Path, tmp_path: Path) -> None:
    part = vocab_step(plan(make(folder)), tmp_path / "part")
    theirs, mine = (Tokenizer.from_file(str(path / "tokenizer.json")) for path in (folder, part / "tokenizer"))
    for text, _ in make_rows(40, 5):
        assert mine.encode(text).ids == theirs.encode(text).ids
    vocab_map = mapping.load(part / "map.npz")
    assert len(vocab_map.indptr) == 231 and vocab_map.coverage["special"] == 5
    statistics = json.loads((part / "statistics.json").read_text(encoding="utf-8"))
    assert statistics["student_size"] == 230 and statistics["newly_unknown_texts"] == 0 < statistics["words"]


def test_truncation_and_padding_of_the_file_are_left_behind(make: Any, tmp_path: Path) -> None:
    tokenizer = ours()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=100)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    part = vocab_step(plan(make(tmp_path / "tokenizer.json")), tmp_path / "part")
    spec = json.loads((part / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    assert spec["truncation"] is spec["padding"] is None


def test_evaluation_texts_that_become_unknown_are_refused(make: Any, tmp_path: Path) -> None:
    spec = spec_of(ours())
    for token in ("a", "##a"):
        spec["model"]["vocab"][f"{token}{token.removeprefix('##') * 9}"] = spec["model"]["vocab"].pop(token)
    path = save(Tokenizer.from_str(json.dumps(spec)), tmp_path / "vocab")
    with pytest.raises(ValueError, match=r"vocab: \d+ evaluation texts .* --vocab-from .* does not\. Give another tok"):
        vocab_step(plan(make(path)), tmp_path / "part")


# --- what does not go with the teacher's


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NATURAL)
def test_what_is_trained_for_a_teacher_goes_with_it(name: str, kind: Any) -> None:
    if (name, kind) == ("roberta", "wordpiece"):
        pytest.skip("WordPiece cannot read every byte")
    both = [(each, roles_of(spec_of(each), {})) for each in (student(name, kind), teacher(name))]
    for has_segments in (False, True):
        assert role_problems(both[0], both[1], is_pair=True, has_segments=has_segments) == []


def test_other_names_of_the_same_roles_go_together_for_single_texts() -> None:
    both = [(teacher(name), roles_of(spec_of(teacher(name)), {})) for name in ("xlmr", "bert")]
    assert role_problems(both[0], both[1], is_pair=False, has_segments=True) == []
    (problem,) = role_problems(both[0], both[1], is_pair=True, has_segments=False)
    assert problem == (
        "it writes two texts as cls text 1 sep sep text 2 sep, the teacher's as cls text 1 sep text 2 sep"
    )


def without(tokenizer: Tokenizer, token: str) -> Tokenizer:
    """Call a special token something else, everywhere."""
    return Tokenizer.from_str(tokenizer.to_str().replace(json.dumps(token), '"<other>"'))


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("[PAD]", "it has no pad token that goes with the teacher's [PAD]"),
        ("[CLS]", "it has no cls token that goes with the teacher's [CLS]"),
        ("[SEP]", "it has no sep token that goes with the teacher's [SEP]"),
    ],
)
def test_a_missing_role_is_named(token: str, problem: str, make: Any, tmp_path: Path) -> None:
    path = save(without(ours(), token), tmp_path / "vocab")
    sentence = rf"--vocab-from .*: the tokenizer does not go with the teacher's: {re.escape(problem)}.* Give one with"
    with pytest.raises(ValueError, match=sentence):
        plan(make(path))


def test_a_role_under_another_name_does_not_go_with_the_map(make: Any, tmp_path: Path) -> None:
    path = save(without(ours(), "[PAD]"), tmp_path / "vocab", {"pad_token": "<other>"})
    with pytest.raises(ValueError, match=r"it has no pad token that goes with the teacher's \[PAD\]"):
        plan(make(path))


def test_without_an_unknown_token_it_is_refused(make: Any, tmp_path: Path) -> None:
    spec = spec_of(ours())
    spec["model"]["unk_token"] = "<none>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ValueError, match="it has no unknown token"):
        plan(make(tmp_path))


def test_another_template_is_shown_beside_the_teachers(make: Any, tmp_path: Path) -> None:
    tokenizer = ours()
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP] [CLS]", special_tokens=ends)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="it writes a text as text 1 sep cls, the teacher's as cls text 1 sep"):
        plan(make(tmp_path))


def test_segments_matter_where_two_texts_are_read(tiny_teacher_dir: Path, folder: Path, tmp_path: Path) -> None:
    rows = [(a, b, index % 2) for index, (a, b) in enumerate(pair_rows(120, 3))]
    table = write_table(tmp_path / "train.tsv", ["sentence1", "sentence2", "label"], rows)
    tokenizer = ours()
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B [SEP]"
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=ends)
    flat = save(tokenizer, tmp_path / "vocab")
    assert plan(make_recipe(tiny_teacher_dir, table, None, vocab={"path": str(folder)})).shape.vocab_size == 230
    with pytest.raises(ValueError, match=r"it writes two texts as .*, the teacher's as .*\(segment 1\)"):
        plan(make_recipe(tiny_teacher_dir, table, None, vocab={"path": str(flat)}))


def test_hidden_words_need_a_mask(make: Any, tmp_path: Path) -> None:
    path = save(without(ours(), "[MASK]"), tmp_path / "vocab")
    assert plan(make(path)).shape.vocab_size == 230
    stage = [{"method": "mixed_vocabulary", "options": {"objective": "mlm"}}]
    with pytest.raises(ValueError, match=r"it has neither \[MASK\] nor <mask>, which objective = 'mlm' needs"):
        plan(make(path, stage=stage))


def test_ids_with_gaps_are_refused(make: Any, tmp_path: Path) -> None:
    spec = spec_of(ours())
    spec["model"]["vocab"]["wonderfully"] = 999
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ValueError, match=r"--vocab-from .* has 231 tokens with ids up to 999, expected an id for each"):
        plan(make(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "error", "sentence"),
    [
        ("nowhere", None, FileNotFoundError, r"--vocab-from .*nowhere does not exist\. Give a folder that"),
        (".", None, FileNotFoundError, r"--vocab-from .* holds no tokenizer\.json\. Give a folder that"),
        ("tokenizer.json", "{", ValueError, r"--vocab-from .* is no tokenizer\.json \(.*\)\. Give one that"),
        ("vocab.txt", "[PAD]\n", ValueError, r"--vocab-from .* is no tokenizer\.json \(.*\)\. Give one that"),
    ],
)
def test_what_is_no_tokenizer_is_a_sentence(
    name: str, content: str | None, error: type[Exception], sentence: str, make: Any, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(error, match=sentence):
        plan(make(tmp_path / name))


def test_a_model_that_is_not_supported_is_named(make: Any, tmp_path: Path) -> None:
    words = {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]"}
    spec = {**spec_of(ours()), "model": words, "added_tokens": [], "post_processor": None, "decoder": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a WordLevel model is not supported\. Give WordPiece, Unigram or BPE\."):
        plan(make(tmp_path))


# --- whole runs


@pytest.mark.slow
def test_another_tokenizer_in_the_folder_makes_the_step_again(make: Any, tmp_path: Path) -> None:
    path = save(ours(), tmp_path / "vocab")
    recipe = make(path, stage=[{"method": "mixed_vocabulary", "epochs": 1}, {"method": "distill", "epochs": 1}])
    first = compress(recipe, tmp_path / "out")
    assert runtime.load(first.package_dir).predict("a wonderful film").label in ("negative", "positive")
    assert "| shape | 2 layers, width 32, 2 heads, 64 feed-forward units, 230 tokens |" in (
        first.package_dir / "README.md"
    ).read_text(encoding="utf-8")
    save(ours(240), path)
    said: list[str] = []
    outcome = compress(recipe, tmp_path / "out", echo=said.append)
    assert [line for line in said if line.endswith("done before")] == ["teacher: done before"]
    assert outcome.report["vocabulary"]["student_size"] == outcome.report["shape"]["vocab_size"] == 240

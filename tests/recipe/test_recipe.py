"""The recipe: TOML in and out, and the sentence that each mistake gets."""

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.recipe import recipe as recipes
from compressor.recipe.recipe import Recipe
from compressor.recipe.sections import StageSection

LEAST = {"teacher": {"path": "t"}, "data": {"train": "f.tsv"}}

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
counts = st.integers(1, 2000)
maybe = st.none
shares = st.floats(0.01, 0.49)


TRAINED = {"kind": maybe() | st.sampled_from(["wordpiece", "unigram", "bpe"]), "size": maybe() | counts}


@st.composite
def recipe_dicts(draw) -> dict:
    heads = draw(counts)
    optional = {
        "student": {
            "layers": draw(maybe() | counts),
            "heads": heads,
            "hidden": draw(maybe() | counts.map(lambda n: n * heads)),
            "ffn": draw(maybe() | counts),
        },
        "vocab": draw(st.fixed_dictionaries({"path": words}) | st.fixed_dictionaries(TRAINED)),
        "quantize": {
            "scheme": draw(st.sampled_from(["auto", "int8", "int4", "none"])),
            "embedding_bits": draw(maybe() | st.sampled_from([4, 8])),
            "block_size": draw(maybe() | st.sampled_from([16, 32, 64, 128, 256])),
        },
        "budget": {
            "max_size": draw(maybe() | st.sampled_from(["7MB", "900 kB", "1.5MiB"])),
            "max_latency": draw(maybe() | st.sampled_from(["p95=5ms", "p50 = 1.5 s"])),
            "max_drop": draw(maybe() | st.floats(-5, 5)),
        },
        "measure": {
            "ep": draw(st.sampled_from(["cpu", "cuda"])),
            "threads": draw(counts),
            "baselines": draw(st.booleans()),
        },
        "stage": draw(
            st.lists(
                st.fixed_dictionaries(
                    {"method": words, "batch_size": counts},
                    optional={
                        "epochs": st.floats(0.1, 100),
                        "learning_rate": st.floats(1e-7, 1),
                        "options": st.dictionaries(words, st.integers() | st.booleans() | st.floats(-9, 9) | words),
                    },
                ),
                min_size=1,
                max_size=3,
            )
        ),
    }
    return {
        "seed": draw(st.integers(0, 2**31)),
        "teacher": {"path": draw(words), "revision": draw(maybe() | words), "offline": draw(st.booleans())},
        "data": {"train": draw(words), "text_column": draw(maybe() | words), "holdout": draw(shares)},
        **{name: optional[name] for name in draw(st.sets(st.sampled_from(sorted(optional))))},
    }


@settings(deadline=None, max_examples=60)
@given(recipe_dicts(), maybe() | words)
def test_toml_round_trip_loses_nothing(content: dict, pretrained: str | None) -> None:
    if pretrained is not None:
        content = {**content, "student": {"pretrained": pretrained}}
        content.pop("vocab", None)
    ours = recipes.from_dict(content)
    again = recipes.parse(ours.dumps())
    assert again == ours
    assert again.digest() == ours.digest()


def test_a_recipe_needs_only_a_teacher_and_training_rows() -> None:
    recipe = recipes.from_dict(LEAST)
    assert [stage.method for stage in recipe.stage] == ["distill"]
    assert recipe.budget.to_budget().max_bytes is None


def test_a_recipe_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipes.from_dict(LEAST).seed = 3


def test_the_digest_of_a_section_ignores_the_others() -> None:
    ours, theirs = recipes.from_dict(LEAST), recipes.from_dict({**LEAST, "seed": 5})
    assert ours.digest("teacher", "vocab") == theirs.digest("teacher", "vocab")
    assert ours.digest() != theirs.digest()


def test_the_budget_is_in_bytes_and_milliseconds() -> None:
    content = {**LEAST, "budget": {"max_size": "7MB", "max_latency": "p95=5ms", "max_drop": 1}}
    budget = recipes.from_dict(content).budget.to_budget()
    assert budget.max_bytes == 7_000_000
    assert str(budget.latency) == "p95=5ms"
    assert budget.max_drop == 1.0


SENTENCES = [
    ({"techer": {"path": "t"}}, "recipe: has no key 'techer'. Did you mean 'teacher'? Known: budget, data, "),
    (
        {"teacher": {"path": "t", "pth": 1}},
        "recipe: [teacher] has no key 'pth'. Did you mean 'path'? Known: allow_pickle",
    ),
    ({"teacher": {}}, "recipe: [teacher] path is missing. Add it."),
    ({"student": {"hiden": 3}}, "recipe: [student] has no key 'hiden'. Did you mean 'hidden'?"),
    (
        {"student": {"init": "teachers"}},
        "recipe: [student] init = 'teachers': input should be 'teacher', 'embeddings' or",
    ),
    (
        {"student": {"zzz": 3}},
        "recipe: [student] has no key 'zzz'. Known: embedding, exchange, family, ffn, heads, hidden",
    ),
    (
        {"student": {"hidden": 380, "heads": 6}},
        "recipe: [student] hidden=380 is not divisible by heads=6. Use hidden=378 or heads=5.",
    ),
    ({"student": {"hidden": 3, "heads": 7}}, "hidden=3 is not divisible by heads=7. Use hidden=7 or heads=3."),
    ({"student": {"layers": 0}}, "recipe: [student] layers = 0: input should be greater than 0."),
    ({"student": {"layers": "six"}}, "recipe: [student] layers = 'six': input should be a valid integer"),
    (
        {"vocab": {"kind": "wordpeice"}},
        "recipe: [vocab] kind = 'wordpeice': input should be 'wordpiece', 'unigram' or 'bpe'.",
    ),
    ({"quantize": {"scheme": "int3"}}, "recipe: [quantize] scheme = 'int3': input should be 'auto', 'int8', 'int4' or"),
    ({"quantize": {"block_size": 20}}, "recipe: [quantize] block_size = 20: input should be 16, 32, 64, 128 or 256."),
    (
        {"budget": {"max_size": "7 megs"}},
        "recipe: [budget] size: got '7 megs', expected a positive number with a unit.",
    ),
    ({"budget": {"max_latency": "5ms"}}, "recipe: [budget] latency: got '5ms', expected a percentile and a time."),
    ({"data": {"train": "f", "holdout": 0.7}}, "recipe: [data] holdout = 0.7: input should be less than 0.5."),
    ({"stage": []}, "recipe: no [[stage]] given. Add at least one, for example method = 'distill'."),
    ({"stage": [{"method": "distill", "epoch": 1}]}, "recipe: [[stage]] has no key 'epoch'. Did you mean 'epochs'?"),
    ({"stage": [{"epochs": 1}]}, "recipe: [[stage]] method is missing. Add it."),
    (
        {"stage": [{"method": "distill", "epochs": -1}]},
        "recipe: [[stage]] epochs = -1: input should be greater than 0.",
    ),
    ({"stage": 3}, "recipe: [[stage]] got 3, expected a table of keys."),
    ({"stage": ["distill"]}, "recipe: [[stage]] got 'distill', expected a table of keys."),
    ({"budget": {"max_drop": float("nan")}}, "recipe: [budget] max_drop = nan: input should be a finite number."),
    ({"version": 2}, "recipe: version = 2: input should be 1."),
    ({"seed": -1}, "recipe: seed = -1: input should be greater than or equal to 0."),
]


@pytest.mark.parametrize(("content", "sentence"), SENTENCES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_mistake_has_its_sentence(content: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        recipes.from_dict({**LEAST, **content})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"\[vocab\] size.*\[student\] layers"):
        recipes.from_dict({**LEAST, "student": {"layers": 0}, "vocab": {"size": -1}})


def test_a_section_that_is_no_table_is_named() -> None:
    with pytest.raises(ValueError, match=r"recipe: \[student\] got 3, expected a table of keys"):
        recipes.from_dict({**LEAST, "student": 3})


def test_broken_toml_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"recipe: not valid TOML: .*line 1"):
        recipes.parse("[teacher\npath = 1")


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.toml does not exist\. 'tenmeg compress --dry-run' writes one"):
        recipes.load(tmp_path / "no.toml")


def test_a_file_that_is_not_utf_8_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'seed = "\xe9"')
    with pytest.raises(ValueError, match=r"latin\.toml is not UTF-8"):
        recipes.load(tmp_path / "latin.toml")


def test_a_saved_recipe_loads(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(LEAST)
    (tmp_path / "r.toml").write_text(recipe.dumps(), encoding="utf-8")
    assert recipes.load(tmp_path / "r.toml") == recipe


def test_what_is_left_at_its_default_does_not_count_in_the_digest() -> None:
    plain = recipes.from_dict(LEAST)
    said = recipes.from_dict({**LEAST, "seed": 0, "vocab": {"rule": "cuts"}, "measure": {"threads": 1}})
    assert plain.digest() == said.digest()
    assert plain.digest() != recipes.from_dict({**LEAST, "vocab": {"rule": "frequency"}}).digest()


def test_a_later_key_with_a_default_changes_no_digest() -> None:
    class LaterStage(StageSection):
        later: str | None = None

    class Later(Recipe):
        later: int = 3
        stage: tuple[LaterStage, ...] = (LaterStage(method="distill"),)

    for more in ({}, {"stage": [{"method": "patient", "epochs": 2}]}):
        assert Later.model_validate({**LEAST, **more}).digest() == recipes.from_dict({**LEAST, **more}).digest()
    assert Later.model_validate({**LEAST, "later": 4}).digest() != recipes.from_dict(LEAST).digest()


def test_files_count_in_the_digest_by_what_they_hold(tmp_path: Path) -> None:
    def digest(place: Path, teacher: str = "teacher") -> str:
        content = {
            "teacher": {"path": str(place / teacher)},
            "data": {"train": str(place / "rows.tsv"), "eval": str(place / "dev.tsv")},
            "vocab": {"path": str(place / teacher / "tokenizer.json")},
            "stage": [{"method": "teacher_predictions", "options": {"base": str(place / teacher)}}],
        }
        return recipes.from_dict(content).digest()

    here, there = tmp_path / "here", tmp_path / "there"
    (here / "teacher").mkdir(parents=True)
    names = ("teacher/config.json", "teacher/tokenizer.json", "teacher/model.safetensors", "rows.tsv", "dev.tsv")
    for name in names:
        (here / name).write_text(name, encoding="utf-8")
    before = digest(here)
    shutil.copytree(here, there)
    assert digest(there) == before
    for name in names:
        (there / name).write_text("other", encoding="utf-8")
        assert digest(there) != before, name
        (there / name).write_text(name, encoding="utf-8")
    (there / "teacher").rename(there / "renamed")
    assert digest(there, "renamed") == before


def test_a_hub_id_counts_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours, theirs = (recipes.from_dict({**LEAST, "teacher": {"path": name}}) for name in ("owner/one", "owner/two"))
    assert ours.digest() != theirs.digest()


def test_a_tilde_that_is_nobodys_home_is_a_name_like_any_other() -> None:
    recipe = recipes.from_dict({"teacher": {"path": "~nobody-lives-here/model"}, "data": {"train": "~/rows.tsv"}})
    assert len(recipe.digest()) == 64

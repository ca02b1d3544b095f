"""Shipped recipes: they cannot rot, the command line finds them by name, and flags win over them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.commands.decisions import to_recipe
from compressor.recipe import recipe as recipes
from compressor.recipe.shipped import (
    PLACEHOLDERS,
    RECIPES_DIR,
    base,
    find_recipe,
    lay_over,
    recipe_names,
    recipe_summary,
)
from compressor.training.registry import build_options

FLAGS = {"teacher": "t", "train": "f.tsv"}
TWO_STAGES = {
    "student": {"layers": 6, "heads": 12},
    "budget": {"max_size": "7MB"},
    "stage": [
        {"method": "distill", "epochs": 1.0, "options": {"temperature": 3.0, "hidden": 2.0}},
        {"method": "finetune", "epochs": 2.0},
    ],
}


def tenmeg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def whole(name: str) -> recipes.Recipe:
    return recipes.from_dict(lay_over(PLACEHOLDERS, base(name)))


def differences(stages: Any, reported: Any) -> list[str]:
    """Return where a resolved list of stages says something else than the shipped one, which leaves defaults out."""
    if [stage["method"] for stage in stages] != [stage["method"] for stage in reported]:
        return ["method"]
    return [
        f"{stage['method']} {key}"
        for stage, other in zip(stages, reported, strict=True)
        for key, value in stage.items()
        if other.get(key) != value
    ]


# --- the files


def test_there_are_shipped_recipes() -> None:
    assert {"classification-dual", "sentence-embedding-dual"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid_with_any_teacher_and_data(name: str) -> None:
    for stage in whole(name).stage:
        build_options(stage.method, stage.options)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_starts_with_a_line_that_says_what_it_is_for(name: str) -> None:
    assert find_recipe(name).read_text(encoding="utf-8").startswith("# ")
    assert recipe_summary(name).endswith(".")


@pytest.mark.parametrize("path", sorted(RECIPES_DIR.glob("*.report.json")), ids=lambda path: path.name)
def test_the_report_beside_a_recipe_is_of_that_recipe(path: Path) -> None:
    reported = json.loads(path.read_text(encoding="utf-8"))["recipe"]["stage"]
    assert differences(base(path.name.removesuffix(".report.json")).get("stage", []), reported) == []


def test_a_report_of_other_stages_would_be_noticed() -> None:
    stages = TWO_STAGES["stage"]
    resolved = [{**stage, "batch_size": 32, "warmup": 0.06} for stage in stages]
    assert differences(stages, resolved) == []
    assert differences(stages, resolved[:1]) == ["method"]
    assert differences(stages, [{**resolved[0], "options": {}}, resolved[1]]) == ["distill options"]


# --- names and files


def test_a_name_that_is_not_known_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=re.escape("recipe: 'clasification-dual' is not known. Did you mean 'classif")):
        base("clasification-dual")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"recipe: .*none\.toml does not exist"):
        base(str(tmp_path / "none.toml"))


def test_a_path_is_a_file_even_where_a_recipe_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classification-dual").write_text("seed = 7\n", encoding="utf-8")
    assert base("./classification-dual") == {"seed": 7}
    assert "seed" not in base("classification-dual")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed = -1", "recipe: seed = -1"),
        ("stage = 3", "recipe: [[stage]] got 3, expected a table of keys."),
        ("teacher = 3", "recipe: [teacher] got 3, expected a table of keys."),
        ("[[stage]]\nepochs = 3", "recipe: [[stage]] method is missing."),
        ("seed = ", "recipe: not valid TOML"),
    ],
)
def test_what_is_no_recipe_is_a_sentence_before_flags_are_laid_over_it(
    text: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        base(str(tmp_path / "r.toml"))


# --- flags over a recipe


def test_flags_win_and_the_rest_of_the_recipe_stays() -> None:
    recipe = recipes.from_dict(to_recipe({**FLAGS, "layers": 4, "max_drop": 1.0}, TWO_STAGES))
    assert (recipe.student.layers, recipe.student.heads) == (4, 12)
    assert (recipe.budget.max_size, recipe.budget.max_drop) == ("7MB", 1.0)
    assert [stage.model_dump(exclude_unset=True) for stage in recipe.stage] == TWO_STAGES["stage"]


def test_methods_given_as_flags_replace_the_stages() -> None:
    recipe = to_recipe({**FLAGS, "method": ("finetune",), "epochs": 3.0}, TWO_STAGES)
    assert recipe["stage"] == [{"method": "finetune", "epochs": 3.0}]


def test_without_a_method_flags_of_training_change_the_recipes_stages() -> None:
    recipe = to_recipe({**FLAGS, "batch_size": 8, "option": ("distill.temperature=1.5",)}, TWO_STAGES)
    assert recipe["stage"] == [
        {"method": "distill", "epochs": 1.0, "batch_size": 8, "options": {"temperature": 1.5, "hidden": 2.0}},
        {"method": "finetune", "epochs": 2.0, "batch_size": 8},
    ]


def test_flags_change_the_default_stage_of_a_recipe_without_one() -> None:
    assert to_recipe({**FLAGS, "epochs": 3.0}, {"seed": 1})["stage"] == [{"method": "distill", "epochs": 3.0}]


def test_laying_flags_over_a_recipe_does_not_change_it() -> None:
    before = json.dumps(TWO_STAGES)
    to_recipe({**FLAGS, "layers": 4, "epochs": 3.0, "option": ("distill.temperature=1",)}, TWO_STAGES)
    assert json.dumps(TWO_STAGES) == before


# --- the command line


def test_a_recipe_by_file_gives_the_run_its_stages(tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path) -> None:
    text = '# mine\nseed = 5\n[student]\nlayers = 1\nhidden = 32\n[[stage]]\nmethod = "distill"\n'
    (tmp_path / "r.toml").write_text(text + "options = { temperature = 3.0 }\n", encoding="utf-8")
    arguments = ["compress", "--recipe", tmp_path / "r.toml", "--teacher", tiny_teacher_dir, "--train", tiny_rows.train]
    done = tenmeg(*arguments, "--vocab-size", "200", "--seed", "6", "--output", tmp_path / "out", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    resolved = recipes.load(tmp_path / "out" / "recipe.toml")
    assert (resolved.seed, resolved.student.layers, resolved.vocab.size) == (6, 1, 200)
    assert [(stage.method, stage.options) for stage in resolved.stage] == [
        ("distill", {"temperature": 3.0, "dropout": 0.1})  # what depends on the epochs is made explicit
    ]


def test_a_recipe_without_teacher_and_data_is_for_compress(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("seed = 1\n", encoding="utf-8")
    done = tenmeg("run", path, "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert "recipe: [teacher] and [data] are missing. Add them, or give teacher and data as flags: " in done.stderr
    assert f"tenmeg compress --recipe {path} --teacher MODEL --train FILE --output DIR." in done.stderr
    path.write_text('[teacher]\npath = "t"\n', encoding="utf-8")
    assert "recipe: [data] is missing. Add it, or" in tenmeg("run", path, "--output", tmp_path / "out").stderr


def test_recipes_are_listed_with_a_line_each_and_shown_by_name() -> None:
    listed = json.loads(tenmeg("recipes", "--json").stdout)["recipes"]
    assert sorted(listed) == recipe_names()
    assert all(name in tenmeg("recipes").stdout for name in listed)
    assert tenmeg("recipes", "classification-dual").stdout == find_recipe("classification-dual").read_text("utf-8")
    done = tenmeg("recipes", "clasification-dual")
    assert (done.exit_code, "Did you mean 'classification-dual'?" in done.stderr) == (1, True)
    done = tenmeg("compress", "--recipe", "x", "--teacher", "t", "--train", "f", "--output", "o")
    assert (done.exit_code, "recipe: 'x' is not known. Known: classification-dual," in done.stderr) == (1, True)

"""What the comparison of two commits covers: every method, kind of task, start and precision, in whole recipes."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.same_bytes import RECIPES, recipe_of
from compressor.recipe.recipe import Recipe, from_dict
from compressor.training.registry import build_options, method_names


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    return {name: from_dict(recipe_of(name, Path("inputs"))) for name in RECIPES}


def test_all_methods_are_run_and_their_options_exist(recipes: dict[str, Recipe]) -> None:
    stages = [stage for recipe in recipes.values() for stage in recipe.stage]
    inner = {stage.options["loss"] for stage in stages if "loss" in stage.options}
    assert {stage.method for stage in stages} | inner == set(method_names())
    for stage in stages:
        build_options(stage.method, stage.options)


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        (lambda recipe: Path(recipe.teacher.path).name, {"classes", "pairs", "scores", "encoder"}),
        (lambda recipe: recipe.quantize.scheme, {"auto", "int8", "int4", "none"}),
        (lambda recipe: recipe.student.init, {"teacher", "embeddings", "random"}),
        (lambda recipe: recipe.student.pretrained is not None, {True, False}),
        (lambda recipe: recipe.student.repeat, {"all", "mirror", None}),
        (lambda recipe: recipe.student.exchange, {False, None}),
        (lambda recipe: recipe.student.start_layers, {"first", None}),
        (lambda recipe: recipe.vocab.path is not None, {True, False}),
        (lambda recipe: recipe.vocab.size == 0, {True, False}),
        (lambda recipe: any(stage.options.get("out_of_fold") for stage in recipe.stage), {True, False}),
    ],
)
def test_kinds_starts_bits_and_repeats_are_all_there(key: Any, wanted: set[Any], recipes: dict[str, Recipe]) -> None:
    assert {key(recipe) for recipe in recipes.values()} >= wanted

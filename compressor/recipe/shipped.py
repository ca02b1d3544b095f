"""Recipes that come with tenmeg, by name, and any recipe file as a base that flags are laid over.

A shipped recipe is ``recipes/NAME.toml``: its first line is a comment that says what it is for, and it need not say
which teacher and which data. ``NAME.report.json`` beside it is the report of a run that it made.
"""

from pathlib import Path
from typing import Any

from compressor.refused import Refused, did_you_mean

RECIPES_DIR = Path(__file__).parents[1] / "recipes"
PLACEHOLDERS = {"teacher": {"path": "teacher"}, "data": {"train": "train.tsv"}}  # for checking a recipe without them


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))


def recipe_summary(name: str) -> str:
    """Return the first comment line of a shipped recipe."""
    lines = find_recipe(name).read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


def find_recipe(source: str) -> Path:
    """Return the file of a shipped recipe or, where ``source`` is a path, that path; ``./NAME`` is always a path.

    Raises:
        ValueError: if it is neither, with the nearest known name.
    """
    known = recipe_names()
    if source in known:
        return RECIPES_DIR / f"{source}.toml"
    path = Path(source)
    if path.suffix == ".toml" or path.name != source or path.is_file():
        return path
    hint = did_you_mean(source, known)
    raise Refused(f"recipe: {source!r} is not known.{hint} Known: {', '.join(known)}; a file ends in .toml.")


def base(source: str) -> dict[str, Any]:
    """Return the tables of a recipe, by name or file; teacher and data may be missing, all else is checked.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the name is not known, or what is there is no recipe.
    """
    from compressor.recipe.recipe import from_dict, read

    content = read(find_recipe(source))
    from_dict(lay_over(PLACEHOLDERS, content))
    return content


def describe_recipes(name: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the shipped recipes with a line each or, with ``name``, the text of one."""
    if name is None:
        names = recipe_names()
        summaries = {each: recipe_summary(each) for each in names}
        width = max(map(len, names), default=0) + 2
        return {"recipes": summaries}, [f"{each:{width}}{text}" for each, text in summaries.items()]
    text = find_recipe(name).read_text(encoding="utf-8")
    return {"name": name, "recipe": base(name), "text": text}, text.splitlines()


def lay_over(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with what is given laid over it, tables key by key, anything else whole.

    >>> lay_over({"seed": 1, "student": {"layers": 6, "heads": 12}}, {"student": {"layers": 4}})
    {'seed': 1, 'student': {'layers': 4, 'heads': 12}}
    """
    merged = dict(base)
    for name, value in given.items():
        under = base.get(name)
        merged[name] = {**under, **value} if isinstance(under, dict) and isinstance(value, dict) else value
    return merged

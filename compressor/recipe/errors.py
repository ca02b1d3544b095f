"""Pydantic's errors about a recipe as sentences: the key, what it got, what is expected, the nearest known key."""

from typing import Any

from pydantic import BaseModel

from compressor.refused import did_you_mean


def sentence(details: Any, recipe: type[BaseModel]) -> str:
    """Return one error as a sentence.

    Args:
        details: pydantic's ErrorDetails, a TypedDict it does not export at run time.
        recipe: the model whose sections and keys are known.
    """
    section, key = _where(details["loc"], recipe)
    if details["type"] == "extra_forbidden":
        table = _section_of(str(details["loc"][0]), recipe) if details["loc"][:-1] else recipe
        known = list(table.model_fields) if table else []
        hint = did_you_mean(key, known)
        return f"recipe: {section}has no key {key!r}.{hint} Known: {', '.join(sorted(known))}."
    if details["type"] == "missing":
        return f"recipe: {section}{key} is missing. Add it."
    if details["type"] == "value_error":
        return f"recipe: {section}{details['ctx']['error']!s}"
    got = repr(details["input"])[:80]
    if details["type"] in ("model_type", "tuple_type"):
        return (
            f"recipe: {section.strip() or key} got {got}, expected a table of keys. Write it as [section] or [[stage]]."
        )
    return f"recipe: {section}{key} = {got}: {details['msg'].lower()}."


def _where(loc: tuple[int | str, ...], recipe: type[BaseModel]) -> tuple[str, str]:
    names = [str(part) for part in loc if not isinstance(part, int)]
    if not names:
        return "", ""
    brackets = "[[stage]] " if names[0] == "stage" else f"[{names[0]}] "
    if len(names) == 1 and names[0] in recipe.model_fields and _section_of(names[0], recipe):
        return brackets, ""
    if len(names) == 1:
        return "", names[0]
    return brackets, names[-1]


def _section_of(name: str, recipe: type[BaseModel]) -> type[BaseModel] | None:
    """Return the model of a table, or of each row of a list of tables."""
    annotation = recipe.model_fields[name].annotation
    for found in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None

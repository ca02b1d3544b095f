"""What flag values say: the recipe that they decide, and which columns they name."""

import tomllib
from typing import Any

from compressor.commands.flags import COLUMNS, FLAGS, SWITCHES_BOTH_WAYS
from compressor.data.columns import Columns
from compressor.recipe.shipped import lay_over
from compressor.refused import Refused


def to_recipe(values: dict[str, Any], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the recipe's nested dictionaries from flag values, laid over ``base``: what was not given is left out.

    Methods that are given replace the stages of ``base``; without one, --option and the flags of a stage
    (--epochs, --batch-size, ...) change its stages.

    >>> to_recipe({"teacher": "t", "train": "f.tsv", "layers": None, "method": ("distill",), "epochs": 2.0})
    {'teacher': {'path': 't'}, 'data': {'train': 'f.tsv'}, 'stage': [{'method': 'distill', 'epochs': 2.0}]}
    """
    base = base or {}
    recipe: dict[str, Any] = {}
    stage: dict[str, Any] = {}
    for name, value in values.items():
        place = FLAGS[name].place
        is_off = value is None or (value is False and name not in SWITCHES_BOTH_WAYS)
        if place is None or is_off or name in ("method", "option"):
            continue
        section, _, key = place.rpartition(".")
        target = stage if section == "stage" else recipe.setdefault(section, {}) if section else recipe
        target[key] = value
    given, options = values.get("method") or (), tuple(values.get("option") or ())
    if stage or options or given:
        before = [{"method": method} for method in given] or base.get("stage") or [{"method": "distill"}]
        methods = tuple(each["method"] for each in before)
        recipe["stage"] = [
            lay_over(each, {**stage, **_options_of(each["method"], methods, options)}) for each in before
        ]
    return lay_over(base, recipe)


def with_columns(values: dict[str, Any]) -> dict[str, Any]:
    """Return the flag values with one ``columns`` in the place of the flags that name columns."""
    others = {name: value for name, value in values.items() if name not in COLUMNS}
    return {**others, "columns": Columns(*(values.get(name) for name in COLUMNS))}


def _options_of(method: str, methods: tuple[str, ...], options: tuple[str, ...]) -> dict[str, Any]:
    """Return ``{"options": {...}}`` of one method from KEY=VALUE and METHOD.KEY=VALUE, or nothing."""
    found: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Refused(f"--option {text}: expected KEY=VALUE, for example --option temperature=2.")
        owner, dot, rest = key.partition(".")
        if dot and owner in methods:
            if owner == method:
                found[rest] = _value(value)
        elif len(set(methods)) > 1:
            raise Refused(
                f"--option {text}: several methods are given. Write METHOD.KEY=VALUE, for example {methods[0]}.{text}."
            )
        else:
            found[key] = _value(value)
    return {"options": found} if found else {}


def _value(text: str) -> Any:  # whatever TOML can say: number, boolean, string, list
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

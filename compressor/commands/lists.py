"""What there is to choose from: the training methods and their options."""

import dataclasses
from typing import Any


def describe_methods(name: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the training methods with a line each or, with ``name``, all that one of them says and its options."""
    from compressor.training.registry import default_of, load_method, method_names, method_summary

    if name is None:
        summaries = {each: method_summary(each).partition("\n")[0] for each in method_names()}
        width = max(map(len, summaries)) + 2
        return {"methods": summaries}, [f"{each:{width}}{text}" for each, text in summaries.items()]
    text = method_summary(name)
    options = [
        {"name": field.name, "type": getattr(field.type, "__name__", str(field.type)), "default": default_of(field)}
        for field in dataclasses.fields(load_method(name).options_class)
    ]
    lines = [text, "", *[f"--option {each['name']}={each['default']}  ({each['type']})" for each in options]]
    return {"name": name, "text": text, "options": options}, lines

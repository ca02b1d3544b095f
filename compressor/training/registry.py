"""How methods are found and their options read.

A method is found by the name of its file in ``compressor/methods``, and the first line of its docstring is what
``tenmeg methods`` lists. Listing imports no torch.
"""

import ast
import dataclasses
import importlib
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

from compressor.refused import Refused, did_you_mean
from compressor.training.contract import MethodOptions, Wants

if TYPE_CHECKING:
    from compressor.recipe.sections import StageSection
    from compressor.training.objective import Objective

METHODS_DIR = Path(__file__).parents[1] / "methods"


class Method(NamedTuple):
    """A method's three parts."""

    name: str
    options_class: type[MethodOptions]
    objective_class: "type[Objective]"


class Stage(NamedTuple):
    """One [[stage]] of a recipe with its names resolved."""

    section: "StageSection"  # as it is written, with the optimisation
    method: Method
    options: MethodOptions
    # The method whose loss it is, and its options: another's where an option ``loss`` names it, else the same.
    loss: Method
    loss_options: MethodOptions
    wants: Wants

    @property
    def trains_teacher(self) -> bool:
        """Whether it runs or trains a teacher of its own at every step."""
        return self.loss.objective_class.trains_teacher

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of its methods, which no import names."""
        names = {self.method.name, self.loss.name}
        return tuple(f"compressor.methods.{name}" for name in sorted(names))


def resolve(section: "StageSection") -> Stage:
    """Return a [[stage]] with its method, its options, and those of its loss.

    Raises:
        ValueError: for a method or an option that is not known, and for a value that is refused.
    """
    method, options = load_method(section.method), build_options(section.method, section.options)
    name, given = options.inner or (section.method, section.options)
    loss_options = build_options(name, given)
    return Stage(section, method, options, load_method(name), loss_options, loss_options.wants())


def method_names() -> list[str]:
    """Return the names of all methods, without importing them."""
    return sorted(path.stem for path in METHODS_DIR.glob("*.py") if path.stem != "__init__")


def method_summary(name: str) -> str:
    """Return the docstring of a method's file, without importing it."""
    source = (METHODS_DIR / f"{check_method(name)}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def check_method(name: str) -> str:
    """Return the name if there is such a method.

    Raises:
        ValueError: with the nearest known name.
    """
    known = method_names()
    if name not in known:
        hint = did_you_mean(name, known)
        raise Refused(f"method: {name!r} is not known.{hint} Known: {', '.join(known)}.")
    return name


def load_method(name: str) -> Method:
    """Import a method (and with it torch)."""
    module = importlib.import_module(f"compressor.methods.{check_method(name)}")
    return Method(name, module.Options, module.Objective)


def describe_methods(name: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the training methods with a line each or, with ``name``, all that one of them says and its options."""
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


def build_options(name: str, given: dict[str, Any]) -> MethodOptions:
    """Return the method's options with ``given`` filled in.

    Raises:
        ValueError: for an unknown option (with the nearest known one) or one of the wrong type.
    """
    options_class = load_method(name).options_class
    fields = {item.name: item for item in dataclasses.fields(options_class)}
    for key, value in given.items():
        if key not in fields:
            hint = did_you_mean(key, fields)
            raise Refused(
                f"recipe: [[stage]] {name!r} has no option {key!r}.{hint} Known: {', '.join(sorted(fields))}."
            )
        default = default_of(fields[key])
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_other_type = type(value) is not type(default) and type(value) not in _alternatives(fields[key].type)
        if not (isinstance(default, float) and is_number) and is_other_type:
            raise Refused(
                f"recipe: [[stage]] {name!r} option {key} = {value!r}, expected a {type(default).__name__}. "
                f"The default is {default!r}."
            )
    return options_class(**given)


def default_of(field: "dataclasses.Field[Any]") -> Any:  # Any: of whatever type the option is
    """Return an option's default, a new one where it is a list or a table."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _alternatives(annotation: Any) -> tuple[type, ...]:  # Any: a type, or a union of types
    """Return the classes of a union: ``str | list[int]`` is (str, list); of anything else nothing."""
    members = get_args(annotation) if isinstance(annotation, UnionType) else ()
    return tuple(get_origin(each) or each for each in members)

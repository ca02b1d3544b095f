"""What a training method is, and how methods are found.

A method is one file in ``compressor/methods``: a docstring, a frozen dataclass ``Options`` (its knobs) and a class
``Objective(nn.Module)`` whose ``forward(**batch)`` returns named loss terms, already weighted; the trainer adds them
up. It is found by its file name, and its first docstring line is what ``tenmeg methods`` lists. Listing imports no
torch.
"""

import ast
import dataclasses
import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from compressor.tasks import TaskSpec
    from exporters.pooling import Pooling

METHODS_DIR = Path(__file__).parent / "methods"


@dataclass(frozen=True)
class Context:
    """What a method may know when it is built."""

    student: "PreTrainedModel"
    spec: "TaskSpec"
    pooling: "Pooling | None" = None
    teacher_hidden: int = 0
    teacher_layers: tuple[int, ...] = ()  # which of the teacher's hidden states are cached; 0 is the embedding output
    teacher_n_layers: int = 0


class Objective(Protocol):
    """The part of a method that is trained: the student and whatever helps it, as one ``nn.Module``."""

    student: "PreTrainedModel"
    needs_teacher: bool  # batches carry the cached teacher outputs

    def forward(self, **batch: "Tensor") -> dict[str, "Tensor"]:
        """Return the loss terms by name."""
        ...


class Method(NamedTuple):
    """A method's three parts."""

    name: str
    options_class: type
    objective_class: Any  # a class that is an nn.Module and an Objective: Python's types have no intersection


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
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"method: {name!r} is not known.{hint} Known: {', '.join(known)}.")
    return name


def load_method(name: str) -> Method:
    """Import a method (and with it torch)."""
    module = importlib.import_module(f"compressor.methods.{check_method(name)}")
    return Method(name, module.Options, module.Objective)


def build_options(name: str, given: dict[str, Any]) -> Any:  # an instance of the method's own Options
    """Return the method's options with ``given`` filled in.

    Raises:
        ValueError: for an unknown option (with the nearest known one) or one of the wrong type.
    """
    options_class = load_method(name).options_class
    fields = {item.name: item for item in dataclasses.fields(options_class)}
    for key, value in given.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"recipe: [[stage]] {name!r} has no option {key!r}.{hint} Known: {', '.join(sorted(fields))}."
            )
        default = fields[key].default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(default, float) and is_number) and type(value) is not type(default):
            raise ValueError(
                f"recipe: [[stage]] {name!r} option {key} = {value!r}, expected a {type(default).__name__}. "
                f"The default is {default!r}."
            )
    return options_class(**given)

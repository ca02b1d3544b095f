"""How kinds of task are found: by the names of their files in ``compressor/tasks``, and by what a checkpoint says."""

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from compressor.refused import Refused, did_you_mean
from compressor.scoring.contract import TaskSpec
from compressor.scoring.metrics import n_labels_of

KINDS_DIR = Path(__file__).parents[1] / "tasks"


def kind_names() -> list[str]:
    """Return the names of all kinds, without importing them."""
    return sorted(path.stem for path in KINDS_DIR.glob("*.py") if path.stem != "__init__")


@cache
def load_kind(name: str) -> type[TaskSpec]:
    """Import a kind.

    Raises:
        ValueError: for a name that is no kind's.
    """
    known = kind_names()
    if name not in known:
        raise Refused(f"task: the kind {name!r} is not known, expected one of {', '.join(known)}.")
    kind: type[TaskSpec] = importlib.import_module(f"compressor.tasks.{name}").Task
    return kind


def trainable_kind(name: str) -> type[TaskSpec]:
    """Return the kind that a user asks for with --task, of those that a model can be fine-tuned for."""
    known = [each for each in kind_names() if load_kind(each).problem_type is not None]
    if name not in known:
        hint = did_you_mean(name, known)
        raise Refused(f"--task {name} is nothing to fine-tune for.{hint} Use one of {', '.join(known)}.")
    return load_kind(name)


def kind_of(task: str, config: Mapping[str, Any]) -> type[TaskSpec]:
    """Return the kind of a checkpoint.

    Args:
        task: of Hugging Face: "text-classification" or "feature-extraction".
        config: its config.json.

    Raises:
        ValueError: for a checkpoint that is of no known kind.
    """
    claiming = [kind for kind in map(load_kind, kind_names()) if kind.head().task == task and kind.claims(task, config)]
    # A kind that refines another, by deriving from it, goes before it.
    claiming = [kind for kind in claiming if not any(kind in other.__mro__[1:] for other in claiming)]
    if not claiming:
        got, n_labels = config.get("problem_type"), n_labels_of(config)
        known = [each for name in kind_names() if (each := load_kind(name).problem_type) is not None]
        hint = "" if got in known else did_you_mean(str(got), known)
        raise Refused(
            f"teacher: its config.json says problem_type {got!r} with {n_labels} label{'s' * (n_labels != 1)}, "
            f"expected one of {', '.join(known)}, and as many labels as it takes.{hint} Correct it, or "
            "fine-tune a model with 'tenmeg finetune'."
        )
    assert len(claiming) == 1, [kind.kind for kind in claiming]
    return claiming[0]


def known_tasks() -> list[str]:
    """Return the tasks of Hugging Face that some kind is for."""
    return sorted({load_kind(name).head().task for name in kind_names()}, reverse=True)


def task_spec(
    kind: str, labels: Sequence[str] = (), *, pair: bool, scored: bool = True, metric: str | None = None
) -> TaskSpec:
    """Return the task of one model of a kind; the arguments are those of ``TaskSpec.of``."""
    return load_kind(kind).of(labels, pair=pair, scored=scored, metric=metric)

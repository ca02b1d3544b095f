"""What a kind of task asks of a graph: its outputs by name, the one that answers, and what a package says of them.

A head is one file in ``exporters/heads`` with a class ``Head`` that derives from :class:`Head`; its name is the kind's.
torch is needed for ``outputs`` alone.
"""

import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from exporters.refused import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from exporters.pooling import Pooling

HEADS_DIR = Path(__file__).parent / "heads"


class Head:
    """The base of every kind's head."""

    task: ClassVar[str] = "text-classification"  # of Hugging Face
    names: ClassVar[tuple[str, ...]] = ("logits",)  # of the graph's outputs
    answer: ClassVar[str] = "logits"  # the one that a package answers with
    compared: ClassVar[str] = "logits"  # the one by which two graphs are compared
    has_layer: ClassVar[bool] = True  # the model has a layer for the answers, with names by id
    fewest_labels: ClassVar[int] = 0  # that a package names; 0: it names none
    n_values: ClassVar[int | None] = None  # of the answer; None: one for each label, or as many as it likes
    read_as: ClassVar[str | None] = None  # the kind whose answers the reader gives; None: its own

    @staticmethod
    def outputs(
        output: Any, attention_mask: "Tensor", pooling: "Pooling | None"
    ) -> "tuple[Tensor, ...]":  # Any: a ModelOutput
        """Return the graph's outputs in the order of ``names``.

        Args:
            output: of the model: ``logits`` (batch, values), or token vectors (batch, tokens, hidden) as its first.
            attention_mask: (batch, tokens).
            pooling: of the token vectors, for heads that pool.
        """
        raise NotImplementedError


def head_names() -> list[str]:
    """Return the kinds that have a head, without importing them."""
    return sorted(path.stem for path in HEADS_DIR.glob("*.py") if path.stem != "__init__")


@cache
def load_head(kind: str) -> type[Head]:
    """Import the head of a kind.

    Raises:
        ValueError: for a kind that has none.
    """
    known = head_names()
    if kind not in known:
        raise Refused(f"export: the kind of task {kind!r} is not known, expected one of {', '.join(known)}.")
    head: type[Head] = importlib.import_module(f"exporters.heads.{kind}").Head
    return head

"""Which stored layer each pass of an encoder runs, and whether that pass exchanges query and key: numbers only.

Shuffled parameter sharing (Pea-KD, 2009.14822) gives a student depth for no bytes: its n stored layers run once in
their order, and some of them again, then with query and key exchanged (Q = X W_K + b_K, K = X W_Q + b_Q). For n = 3:

    all          0 1 2 | 0 1 2      published for n <= 3            immediate    0 0 1 1 2 2
    top_half     0 1 2 | 1 2        published for n = 6 (3 4 5)     mirror       0 1 2 | 2 1 0
    bottom_half  0 1 2 | 0 1                                        [2, 0]       0 1 2 | 2 0

The layer in the middle of an odd number belongs to both halves. Standard library only; the Hugging Face classes that
run such a pattern are those of ``exporters.repeats``.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from exporters.refused import Refused

PREFIX = "repeated-"  # before the plain architecture's name in ``model_type``
CLASS_PREFIX = "Repeated"  # before the plain class's name in ``architectures``
REPEATS = ("none", "all", "top_half", "bottom_half", "immediate", "mirror")


class Pattern(NamedTuple):
    """One entry per pass."""

    passes: tuple[int, ...]  # the stored layer that runs, counted from 0
    exchanged: tuple[bool, ...]  # whether its query and key change places


def pattern(repeat: str | Sequence[int], n_layers: int, exchange: bool = True) -> Pattern:
    """Return the passes of ``n_layers`` stored layers.

    Args:
        repeat: one of ``REPEATS``, or the stored layers that run after all have run once, counted from 0.
        n_layers: how many layers are stored.
        exchange: whether every pass after a layer's first exchanges query and key.

    Raises:
        ValueError: for a name that is not known, or a layer that does not exist.

    >>> pattern("top_half", 6).passes
    (0, 1, 2, 3, 4, 5, 3, 4, 5)
    >>> pattern([1], 2)
    Pattern(passes=(0, 1, 1), exchanged=(False, False, True))
    """
    first = list(range(n_layers))
    if repeat == "immediate":
        passes = [layer for layer in first for _ in range(2)]
    else:
        passes = first + _again(check_repeat(repeat), n_layers)
    seen: set[int] = set()
    exchanged = []
    for layer in passes:
        exchanged.append(exchange and layer in seen)
        seen.add(layer)
    return Pattern(tuple(passes), tuple(exchanged))


def check_repeat(repeat: Any) -> str | tuple[int, ...]:  # Any: whatever a recipe holds
    """Return what says how layers repeat, a list as a tuple.

    Raises:
        ValueError: with the names that are known, or what a list must hold.
    """
    if isinstance(repeat, list | tuple):
        wrong = [each for each in repeat if type(each) is not int or each < 0]
        if wrong or not repeat:
            raise Refused(
                f"repeat={list(repeat)}, expected the layers that run again, counted from 0. Write for example "
                "repeat=[0, 1], or 'none'."
            )
        return tuple(repeat)
    if repeat not in REPEATS:
        near = difflib.get_close_matches(str(repeat), REPEATS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise Refused(
            f"repeat={repeat!r}, expected one of {', '.join(REPEATS)}, or layers counted from 0 such as [0, 1].{hint}"
        )
    return repeat


def check_layers(repeat: str | Sequence[int], n_layers: int) -> None:
    """Refuse a list that names a layer which does not exist."""
    if not isinstance(repeat, str) and max(repeat, default=0) >= n_layers:
        raise Refused(
            f"repeat={list(repeat)} names layer {max(repeat)}, layers={n_layers} has 0 to {n_layers - 1}. "
            f"Use layers={max(repeat) + 1} or more, or leave it out of repeat."
        )


def _again(repeat: str | Sequence[int], n_layers: int) -> list[int]:
    """Return the passes after the first run."""
    check_layers(repeat, n_layers)
    if not isinstance(repeat, str):
        return list(repeat)
    layers = list(range(n_layers))
    half = (n_layers + 1) // 2
    return {
        "none": [],
        "all": layers,
        "top_half": layers[n_layers - half :],
        "bottom_half": layers[:half],
        "mirror": layers[::-1],
    }[repeat]


def check_pattern(passes: Sequence[int], exchanged: Sequence[bool], n_layers: int) -> Pattern:
    """Return the pattern of a configuration.

    Raises:
        ValueError: if the two lists differ in length, a layer does not exist or never runs, or the first runs are not
            in the order of the layers.
    """
    found, flags = list(passes), list(exchanged)
    if len(found) != len(flags):
        raise Refused(
            f"config: exchanged has {len(flags)} entries, expected {len(found)}, one for each of passes={found}. "
            "Give as many."
        )
    wrong_layers = [each for each in found if type(each) is not int or not 0 <= each < n_layers]
    wrong_flags = [each for each in flags if type(each) is not bool]
    if wrong_layers or wrong_flags:
        raise Refused(
            f"config: passes={found} and exchanged={flags}, expected layers of 0 to {n_layers - 1} and true or false. "
            f"Correct {(wrong_layers or wrong_flags)[0]!r}."
        )
    if list(dict.fromkeys(found)) != list(range(n_layers)):
        raise Refused(
            f"config: passes={found}, expected each of the {n_layers} stored layers, and their first runs in the order "
            "0, 1, ... Correct passes, or the number of layers."
        )
    return Pattern(tuple(found), tuple(flags))


def n_passes(config: Any) -> int:  # Any: a configuration of any class, or the content of config.json
    """Return how many layers a model runs: its passes where layers repeat, else its layers."""
    content: Any = config if isinstance(config, Mapping) else vars(config)
    stored = content.get("num_hidden_layers", content.get("n_layers"))  # DistilBERT says n_layers
    return len(content.get("passes") or range(stored))


def plain_type(model_type: str) -> str:
    """Return the architecture without repetition: ``plain_type("repeated-bert") == "bert"``."""
    return model_type.removeprefix(PREFIX)


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:  # Any: the content of config.json
    """Return a configuration under the plain architecture's name, for readers of the graph, which has the passes in it.

    ``passes`` and ``exchanged`` stay for people; a plain configuration is returned as it is.
    """
    if not str(config.get("model_type", "")).startswith(PREFIX):
        return dict(config)
    names = [str(name).removeprefix(CLASS_PREFIX) for name in config.get("architectures") or []]
    return {**config, "model_type": plain_type(config["model_type"]), **({"architectures": names} if names else {})}


def describe(found: Pattern) -> str:
    """Return the passes for people: ``0 1 2 0' 1' 2'``, where ' is a pass with query and key exchanged."""
    return " ".join(f"{layer}{chr(39) if is_exchanged else ''}" for layer, is_exchanged in zip(*found, strict=True))

"""A model that sentence-transformers saved to score two texts: which function ``predict`` puts over its logits.

Nothing is applied here: where the answer of a package would be another number than that of ``predict``, the checkpoint
is refused, with what to write into it if the package's number is wanted.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from compressor.data.table import Table
from compressor.models.sentence_folder import MAIN, SCORES, Surroundings, read_main
from compressor.refused import Refused
from compressor.scoring.metrics import n_labels_of

logger = logging.getLogger(__name__)
# The functions over the logits that give a kind's answers, by their names in torch; the first is what a package does.
OURS = {"regression": ("Identity",), "multi_label": ("Sigmoid",), "classification": ("Softmax", "Identity")}
PATHS = {
    "Identity": "torch.nn.modules.linear.Identity",
    "Sigmoid": "torch.nn.modules.activation.Sigmoid",
    "Softmax": "torch.nn.modules.activation.Softmax",
}
NUMBERS = {"Identity": "the logit itself", "Sigmoid": "their sigmoid", "Softmax": "their softmax"}
BEFORE_4 = "sbert_ce_default_activation_function"  # of config.json, before version 4


class Activation(NamedTuple):
    """What ``predict`` puts over the logits."""

    name: str  # of a class of torch
    is_said: bool  # or it is the usual one, because no file says any
    key: str  # where it is said, or has to be


def takes_pairs(around: Surroundings, config: Mapping[str, Any]) -> bool:
    """Return whether sentence-transformers saved it as a model that scores two texts."""
    return _activation(around, config) is not None


def check_activation(around: Surroundings, config: Mapping[str, Any], kind: str) -> None:
    """Refuse a CrossEncoder whose ``predict`` has another function over the logits than an answer of the kind has.

    Args:
        around: what stands around the model.
        config: of the model.
        kind: of the task.
    """
    found = _activation(around, config)
    if found is None:
        return
    ours = OURS[kind]
    if found.name not in ours:
        said = f"says {found.name}" if found.is_said else f"says nothing, which means {found.name}"
        wanted = f"Set {found.key} to {PATHS[ours[0]]!r} to take that."
        raise Refused(
            f"teacher: it is a CrossEncoder whose predict() answers with {found.name} of the logits ({found.key} "
            f"{said}), and a package answers with {NUMBERS[ours[0]]}. {wanted}"
        )
    if found.name != ours[0]:
        logger.warning("teacher: predict() of this CrossEncoder answers with logits, a package with their softmax")


def check_pairs(is_scorer: bool, table: Table) -> None:
    """Refuse rows of one text for a model that scores two."""
    if is_scorer and table.pairs is None:
        raise Refused(
            f"{table.source}: its rows hold one text, and the teacher is a CrossEncoder, which scores two. Name the "
            "second with --pair-column."
        )


def _activation(around: Surroundings, config: Mapping[str, Any]) -> Activation | None:
    """Return what a CrossEncoder puts over its logits; None for other models."""
    known = config.get("sentence_transformers")
    is_new = isinstance(known, dict) and "activation_fn" in known
    key = "activation_fn of sentence_transformers in config.json" if is_new else f"{BEFORE_4} in config.json"
    given = [(key, known["activation_fn"] if is_new and isinstance(known, dict) else config.get(BEFORE_4))]
    if around.saved_as == SCORES:
        given.insert(0, (f"activation_fn in {MAIN}", read_main(around.root).get("activation_fn")))
    elif around.saved_as is not None or not given[0][1]:
        return None
    for where, path in given:
        if isinstance(path, str) and path.startswith("torch."):  # others are code, which is not run without trust
            return Activation(path.rsplit(".", 1)[-1], True, where)
    return Activation("Sigmoid" if n_labels_of(config) == 1 else "Identity", False, given[0][0])

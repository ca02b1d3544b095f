"""Which of the teacher's hidden states a run keeps on disk, as its stages ask for them.

Of some layers the mean state of every word (``cached_layers`` of a method's options, evenly spaced), of others the
first token's alone (``first_layers``, exactly those): the teacher reads its own cut of a text, and its first special
token is there whatever the student's vocabulary makes of the words. Both come from one pass of the teacher.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from compressor.batches.teacher_cache import spread_layers
from compressor.training.contract import Depths

if TYPE_CHECKING:
    from compressor.data.table import Table
    from compressor.training.registry import Stage
    from exporters.shape import Shape

logger = logging.getLogger(__name__)
CACHE_BYTES = 4_000_000_000  # of hidden states on disk


class CachedStates(NamedTuple):
    """Numbers of hidden states; 0 is the embedding output."""

    words: tuple[int, ...]
    first: tuple[int, ...]

    def as_inputs(self) -> dict[str, list[int]]:
        """Return what a step depends on, as JSON: of a run that keeps no first states, the words' layers alone."""
        return {"layers": list(self.words), **({"first_layers": list(self.first)} if self.first else {})}


def cached_states(
    stages: "Sequence[Stage]", teacher: "Shape", student: "Shape", table: "Table", max_length: int
) -> CachedStates:
    """Return what the stages ask for, with fewer layers of word states where those would fill the disk.

    Args:
        stages: of the run.
        teacher: its shape.
        student: its shape.
        table: the training rows.
        max_length: of a row in tokens.
    """
    first = first_states(stages, teacher, student)
    wanted = max((stage.wants.word_layers for stage in stages), default=0)
    n_bytes = 2 * len(table) * len(first) * teacher.hidden  # float16
    affordable = max(CACHE_BYTES - n_bytes, 0) // _layer_bytes(table, teacher.hidden, max_length)
    if affordable < wanted:
        logger.warning(
            "teacher: %d of %d layers of hidden states are cached, for more would take over %.0f GB of disk; "
            "--max-rows or --max-length make room", affordable, wanted, CACHE_BYTES / 1e9,
        )  # fmt: skip
    wanted = min(wanted, affordable)
    return CachedStates(spread_layers(teacher.n_passes, wanted) if wanted else (), first)


def first_states(stages: "Sequence[Stage]", teacher: "Shape", student: "Shape") -> tuple[int, ...]:
    """Return the hidden states of which any stage reads the first token's, in order.

    Raises:
        ValueError: if a stage's options do not fit the two depths.
    """
    depths = depths_of(teacher, student)
    found = {layer for stage in stages for layer in stage.loss_options.first_layers(depths)}
    return tuple(sorted(found))


def depths_of(teacher: "Shape", student: "Shape") -> Depths:
    """Return how deep the two models are, and how the student's layers repeat."""
    return Depths(teacher.n_passes, student.layers, student.n_passes, student.passes)


def _layer_bytes(table: "Table", width: int, max_length: int) -> int:
    """Return about how many bytes one layer of word states takes: float16, one state per word."""
    texts = [*table.texts, *(table.pairs or [])]
    n_words = sum(min(int(1.2 * len(text.split())) + 1, max_length) for text in texts)
    return 2 * width * max(n_words, 1)

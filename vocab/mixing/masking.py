"""Mask words for a masked language model whose inputs are cut by two tokenizers (``vocab.mixing.mixed``).

What is chosen is a unit, so that all pieces of a word are masked together and the same words in both streams, the
teacher's mixture and the student's own sequence (arXiv 1909.11687 leaves it open). Per chosen unit BERT's rule: 80 %
are masked, 10 % become random tokens, 10 % stay as they are; all of them are predicted. A piece is predicted, and
replaced, within the vocabulary that cut it. Special tokens, unknown ones, and words that only one cut holds whole are
never chosen. A mixture that ``mix`` shortened may have lost pieces of chosen words at its end.
"""

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from vocab.mixing.cut import Indices, MixedRows
from vocab.mixing.mixed import Mixture, chosen_units, flat_units
from vocab.mixing.units import NO_UNIT, Flags, Integers
from vocab.refused import Refused
from vocab.surfaces import spec_of, special_tokens, vocab_of

IGNORE = -100  # what cross-entropy losses skip by default
UNTOUCHED, MASKED, RANDOM, KEPT = range(4)
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1

Actions = npt.NDArray[np.int8]


def choose(rows: MixedRows, indices: Indices, share: float, rng: np.random.Generator) -> Actions:
    """Return what to do with each unit of the chosen rows, laid end to end.

    Of the n choosable units of a row ``share * n`` are chosen, rounded up or down at random so that the mean is exact,
    but at least one (where there is one, and ``share`` is not 0). The random numbers used do not depend on ``share``.

    Returns:
        (units,) 0 untouched, 1 masked, 2 replaced at random, 3 kept as it is but predicted.

    Raises:
        ValueError: if ``share`` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise Refused(f"masking: share={share} is not between 0 and 1.")
    places, unit_starts = chosen_units(rows, indices)
    n_units = np.diff(unit_starts)
    row_of_unit = np.repeat(np.arange(len(n_units)), n_units)
    is_choosable = rows.is_maskable[places]
    rounding, rank_draws, action_draws = rng.random(len(n_units)), rng.random(len(places)), rng.random(len(places))

    n_choosable = np.bincount(row_of_unit[is_choosable], minlength=len(n_units))
    n_chosen = np.floor(share * n_choosable + rounding).astype(np.int64)
    n_chosen = np.minimum(np.maximum(n_chosen, int(share > 0)), n_choosable)
    # The choosable units of each row in random order, then the others: the first n_chosen of each row are it.
    order = np.lexsort((rank_draws, ~is_choosable, row_of_unit))
    rank = np.empty(len(places), np.int64)
    rank[order] = np.arange(len(places)) - unit_starts[row_of_unit]
    is_chosen = rank < n_chosen[row_of_unit]

    action = np.where(action_draws < MASKED_SHARE, MASKED, KEPT)
    is_random = (action_draws >= MASKED_SHARE) & (action_draws < MASKED_SHARE + RANDOM_SHARE)
    action[is_random] = RANDOM
    return np.where(is_chosen, action, UNTOUCHED).astype(np.int8)


def apply(
    ids: npt.NDArray[np.integer],
    units_flat: Integers,
    actions: Actions,
    mask_id: int,
    pool: Integers,
    rng: np.random.Generator,
) -> tuple[Integers, Integers]:
    """Return the input ids and the labels of one tokenizer's pieces.

    Args:
        ids: (pieces,) for the student's stream those of ``select(rows.student, indices)``.
        units_flat: (pieces,) index into ``actions``, as ``vocab.mixing.mixed.flat_units`` returns it; -1 for special
        tokens.
        actions: (units,) of ``choose``.
        mask_id: id of the mask token.
        pool: ids that random replacements are taken from, as ``replacement_pool`` returns them.
        rng: of the replacements.

    Returns:
        ids and labels, (pieces,) each; the label is ``IGNORE`` where nothing is predicted.

    Raises:
        ValueError: if a replacement is needed and the pool is empty.
    """
    return _apply(ids, units_flat, actions, mask_id, [(np.ones(len(ids), np.bool_), pool)], rng)


def mask_mixture(
    mixture: Mixture,
    unit_starts: Integers,
    actions: Actions,
    mask_id: int,
    pools: tuple[Integers, Integers],
    rng: np.random.Generator,
) -> tuple[Integers, Integers]:
    """Return the input ids and the labels of mixtures; a label is below n_student exactly where the student's piece is.

    Args:
        mixture: of ``mix``.
        unit_starts: (rows + 1,) of the same rows, the second value of ``vocab.mixing.mixed.chosen_units``.
        actions: (units,) of ``choose`` for the same rows.
        mask_id: in the mixture's ids: for the teacher's mask token ``n_student`` + its id.
        pools: ids for random replacements of the student's pieces and of the teacher's, in the mixture's ids.
        rng: of the replacements.
    """
    student_pool, teacher_pool = pools
    parts = [(mixture.is_student, student_pool), (~mixture.is_student, teacher_pool)]
    return _apply(mixture.ids, flat_units(mixture, unit_starts), actions, mask_id, parts, rng)


def replacement_pool(tokenizer: Tokenizer, offset: int = 0) -> Integers:
    """Return the ids of all tokens but the special ones and the reserved [unused0], [unused1] and so on.

    Args:
        tokenizer: the student's or the teacher's.
        offset: added to every id; ``n_student`` for a teacher's in a mixture.
    """
    spec = spec_of(tokenizer)
    avoided = set(special_tokens(spec))
    ids = [id_ for token, id_ in vocab_of(spec).items() if token not in avoided and not token.startswith("[unused")]
    return np.array(sorted(ids), np.int64) + offset


def _apply(
    ids: npt.NDArray[np.integer],
    units_flat: Integers,
    actions: Actions,
    mask_id: int,
    parts: list[tuple[Flags, Integers]],
    rng: np.random.Generator,
) -> tuple[Integers, Integers]:
    """Mask pieces; each part of them takes its random replacements from its own pool."""
    of_piece = np.where(units_flat == NO_UNIT, UNTOUCHED, np.append(actions, UNTOUCHED)[units_flat])
    originals = ids.astype(np.int64)
    labels = np.where(of_piece == UNTOUCHED, IGNORE, originals)
    masked = np.where(of_piece == MASKED, mask_id, originals)
    for is_part, pool in parts:
        replaced = np.flatnonzero((of_piece == RANDOM) & is_part)
        if not len(replaced):
            continue
        if not len(pool):
            raise Refused("masking: the pool of random replacements is empty. Give the ids of ordinary tokens.")
        masked[replaced] = pool[rng.integers(len(pool), size=len(replaced))]
    return masked, labels

"""The rows of a run: to train on, to evaluate on, to choose on; and how many tokens of them a student reads."""

import math

import numpy as np
from tokenizers import Tokenizer

from compressor.data import splits
from compressor.data.splits import read_rows
from compressor.data.table import Table
from compressor.models.teacher import TeacherInfo
from compressor.models.vocabulary import GivenVocabulary
from compressor.recipe.recipe import Recipe
from compressor.refused import Refused

LENGTH_ROWS = 2000  # rows that decide the maximum length
LENGTH_QUANTILE = 0.999
FINER_CUT = 1.3  # tokens of a small vocabulary per token of the teacher's, generously
MIN_LENGTH = 32
TUNED_ON = 0.1  # of the training rows, for tasks that choose thresholds on them
HELD_OUT = 0.05  # for all others, to choose an epoch on
FEWEST_HELD_OUT, MOST_HELD_OUT, MOST_TUNED_ON = 20, 1000, 2000
FEWEST_OF_CLASS = 20  # training rows a class, below which none are spared


def read_data(recipe: Recipe, info: TeacherInfo, reads_labels: bool) -> tuple[Table, Table, Table | None]:
    """Return rows to train on, to evaluate on and to choose on; labels are checked against the teacher's."""
    section, needs_label = recipe.data, info.answers.needs_labels
    needs = needs_label and (reads_labels or section.eval is None), needs_label
    several = info.labels if info.answers.several_labels else None
    train, evaluation = read_rows(
        section, recipe.seed, offline=recipe.teacher.offline, needs_label=needs, several=several
    )
    if (train.pairs is None) != (evaluation.pairs is None) and needs_label:
        raise Refused(
            f"data: {section.train} holds {'one text' if train.pairs is None else 'two texts'} per row and "
            f"{section.eval} does not. Name the columns with --text-column and --pair-column."
        )
    for table in (train, evaluation):
        info.spec(pair=table.pairs is not None).targets(table)  # labels that the teacher does not know are refused
    info.answers.check_training(train)
    share = held_out_share(
        train, tunes=info.answers.tunes, n_classes=len(info.labels) if info.answers.has_one_class else 0
    )
    if share == 0 or not (recipe.stage or info.answers.tunes):  # what is not trained has no epoch to choose
        return train, evaluation, None
    if info.answers.tunes:
        together = [train, evaluation] if train.source == evaluation.source else [train]
        train, *rest = info.spec(pair=train.pairs is not None).settled(together)
        evaluation = rest[0] if rest else evaluation
    train, held_out = splits.split_holdout(train, share, recipe.seed)
    return train, evaluation, held_out


def held_out_share(train: Table, *, tunes: bool, n_classes: int) -> float:
    """Return which share of the training rows is held out to choose on; 0 where there are too few.

    Args:
        train: the rows.
        tunes: thresholds are chosen on them too, for which they need labels.
        n_classes: of which a row has one; 0: none.
    """
    share, most = (TUNED_ON, MOST_TUNED_ON) if tunes else (HELD_OUT, MOST_HELD_OUT)
    is_short = len(train) * share < FEWEST_HELD_OUT or len(train) < FEWEST_OF_CLASS * n_classes
    return 0.0 if is_short or (tunes and train.labels is None) else min(share, most / len(train))


def fitting_length(
    recipe: Recipe, longest: int, train: Table, tokenizer: Tokenizer, vocabulary: GivenVocabulary | None
) -> int:
    """Cover all but one in a thousand rows, with room for the finer cut of a small vocabulary that is not there yet."""
    from compressor.batches.encoded import encode_rows

    sample = splits.subset(train, min(LENGTH_ROWS, len(train)), recipe.seed)
    lengths = encode_rows(vocabulary.tokenizer if vocabulary else tokenizer, sample, longest).lengths
    finer = 1.0 if recipe.vocab.size == 0 or vocabulary else FINER_CUT
    return int(min(longest, max(MIN_LENGTH, math.ceil(np.quantile(lengths, LENGTH_QUANTILE) * finer / 8) * 8)))

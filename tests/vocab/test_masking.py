"""Masking words of two tokenisations: the same words in both streams, each piece within its own vocabulary."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.vocab_teachers import AWKWARD, AWKWARD_TEXTS, LINES, student, teacher
from vocab.mixing.cut import select
from vocab.mixing.masking import IGNORE, KEPT, MASKED, RANDOM, UNTOUCHED, apply, choose, mask_mixture, replacement_pool
from vocab.mixing.mixed import MixedTokenizer, chosen_units, draw, flat_units, mix

PAIRINGS = {
    "bert to wordpiece": ("bert", "wordpiece"),
    "roberta to unigram": ("roberta", "unigram"),
    "xlmr to wordpiece": ("xlmr", "wordpiece"),
}


@cache
def pairing(name):
    ours, kind = PAIRINGS[name]
    return teacher(ours), student(ours, kind), MixedTokenizer(teacher(ours), student(ours, kind))


def mask_id(tokenizer):
    return next(id_ for name in ("[MASK]", "<mask>") if (id_ := tokenizer.token_to_id(name)) is not None)


def masked_streams(name, texts, pairs=None, share=0.15, seed=0):
    """Return everything about one batch: rows, actions, mixture, student's cut, and ids and labels of both streams."""
    ours, theirs, both = pairing(name)
    rng = np.random.default_rng(seed)
    rows = both.encode(texts, pairs)
    indices = np.arange(len(texts))
    _, unit_starts = chosen_units(rows, indices)
    mixture = mix(rows, indices, draw(rows, indices, 0.5, rng), both.n_student)
    actions = choose(rows, indices, share, rng)
    pools = replacement_pool(theirs), replacement_pool(ours, both.n_student)
    of_mixture = mask_mixture(mixture, unit_starts, actions, both.n_student + mask_id(ours), pools, rng)
    cut = select(rows.student, indices)
    units = flat_units(cut, unit_starts)
    of_student = apply(cut.ids, units, actions, mask_id(theirs), pools[0], rng)
    return rows, actions, (mixture, flat_units(mixture, unit_starts), *of_mixture), (cut, units, *of_student)


# --- what is chosen


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_the_share_of_chosen_words_is_exact_on_average(share):
    _, _, both = pairing("bert to wordpiece")
    rows = both.encode(LINES * 200)
    actions = choose(rows, np.arange(len(rows.n_units)), share, np.random.default_rng(0))
    n_words = int(rows.is_maskable.sum())
    assert n_words > 20_000
    # Rounded per row, the number varies less than if each word were drawn for itself.
    assert abs((actions > 0).sum() / n_words - share) <= 4 * np.sqrt(share * (1 - share) / n_words)


def test_chosen_words_are_spread_over_the_row():
    _, _, both = pairing("bert to wordpiece")
    rows = both.encode(["the film is a wonderful story and it moves people"] * 4000)
    chosen = choose(rows, np.arange(4000), 0.3, np.random.default_rng(0)).reshape(4000, -1) > 0
    places = np.flatnonzero(rows.is_maskable[: rows.unit_starts[1]])
    assert len(places) == 10 and (chosen.sum(axis=1) == 3).all()
    assert np.abs(chosen[:, places].mean(axis=0) - 0.3).max() <= 4 * np.sqrt(0.3 * 0.7 / 4000)


def test_of_the_chosen_eight_in_ten_are_masked_and_one_in_ten_is_random():
    _, _, both = pairing("bert to wordpiece")
    rows = both.encode(LINES * 200)
    actions = choose(rows, np.arange(len(rows.n_units)), 0.5, np.random.default_rng(1))
    chosen = actions[actions > 0]
    for action, share in ((MASKED, 0.8), (RANDOM, 0.1), (KEPT, 0.1)):
        assert abs((chosen == action).mean() - share) <= 4 * np.sqrt(share * (1 - share) / len(chosen))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(PAIRINGS)),
    texts=st.lists(AWKWARD, min_size=1, max_size=5),
    share=st.sampled_from([0.0, 0.01, 0.15, 0.9, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_each_row_has_a_chosen_word_and_only_choosable_ones(name, texts, share, seed):
    _, _, both = pairing(name)
    rows = both.encode(texts)
    actions = choose(rows, np.arange(len(texts)), share, np.random.default_rng(seed))
    assert actions.dtype == np.int8
    assert not actions[~rows.is_maskable].any()
    for first, last in pairwise(rows.unit_starts.tolist()):
        n_choosable, n_chosen = int(rows.is_maskable[first:last].sum()), int((actions[first:last] > 0).sum())
        least = min(n_choosable, max(int(share > 0), int(share * n_choosable)))
        assert least <= n_chosen <= min(n_choosable, int(share * n_choosable) + 1)
    if share == 0:
        assert not actions.any()
    if share == 1:
        assert ((actions > 0) == rows.is_maskable).all()


def test_the_generator_goes_on_alike_whatever_the_share():
    _, _, both = pairing("bert to wordpiece")
    rows = both.encode(LINES)
    found = set()
    for share in (0.0, 0.15, 1.0):
        rng = np.random.default_rng(5)
        choose(rows, np.arange(len(LINES)), share, rng)
        found.add(rng.random())
    assert len(found) == 1


def test_chosen_rows_are_laid_end_to_end():
    _, _, both = pairing("bert to wordpiece")
    rows = both.encode(LINES)
    indices = [4, 4, 0]
    actions = choose(rows, indices, 1.0, np.random.default_rng(0))
    places, _ = chosen_units(rows, indices)
    np.testing.assert_array_equal(actions > 0, rows.is_maskable[places])


# --- what becomes of the pieces


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(PAIRINGS)),
    rows=st.lists(st.tuples(AWKWARD, AWKWARD), min_size=1, max_size=5),
    has_pairs=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_the_same_words_are_predicted_in_both_streams_and_whole(name, rows, has_pairs, seed):
    pairs = [row[1] for row in rows] if has_pairs else None
    _, actions, *streams = masked_streams(name, [row[0] for row in rows], pairs, 0.4, seed)
    predicted = set(np.flatnonzero(actions > 0).tolist())
    for each, units, ids, labels in streams:
        is_predicted = labels != IGNORE
        assert set(units[is_predicted].tolist()) == predicted
        assert not set(units[~is_predicted].tolist()) & predicted
        assert not (is_predicted & each.is_special).any()
        np.testing.assert_array_equal(labels[is_predicted], each.ids[is_predicted])
        np.testing.assert_array_equal(ids[~is_predicted], each.ids[~is_predicted])


@pytest.mark.parametrize("name", PAIRINGS)
def test_each_piece_is_predicted_and_replaced_in_its_own_vocabulary(name):
    ours, theirs, both = pairing(name)
    _, actions, of_mixture, of_student = masked_streams(name, AWKWARD_TEXTS * 20, share=0.5)
    mixture, units, ids, labels = of_mixture
    is_predicted = labels != IGNORE
    assert ((labels < both.n_student) == mixture.is_student)[is_predicted].all()
    action = np.where(units < 0, UNTOUCHED, actions[units])
    assert (ids[action == MASKED] == both.n_student + mask_id(ours)).all()
    np.testing.assert_array_equal(ids[action == KEPT], mixture.ids[action == KEPT])
    is_random = action == RANDOM
    assert ((ids < both.n_student) == mixture.is_student)[is_random].all()
    assert set(ids[is_random & mixture.is_student].tolist()) <= set(replacement_pool(theirs).tolist())
    assert set((ids[is_random & ~mixture.is_student] - both.n_student).tolist()) <= set(replacement_pool(ours).tolist())
    assert len(set(ids[is_random].tolist())) > 100  # many tokens, not one

    cut, units, ids, labels = of_student
    action = np.where(units < 0, UNTOUCHED, actions[units])
    assert (ids[action == MASKED] == mask_id(theirs)).all()
    assert set(ids[action == RANDOM].tolist()) <= set(replacement_pool(theirs).tolist())
    assert labels.max() < both.n_student
    assert (cut.ids[action == KEPT] == ids[action == KEPT]).all()


@pytest.mark.parametrize("name", PAIRINGS)
def test_unknown_and_special_tokens_are_never_predicted(name):
    ours, theirs, both = pairing(name)
    texts = [*AWKWARD_TEXTS, "the \U00010348 [MASK] film", "<mask> film </s>"]
    _, _, (_, _, _, labels), (_, _, _, student_labels) = masked_streams(name, texts, share=1.0)
    predicted = set(labels[labels != IGNORE].tolist())
    of_ours = {id_ - both.n_student for id_ in predicted if id_ >= both.n_student}
    of_theirs = {id_ for id_ in predicted if id_ < both.n_student} | set(
        student_labels[student_labels != IGNORE].tolist()
    )
    assert of_ours <= set(replacement_pool(ours).tolist()) | unused(ours)
    assert of_theirs <= set(replacement_pool(theirs).tolist())


def unused(tokenizer):
    return {id_ for token, id_ in tokenizer.get_vocab().items() if token.startswith("[unused")}


def test_the_seed_decides():
    first, again, other = (masked_streams("bert to wordpiece", LINES, seed=seed)[2][2] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


# --- pools and refusals


def test_a_pool_is_every_ordinary_token():
    ours, theirs, _ = pairing("bert to wordpiece")
    pool = replacement_pool(ours)
    assert len(pool) == ours.get_vocab_size() - 5 - 99  # the special ones, and those that stand for nothing
    tokens = {ours.id_to_token(id_) for id_ in pool.tolist()}
    assert not tokens & {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused3]"}
    np.testing.assert_array_equal(replacement_pool(ours, 650), pool + 650)
    assert len(replacement_pool(theirs)) == theirs.get_vocab_size() - 5


def test_wrong_arguments_are_refused():
    _, _, both = pairing("bert to wordpiece")
    rows = both.encode(LINES)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"share=-0\.1 is not between 0 and 1"):
        choose(rows, [0], -0.1, rng)
    ids, actions = np.arange(4), np.array([RANDOM], np.int8)
    with pytest.raises(ValueError, match="the pool of random replacements is empty"):
        apply(ids, np.zeros(4, np.int64), actions, 3, np.zeros(0, np.int64), rng)


def test_no_rows_are_no_rows():
    _, _, (_, _, ids, labels), _ = masked_streams("bert to wordpiece", [])
    assert len(ids) == len(labels) == 0

"""The losses against definitions written out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.batches.pooling import word_means
from compressor.scoring.losses import cosine_distance, similarity_mse, soft_cross_entropy, unit_distance


def test_soft_cross_entropy_is_zero_for_equal_logits_and_its_gradient_too() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = soft_cross_entropy(logits, logits.detach(), temperature=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6


def test_soft_cross_entropy_equals_the_formula() -> None:
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    temperature = 3.0
    p, q = F.softmax(teacher / temperature, -1), F.softmax(student / temperature, -1)
    theirs = temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()
    torch.testing.assert_close(soft_cross_entropy(student, teacher, temperature), theirs)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.randoms(use_true_random=False))
def test_word_means_equal_a_loop_over_words(n_rows: int, n_tokens: int, n_words: int, random: object) -> None:
    rng = np.random.default_rng(random.randrange(10**6))  # type: ignore[attr-defined]
    hidden = torch.from_numpy(rng.normal(size=(n_rows, n_tokens, 4)))
    words = torch.from_numpy(rng.integers(-1, n_words, size=(n_rows, n_tokens)))
    ours, present = word_means(hidden, words, n_words)
    for row in range(n_rows):
        for word in range(n_words):
            members = hidden[row][words[row] == word]
            assert bool(present[row, word]) == (len(members) > 0)
            if len(members):
                torch.testing.assert_close(ours[row, word], members.mean(0))


def test_unit_distance_is_the_squared_distance_of_unit_vectors() -> None:
    ours, theirs = torch.randn(7, 8), torch.randn(7, 8)
    units = [torch.nn.functional.normalize(each, dim=-1) for each in (ours, theirs)]
    expected = (units[0] - units[1]).square().sum(-1).mean()
    torch.testing.assert_close(unit_distance(ours, theirs), expected)
    assert unit_distance(ours, 5 * ours).item() == pytest.approx(0.0, abs=1e-6)
    assert unit_distance(ours, -ours).item() == pytest.approx(4.0, abs=1e-5)


def test_unit_distance_of_nothing_is_zero_and_finite() -> None:
    states = torch.randn(0, 8, requires_grad=True)
    loss = unit_distance(states, torch.randn(0, 8))
    loss.backward()
    assert loss.item() == 0.0
    assert states.grad is not None and torch.isfinite(states.grad).all()


def test_embedding_losses_are_zero_for_equal_directions() -> None:
    vectors = torch.randn(6, 5)
    assert cosine_distance(vectors * 3, vectors).item() == pytest.approx(0.0, abs=1e-6)
    assert similarity_mse(vectors @ torch.linalg.qr(torch.randn(5, 5)).Q, vectors).item() == pytest.approx(
        0.0, abs=1e-9
    )

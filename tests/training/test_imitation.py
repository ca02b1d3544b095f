"""What one model imitates of another word by word: states and attention, live or from a cache."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from compressor.batches.pooling import word_attention
from compressor.scoring.contract import Weights
from compressor.scoring.losses import word_kl
from compressor.training.imitation import Imitation, live_states
from tests.support.method_cases import TEACHER_HIDDEN, context_of

WORDS = torch.tensor([[0, 1, 1, 2, -1, -1], [0, 1, 2, 2, 3, -1]])


def output(words: torch.Tensor, width: int = TEACHER_HIDDEN, seed: int = 0, n_states: int = 4) -> BaseModelOutput:
    """Return random states and attention for the tokens of ``words``; padding gets and gives none."""
    generator = torch.Generator().manual_seed(seed)
    n_rows, n_tokens = words.shape
    states = tuple(torch.randn(n_rows, n_tokens, width, generator=generator) for _ in range(n_states))
    scores = torch.randn(n_rows, 2, n_tokens, n_tokens, generator=generator)
    return BaseModelOutput(hidden_states=states, attentions=(scores.softmax(-1),))


def imitation(weights: Weights, width: int = TEACHER_HIDDEN, layers: tuple[int, ...] = (1, 3)) -> Imitation:
    torch.manual_seed(0)
    return Imitation(context_of(), weights, width=width, n_layers=3, layers=layers)


def test_a_model_that_imitates_itself_has_no_loss() -> None:
    theirs = output(WORDS)
    terms = imitation(Weights(hidden=1.0, attention=1.0)).state_terms(theirs, WORDS, live_states(theirs, WORDS, (1, 3)))
    assert terms["hidden"].item() == pytest.approx(0.0, abs=1e-6)
    assert terms["attention"].item() == pytest.approx(0.0, abs=1e-6)


def test_another_cut_of_the_same_words_with_the_same_states_has_no_loss() -> None:
    """One token per word here, up to three there: a word's state is the mean of its tokens'."""
    ours, coarse = output(torch.arange(4).expand(2, -1)), torch.arange(4).expand(2, -1)
    fine = torch.tensor([[0, 1, 1, 1, 2, 3, -1], [0, 1, 2, 2, 3, 3, -1]])
    spread = tuple(
        torch.stack([state[row][fine[row].clamp(min=0)] for row in range(2)]) for state in ours.hidden_states or ()
    )
    theirs = BaseModelOutput(hidden_states=spread)
    terms = imitation(Weights(hidden=1.0)).state_terms(ours, coarse, live_states(theirs, fine, (1, 3)))
    assert terms["hidden"].item() == pytest.approx(0.0, abs=1e-6)


def test_words_that_only_one_model_has_do_not_count() -> None:
    theirs = output(WORDS)
    live = live_states(theirs, WORDS, (1, 3))
    shorter = WORDS.masked_fill(WORDS >= 2, -1)
    terms = imitation(Weights(hidden=1.0, attention=1.0)).state_terms(theirs, shorter, live)
    assert terms["hidden"].item() == pytest.approx(0.0, abs=1e-6)
    assert terms["attention"].item() == pytest.approx(0.0, abs=1e-6)


def test_live_states_are_means_over_words_without_a_gradient() -> None:
    theirs = output(WORDS)
    states = [state.requires_grad_() for state in theirs.hidden_states or ()]
    live = live_states(theirs, WORDS, (1, 3))
    assert live["teacher_units"].tolist() == [[0, 1, 2, -1], [0, 1, 2, 3]]
    assert not any(tensor.requires_grad for tensor in live.values())
    torch.testing.assert_close(live["teacher_states"][0, 1, 1], states[3][0, 1:3].mean(0))
    torch.testing.assert_close(live["teacher_states"][1, 2, 0], states[1][1, 2:4].mean(0))
    assert live["teacher_states"].shape == (2, 4, 2, TEACHER_HIDDEN)
    assert live["teacher_attention"].shape == (2, 4, 4)


def test_attention_alone_needs_no_states() -> None:
    theirs = output(WORDS)
    live = live_states(theirs, WORDS, ())
    assert live.keys() == {"teacher_units", "teacher_attention"}
    assert imitation(Weights(hidden=1.0, attention=1.0)).state_terms(theirs, WORDS, live).keys() == {"attention"}


def test_terms_of_factor_0_are_not_there_and_factors_multiply() -> None:
    ours, theirs = output(WORDS, seed=1), output(WORDS)
    live = live_states(theirs, WORDS, (1, 3))
    assert imitation(Weights()).state_terms(ours, WORDS, live) == {}
    once = imitation(Weights(hidden=1.0, attention=1.0)).state_terms(ours, WORDS, live)
    thrice = imitation(Weights(hidden=3.0, attention=3.0)).state_terms(ours, WORDS, live)
    for name, value in once.items():
        assert value > 0
        torch.testing.assert_close(thrice[name], 3 * value)


@pytest.mark.parametrize(("width", "n_projections"), [(TEACHER_HIDDEN, 0), (16, 2)])
def test_another_width_has_a_map_per_layer(width: int, n_projections: int) -> None:
    made = imitation(Weights(hidden=1.0), width)
    assert sum(isinstance(each, torch.nn.Linear) for each in made.projections) == n_projections
    assert not list(imitation(Weights(logits=1.0), width).parameters())  # what no term needs is not there
    ours = output(WORDS, width, seed=1)
    assert made.state_terms(ours, WORDS, live_states(output(WORDS), WORDS, (1, 3)))["hidden"] > 0


@pytest.mark.parametrize(("n_layers", "wanted"), [(3, [1, 3]), (6, [2, 6]), (1, [1, 1]), (2, [1, 2])])
def test_a_layer_stands_beside_that_of_the_same_depth(n_layers: int, wanted: list[int]) -> None:
    made = Imitation(context_of(), Weights(hidden=1.0), width=8, n_layers=n_layers, layers=(1, 3))
    assert made.layers == wanted


def test_attention_between_words_is_by_hand() -> None:
    """One head sure of itself, one undecided, over the tokens [CLS] un|able [SEP]: the last belongs to no word."""
    sure = [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0.25, 0.25, 0, 0.5], [0, 0, 0, 1]]
    undecided = [[0.25] * 4] * 4
    attention = torch.tensor([[sure, undecided]])  # (1, heads, tokens, tokens)
    words = torch.tensor([[0, 1, 1, -1]])
    # [CLS] looks at itself (1 + .25) / 2 and at the word (0 + .5) / 2; the word's two pieces are averaged.
    wanted = [[0.625, 0.25], [(0 + 0.25 + 0.25 + 0.25) / 4, (1 + 0.25 + 0.5 + 0.5) / 4]]
    torch.testing.assert_close(word_attention(attention, words, 2), torch.tensor([wanted]))
    more = word_attention(attention, words, 3)
    assert more.shape == (1, 3, 3) and not more[:, 2].any() and not more[:, :, 2].any()
    assert word_attention(attention, words, 1).tolist() == [[[0.625]]]  # words beyond are left out


def test_attention_of_a_word_sums_to_1_where_every_token_has_a_word() -> None:
    words = torch.tensor([[0, 1, 1, 2, 3, 3]])
    attention = torch.randn(1, 3, 6, 6).softmax(-1)
    torch.testing.assert_close(word_attention(attention, words, 4).sum(-1), torch.ones(1, 4))


def test_the_divergence_of_attention_is_by_hand() -> None:
    ours = torch.tensor([[[0.5, 0.5], [0.1, 0.3]]])
    theirs = torch.tensor([[[0.25, 0.75], [0.2, 0.2]]])
    first = 0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.5).log()  # .25 log(.25/.5) + .75 log(.75/.5)
    second = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()  # rows are brought to sum 1 first
    torch.testing.assert_close(word_kl(ours, theirs), (first + second) / 2)


def test_equal_attention_has_no_divergence_and_no_gradient() -> None:
    ours = torch.rand(2, 4, 4).requires_grad_()
    loss = word_kl(ours, ours.detach() * 0.5)  # what goes to tokens without a word does not count
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert ours.grad is not None and ours.grad.abs().max() < 1e-6


def test_attention_to_words_that_one_model_lacks_is_no_difference() -> None:
    theirs = torch.rand(1, 4, 4)
    ours = theirs.clone()
    ours[:, 3] = 0  # our cut of the text ends before the last word
    ours[:, :, 3] = 0
    assert word_kl(ours, theirs).item() == pytest.approx(0.0, abs=1e-6)
    assert word_kl(theirs, ours).item() == pytest.approx(0.0, abs=1e-6)
    assert word_kl(torch.zeros(1, 4, 4), theirs).item() == 0.0

"""Encoders whose layers run more than once: the invariants of Pea-KD's parameter sharing (2009.14822), one by one."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from compressor.models.families import config_numbers, shape_of
from exporters.repeats import PLACES, Exchanged, n_passes, pattern
from exporters.repetition import REPEATS, check_pattern, describe, plain_config
from tests.support.repeated_models import (
    FAMILIES,
    HIDDEN,
    LAYERS,
    N_TOKENS,
    batch_of,
    layers_of,
    plain_model,
    recorded_scores,
    repeated,
    unrolled,
)
from tests.support.tiny import tiny_tokenizer

NAMED = st.sampled_from(REPEATS)
KEYS = {**dict.fromkeys(FAMILIES, ("query", "key")), "distilbert": ("q_lin", "k_lin")}


@given(NAMED, st.integers(1, 12), st.booleans())
def test_every_named_pattern_is_one_that_a_configuration_takes(repeat: str, n_layers: int, exchange: bool) -> None:
    found = pattern(repeat, n_layers, exchange)
    assert check_pattern(*found, n_layers) == found
    runs = {layer: [flag for each, flag in zip(*found, strict=True) if each == layer] for layer in range(n_layers)}
    assert all(flags[0] is False and flags[1:] == [exchange] * (len(flags) - 1) for flags in runs.values())
    assert all(len(flags) == (1 if repeat == "none" else 2) for flags in runs.values()) or repeat.endswith("half")


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), min_size=1))))
def test_a_list_names_what_runs_after_all_have_run_once(drawn: tuple[int, list[int]]) -> None:
    n_layers, again = drawn
    found = pattern(again, n_layers)
    assert list(found.passes) == [*range(n_layers), *again]
    assert found.exchanged == (False,) * n_layers + (True,) * len(again)


def test_published_patterns_are_those_of_the_paper() -> None:
    assert pattern("all", 3) == ((0, 1, 2, 0, 1, 2), (False,) * 3 + (True,) * 3)
    assert pattern("top_half", 6).passes == (0, 1, 2, 3, 4, 5, 3, 4, 5)
    assert pattern("bottom_half", 6).passes == (0, 1, 2, 3, 4, 5, 0, 1, 2)
    assert pattern("mirror", 3).passes == (0, 1, 2, 2, 1, 0)
    assert pattern("immediate", 3) == ((0, 0, 1, 1, 2, 2), (False, True) * 3)
    assert describe(pattern("mirror", 2)) == "0 1 1' 0'"


@pytest.mark.parametrize(
    ("passes", "exchanged", "sentence"),
    [
        ([0, 1, 0], [False], r"exchanged has 1 entries, expected 3, one for each of passes=\[0, 1, 0\]"),
        ([0, 1, 2], [False] * 3, r"expected layers of 0 to 1 and true or false. Correct 2\."),
        ([0, True], [False] * 2, r"Correct True\."),
        ([0, 1], [False, 1], r"Correct 1\."),
        ([1, 0], [False] * 2, r"expected each of the 2 stored layers, and their first runs in the order 0, 1"),
        ([0, 0], [False] * 2, r"expected each of the 2 stored layers"),
        ([], [], r"expected each of the 2 stored layers"),
    ],
)
def test_a_configuration_refuses_what_is_no_pattern(passes: list[Any], exchanged: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AutoConfig.for_model("repeated-bert", num_hidden_layers=2, passes=passes, exchanged=exchanged)


@pytest.mark.parametrize("model_type", sorted(PLACES))
def test_weights_have_the_names_and_shapes_of_the_plain_model(model_type: str) -> None:
    plain = plain_model(model_type)
    model = repeated(plain, "all")
    ours, theirs = ({name: each.shape for name, each in m.state_dict().items()} for m in (model, plain))
    assert ours == theirs
    assert sum(each.numel() for each in model.parameters()) == sum(each.numel() for each in plain.parameters())
    assert model.config.num_hidden_layers == LAYERS and n_passes(model.config) == 2 * LAYERS
    assert type(model).__name__ == f"Repeated{type(plain).__name__}"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_an_exchanged_pass_transposes_what_attention_weighs(model_type: str) -> None:
    model = repeated(plain_model(model_type), "none")
    layer, states = layers_of(model)[0], torch.randn(2, 5, HIDDEN)
    with recorded_scores(model) as scores:
        layer(states, None)
        Exchanged(layer, PLACES[model_type])(states, None)
    torch.testing.assert_close(scores[1], scores[0].transpose(-1, -2), atol=1e-6, rtol=0)
    assert not torch.allclose(scores[1], scores[0])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_exchanging_twice_changes_nothing(model_type: str) -> None:
    layer, states = layers_of(plain_model(model_type))[0], torch.randn(2, 5, HIDDEN)
    place = PLACES[model_type]
    before = list(layer.state_dict())
    once = Exchanged(layer, place)
    twice = Exchanged(once, place)  # type: ignore[arg-type]
    assert torch.equal(twice(states, None), layer(states, None))
    assert not torch.equal(once(states, None), layer(states, None))
    with pytest.raises((AttributeError, TypeError)):
        once(None, None)  # an error leaves the layer as it was
    assert list(layer.state_dict()) == before and torch.equal(twice(states, None), layer(states, None))


@pytest.mark.parametrize("model_type", sorted(PLACES))
@pytest.mark.parametrize("repeat", ["all", "mirror", "immediate", [1]])
def test_without_exchange_it_is_the_deeper_model_with_tied_layers_bit_for_bit(model_type: str, repeat: Any) -> None:
    plain = plain_model(model_type)
    ours = repeated(plain, repeat, exchange=False)
    theirs = unrolled(ours, repeat, is_tied=True)
    with torch.no_grad():
        our_output, their_output = (model(**batch_of(), output_hidden_states=True) for model in (ours, theirs))
    assert torch.equal(our_output.logits, their_output.logits)
    assert len(our_output.hidden_states) == n_passes(ours.config) + 1
    for our_state, their_state in zip(our_output.hidden_states, their_output.hidden_states, strict=True):
        assert torch.equal(our_state, their_state)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_all_passes_return_their_attention(model_type: str) -> None:
    model = repeated(plain_model(model_type), "top_half")
    model.set_attn_implementation("eager")
    assert len(model(**batch_of(), output_attentions=True).attentions) == n_passes(model.config) == LAYERS + 1


@pytest.mark.parametrize("model_type", FAMILIES)
def test_equal_queries_and_keys_make_the_exchange_nothing(model_type: str) -> None:
    plain = plain_model(model_type)
    query, key = KEYS[model_type]
    state = plain.state_dict()
    plain.load_state_dict({name: state[name.replace(f".{key}.", f".{query}.")] for name in state})
    with torch.no_grad():
        ours, theirs = (repeated(plain, "all", flag)(**batch_of()).logits for flag in (True, False))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_gradient_of_a_stored_weight_is_the_sum_over_its_passes(model_type: str) -> None:
    ours = repeated(plain_model(model_type).double(), "all")
    deep = unrolled(ours, "all", is_tied=False)
    query, key = KEYS[model_type]
    for layer in layers_of(deep)[LAYERS:]:  # what the exchange does, done to the weights
        state = {name: each.clone() for name, each in layer.state_dict().items()}
        swapped = {name: name.replace(query, "?").replace(key, query).replace("?", key) for name in state}
        layer.load_state_dict({name: state[swapped[name]] for name in state})
    for model in (ours, deep):
        model(**batch_of()).logits.square().sum().backward()
    for index, layer in enumerate(layers_of(deep)[:LAYERS]):
        again = dict(layers_of(deep)[LAYERS + index].named_parameters())
        stored = dict(layers_of(ours)[index].named_parameters())
        for name, parameter in layer.named_parameters():
            other = name.replace(query, "?").replace(key, query).replace("?", key)
            torch.testing.assert_close(stored[name].grad, parameter.grad + again[other].grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model_type", sorted(PLACES))
def test_saving_and_loading_keeps_the_passes_and_the_outputs(model_type: str, tmp_path: Path) -> None:
    model = repeated(plain_model(model_type), "mirror")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model) and describe(pattern("mirror", LAYERS)) == "0 1 1' 0'"
    assert (loaded.config.passes, loaded.config.exchanged) == ([0, 1, 1, 0], [False, False, True, True])
    with torch.no_grad():
        assert torch.equal(loaded(**batch_of()).logits, model(**batch_of()).logits)
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    for auto_class in (AutoModel, AutoModelForMaskedLM):
        assert len(list(layers_of(auto_class.from_pretrained(tmp_path)))) == 2 * LAYERS


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_tokenizer_lies_beside_a_repeated_model_as_beside_any(model_type: str, tmp_path: Path) -> None:
    repeated(plain_model(model_type)).save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    assert AutoTokenizer.from_pretrained(tmp_path)("the film").input_ids == tokenizer("the film").input_ids
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "tokenizer_class": None}), encoding="utf-8")
    assert AutoTokenizer.from_pretrained(tmp_path).is_fast


@pytest.mark.parametrize("model_type", FAMILIES)
def test_copies_and_functional_calls_run_the_same_passes(model_type: str) -> None:
    model = repeated(plain_model(model_type), "all")
    other = repeated(plain_model(model_type, seed=3), "all")
    with torch.no_grad():
        theirs = other(**batch_of()).logits
        assert torch.equal(torch.func.functional_call(model, other.state_dict(), kwargs=batch_of()).logits, theirs)
        assert torch.equal(copy.deepcopy(other)(**batch_of()).logits, theirs)
        plain = plain_model(model_type, seed=3)(**batch_of()).logits
        assert torch.equal(repeated(other, "none")(**batch_of()).logits, plain) and not torch.equal(theirs, plain)
        assert len(list(layers_of(model)[1:])) == LAYERS - 1  # a slice is a list of its own


def test_gradient_checkpointing_is_refused() -> None:
    with pytest.raises(ValueError, match="does not support"):
        repeated(plain_model("bert")).gradient_checkpointing_enable()


@pytest.mark.parametrize("model_type", sorted(PLACES))
def test_a_shape_and_a_configuration_say_the_same(model_type: str) -> None:
    config = repeated(plain_model(model_type), "all").config.to_dict()
    shape = shape_of(config, n_labels=3)
    assert (shape.layers, shape.n_passes, shape.passes) == (LAYERS, 2 * LAYERS, (0, 1, 0, 1))
    assert shape_of(config_numbers(plain_model(model_type).config.to_dict(), shape), n_labels=3) == shape
    plain = shape_of(plain_model(model_type).config.to_dict(), n_labels=3)
    assert plain.as_dict().keys() == shape.as_dict().keys() - {"passes", "exchanged"}
    assert plain.n_parameters == shape.n_parameters and plain.n_multiplications < shape.n_multiplications
    back = config_numbers(config, plain)
    assert back["model_type"] == model_type and "passes" not in back and "exchanged" not in back
    assert plain_config(config)["model_type"] == model_type and plain_config(back) == back
    assert shape.vocab_size == N_TOKENS
    with pytest.raises(ValueError, match=r"teacher: config: passes=\[5\].*Download the checkpoint again"):
        shape_of({**config, "passes": [5], "exchanged": [False]}, n_labels=3)


def test_null_stands_for_no_passes_as_transformers_reads_it() -> None:
    config = {**AutoConfig.for_model("repeated-bert", num_hidden_layers=2).to_dict(), "passes": None, "exchanged": None}
    assert shape_of(config, 2).passes == () and n_passes(config) == 2

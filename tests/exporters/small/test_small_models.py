"""Small encoders as models and as graphs: padding changes nothing, the graph is the model, bytes are predicted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from compressor.models.families import shape_of
from exporters.graph.optimize import optimize
from exporters.graph.quantize import quantize
from exporters.graph.widened import _round
from exporters.pooling import Pooling
from exporters.predicted_bytes import predict_bytes
from exporters.shape import Scheme
from exporters.small.layers import run_recurrent
from exporters.small.models import config_class
from exporters.small.shape import SMALL, known_config, small_shape
from exporters.to_onnx import export_model

N_TOKENS, LENGTH = 600, 11
FAMILIES = pytest.mark.parametrize("family", SMALL)


def small_model(family: str, *, is_pair: bool = False, is_encoder: bool = False, **more: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    given = {"vocab_size": N_TOKENS, "embedding_size": 32, "units": 24, "dense": 16, **more}
    config = config_class(family)(num_labels=3, type_vocab_size=2 if is_pair else 1, **given)
    model = (AutoModel if is_encoder else AutoModelForSequenceClassification).from_config(config).eval()
    for name, parameter in model.named_parameters():  # a bias of zeros would hide that it is lost
        if "bias" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def batch_of(lengths: tuple[int, ...] = (LENGTH, 4, 1), *, is_pair: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, N_TOKENS, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": ids, "attention_mask": mask}
    if is_pair:
        batch["token_type_ids"] = (torch.arange(max(lengths)) >= 3).long() * mask
    return batch


def graph_of(model: PreTrainedModel, folder: Path, kind: str = "classification") -> Path:
    model.save_pretrained(folder)
    path, pooling = folder / "model.onnx", Pooling("mean", normalize=True) if kind == "embedding" else None
    export_model(folder, path, kind, 64, pooling)
    optimize(path, path)
    return path


def answers(path: Path, batch: dict[str, Tensor], output: str) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(path)
    known = {each.name for each in session.get_inputs()}
    feed = {name: tensor.numpy() for name, tensor in batch.items() if name in known}
    found: np.ndarray[Any, Any] = session.run([output], feed)[0]
    return found


@FAMILIES
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=5), is_pair=st.booleans(), is_encoder=st.booleans())
def test_an_answer_does_not_depend_on_what_it_is_padded_with(
    family: str, lengths: list[int], is_pair: bool, is_encoder: bool
) -> None:
    lengths = [length + 3 * is_pair + 1 for length in lengths]
    model = small_model(family, is_pair=is_pair, is_encoder=is_encoder)
    batch = batch_of(tuple(lengths), is_pair=is_pair)
    together = model(**batch)[0]
    for row, length in enumerate(lengths):
        alone = model(**{name: tensor[row : row + 1, :length] for name, tensor in batch.items()})[0]
        found = together[row, :length] if is_encoder else together[row]
        assert torch.allclose(found, alone[0], atol=1e-6)


def test_the_recurrent_layer_is_what_its_equations_say() -> None:
    """z, r, h of the ONNX operator with the reset gate after the product, forwards and backwards."""
    n_inputs, n_units = 5, 4
    weight, recurrence = torch.randn(2, 3 * n_units, n_inputs), torch.randn(2, 3 * n_units, n_units)
    bias, inputs, length = torch.randn(2, 6 * n_units), torch.randn(1, 6, n_inputs), 4
    found = run_recurrent(inputs, torch.tensor([length]), weight, recurrence, bias)
    assert not found[0, length:].any()
    for direction, order in ((0, range(length)), (1, reversed(range(length)))):
        state = torch.zeros(n_units)
        of_inputs, of_state = bias[direction].chunk(2)
        for token in order:
            update, reset, new = (weight[direction] @ inputs[0, token] + of_inputs).chunk(3)
            again = (recurrence[direction] @ state + of_state).chunk(3)
            gate = torch.sigmoid(update + again[0])
            state = (1 - gate) * torch.tanh(new + torch.sigmoid(reset + again[1]) * again[2]) + gate * state
            ours = found[0, token].chunk(2)[direction]
            assert torch.allclose(ours, state, atol=1e-6)


@FAMILIES
@pytest.mark.parametrize("is_pair", [False, True])
def test_a_classifiers_graph_answers_as_the_model_alone_and_in_a_batch(
    family: str, is_pair: bool, tmp_path: Path
) -> None:
    model, batch = small_model(family, is_pair=is_pair), batch_of((LENGTH, 5, 4), is_pair=is_pair)
    path = graph_of(model, tmp_path)
    wanted = model(**batch).logits.detach().numpy()
    for scheme in (None, Scheme(8, 8), Scheme(4, 4, 16)):
        made = path if scheme is None else tmp_path / "fewer.onnx"
        if scheme:
            result = quantize(path, made, scheme)
            assert result.left_float == [] and result.n_matmuls == result.n_matmuls_quantized
        found = answers(made, batch, "logits")
        assert np.abs(found - wanted).max() < (1e-5 if scheme is None else 0.1)
        for row in range(3):
            n_tokens = int(batch["attention_mask"][row].sum())
            alone = {name: tensor[row : row + 1, :n_tokens] for name, tensor in batch.items()}
            assert np.abs(answers(made, alone, "logits")[0] - found[row]).max() < 1e-6


@FAMILIES
def test_an_encoders_graph_gives_the_models_vectors(family: str, tmp_path: Path) -> None:
    output = 0 if family == "mean" else 20
    model, batch = small_model(family, is_encoder=True, output_size=output), batch_of()
    path = graph_of(model, tmp_path, "embedding")
    states, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
    pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    assert np.abs(answers(path, batch, "sentence_embedding") - pooled.detach().numpy()).max() < 1e-5


@FAMILIES
@pytest.mark.parametrize("n_labels", [0, 2])
def test_the_bytes_of_a_graph_are_predicted_within_a_percent(family: str, n_labels: int, tmp_path: Path) -> None:
    shape = small_shape(family, 4000, 48, 64, positions=64, n_labels=n_labels, dense=64, output=0 if n_labels else 96)
    config = config_class(family)(**shape.config(), **({"num_labels": n_labels} if n_labels else {}))
    torch.manual_seed(0)
    model = (AutoModelForSequenceClassification if n_labels else AutoModel).from_config(config)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter)
    path = graph_of(model, tmp_path, "classification" if n_labels else "embedding")
    for scheme in (Scheme(None, None), Scheme(8, 8), Scheme(8, 4, 16)):
        made = tmp_path / "fewer.onnx" if scheme.weight_bits else path
        if scheme.weight_bits:
            quantize(path, made, scheme)
        predicted = predict_bytes(shape, scheme)
        parts = sum(predicted[name] for name in ("embeddings", "weights", "vectors", "graph"))
        assert parts == pytest.approx(made.stat().st_size, rel=0.01, abs=600)


def test_everything_constant_is_folded_when_the_file_is_loaded(tmp_path: Path) -> None:
    path = graph_of(small_model("recurrent"), tmp_path)
    quantize(path, path, Scheme(8, 8))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(path, options)
    loaded = onnx.load(tmp_path / "loaded.onnx")
    constants = {tensor.name for tensor in loaded.graph.initializer}
    recurrent = next(node for node in loaded.graph.node if node.op_type == "GRU")
    assert {*recurrent.input[1:4]} <= constants
    assert all(set(node.input) - constants for node in loaded.graph.node)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 3), st.integers(0, 10))
def test_rounding_keeps_every_output_within_half_a_step(n_outputs: int, n_inputs: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for array, axis in (
        (rng.normal(size=(n_inputs, n_outputs)), 1),  # of a product
        (rng.normal(size=(n_outputs, n_inputs, size)), 3),  # of a convolution
        (rng.normal(size=(2, n_outputs, n_inputs)), 2),  # of a recurrent net
    ):
        values, scales = _round(array.astype(np.float32), axis)
        assert values.dtype == np.int8 and scales.size == (2 * n_outputs if axis == 2 else n_outputs)
        step = scales.astype(np.float32)
        assert (np.abs(values * step - array) <= 0.51 * step + 1e-6).all()


@FAMILIES
def test_a_saved_folder_opens_by_itself_and_says_its_shape(family: str, tmp_path: Path) -> None:
    model = small_model(family, is_pair=True)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    shape = shape_of(content, n_labels=3, for_export=True)
    assert shape.n_parameters == model.num_parameters()
    assert AutoConfig.from_pretrained(tmp_path).family == family
    with pytest.raises(ValueError, match=r"architecture 'small-.*' is not supported, expected one of bert"):
        shape_of(content, n_labels=3)
    assert known_config(content)["model_type"] == "bert"
    assert known_config({**content, "type_vocab_size": 1})["architectures"] == ["DistilBertForSequenceClassification"]


def test_what_is_no_small_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"family 'lstm' is not known, expected one of recurrent, convolution, mean"):
        config_class("lstm")
    with pytest.raises(ValueError, match=r"config\.json says 'x' for units, expected a whole number"):
        shape_of({"model_type": "small-mean", "vocab_size": 10, "embedding_size": 4, "units": "x"}, 2, for_export=True)

"""TF-IDF as a model and as a graph: the formula by dictionaries, padding, texts without words, bytes."""

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from compressor.models.families import shape_of
from exporters.graph.ledger import model_parts
from exporters.graph.optimize import optimize
from exporters.graph.quantize import quantize
from exporters.graph.stored_once import check_checkpoint
from exporters.predicted_bytes import predict_bytes
from exporters.shape import Scheme
from exporters.small.models import config_class
from exporters.small.shape import PAIR_STEP, known_config, tfidf_shape
from exporters.to_onnx import export_model

N_WORDS, N_PAIRS = 12, 30  # with [PAD] and [UNK]: few, so that words repeat and pairs fall together


def tfidf_model(n_labels: int = 2, *, n_words: int = N_WORDS, n_pairs: int = N_PAIRS) -> PreTrainedModel:
    columns = 1 if n_labels == 2 else n_labels
    shape = tfidf_shape(n_words, n_pairs, columns, positions=64, n_labels=n_labels)
    model = AutoModelForSequenceClassification.from_config(config_class("tfidf")(num_labels=n_labels, **shape.config()))
    rng = np.random.default_rng(0)
    idf = rng.integers(1, 256, (n_words + n_pairs, 1))
    coefficients = rng.integers(-127, 128, (n_words + n_pairs, columns))
    idf[:2] = coefficients[:2] = 0
    idf[n_words + 3] = 0  # a bucket that no row fell into
    state = {
        "idf": torch.from_numpy(idf).to(torch.uint8),
        "coefficients": torch.from_numpy(coefficients).to(torch.int8),
        "scale": torch.from_numpy(rng.uniform(0.01, 0.1, columns)).float(),
        "bias": torch.from_numpy(rng.normal(size=columns)).float(),
    }
    model.load_state_dict(state)
    return model.eval()


def counted(model: PreTrainedModel, ids: list[int]) -> np.ndarray[Any, Any]:
    """Return the logits of one text by the formula, feature by feature."""
    vocab, n_pairs = model.config.vocab_size, model.config.n_pairs
    found = Counter(word for word in ids if word >= 2)
    found.update(vocab + (a * PAIR_STEP + b) % n_pairs for a, b in pairwise(ids) if a >= 2 and b >= 2)
    idf = model.idf.double().numpy()[:, 0] / 16
    table = model.coefficients.double().numpy() * model.scale.detach().double().numpy()
    values = {feature: (1 + math.log(count)) * idf[feature] for feature, count in found.items()}
    length = math.sqrt(sum(value**2 for value in values.values())) or 1.0
    score = model.bias.detach().double().numpy().copy()
    for feature, value in values.items():
        score += value / length * table[feature]
    return np.concatenate([-score, score]) if len(score) < model.num_labels else score


def batch_of(rows: list[list[int]], fill: int = 0) -> dict[str, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), width)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=torch.int64)
    return {"input_ids": ids, "attention_mask": mask.reshape(len(rows), width)}


def graph_of(model: PreTrainedModel, folder: Path, kind: str = "classification") -> Path:
    model.save_pretrained(folder)
    path = folder / "model.onnx"
    result = export_model(folder, path, kind, 64)
    assert result.inputs == ("input_ids", "attention_mask")
    optimize(path, path)
    check_checkpoint(path, result.parameters)
    found = quantize(path, path, Scheme(8, 8))
    assert found.left_float == []
    return path


ROWS = st.lists(st.lists(st.integers(0, N_WORDS - 1), max_size=9), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, n_labels=st.sampled_from([1, 2, 3]), fill=st.integers(0, N_WORDS - 1))
def test_the_model_is_the_formula_whatever_rows_are_padded_with(
    rows: list[list[int]], n_labels: int, fill: int
) -> None:
    model = tfidf_model(n_labels)
    found = model(**batch_of(rows, fill)).logits.detach().numpy()
    assert np.abs(found - np.stack([counted(model, row) for row in rows])).max() < 1e-4


@pytest.mark.parametrize(("n_labels", "kind"), [(1, "regression"), (2, "classification"), (20, "multi_label")])
def test_the_graph_answers_as_the_model_alone_and_in_a_batch(n_labels: int, kind: str, tmp_path: Path) -> None:
    model = tfidf_model(n_labels)
    session = onnxruntime.InferenceSession(graph_of(model, tmp_path, kind))
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, N_WORDS, size).tolist() for size in (9, 1, 0, 5)]

    def ask(batch: dict[str, Tensor]) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = session.run(["logits"], {name: each.numpy() for name, each in batch.items()})[0]
        return found

    together = ask(batch_of(rows))
    assert np.abs(together - model(**batch_of(rows)).logits.detach().numpy()).max() < 1e-5
    for row, answer in zip(rows, together, strict=True):  # one of them without a token, as an empty text is
        assert np.abs(ask(batch_of([row]))[0] - answer).max() < 1e-5


@pytest.mark.parametrize("n_labels", [1, 2, 20])
def test_the_bytes_of_a_graph_are_predicted_and_are_those_of_its_tables(n_labels: int, tmp_path: Path) -> None:
    columns = 1 if n_labels == 2 else n_labels
    shape = tfidf_shape(3000, 9000, columns, positions=64, n_labels=n_labels)
    path = graph_of(
        tfidf_model(n_labels, n_words=3000, n_pairs=9000), tmp_path, "regression" if n_labels == 1 else "classification"
    )
    predicted = predict_bytes(shape, Scheme(8, 8))
    parts = sum(predicted[name] for name in ("embeddings", "weights", "vectors", "graph"))
    assert parts == pytest.approx(path.stat().st_size, rel=0.01, abs=400)
    tables = {part.name: part.bytes for part in model_parts(path, "m") if part.kind == "embeddings"}
    assert tables == {"idf": 12000, "coefficients": 12000 * columns}
    assert sum(tables.values()) == predicted["embeddings"]


def test_a_saved_folder_opens_by_itself_and_says_its_shape(tmp_path: Path) -> None:
    model = tfidf_model()
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert again.idf.dtype == torch.uint8 and again.coefficients.dtype == torch.int8
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    shape = shape_of(content, n_labels=2, for_export=True)
    assert shape == tfidf_shape(N_WORDS, N_PAIRS, 1, positions=64, n_labels=2)
    assert shape.n_parameters == sum(tensor.numel() for tensor in model.state_dict().values())
    assert AutoConfig.from_pretrained(tmp_path).n_pairs == N_PAIRS
    assert known_config(content)["architectures"] == ["DistilBertForSequenceClassification"]
    with pytest.raises(ValueError, match=r"config\.json says 'x' for n_pairs, expected a whole number"):
        shape_of({**content, "n_pairs": "x"}, 2, for_export=True)

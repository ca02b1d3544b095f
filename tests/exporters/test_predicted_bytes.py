"""Predicted bytes: exact where storage is arithmetic, near elsewhere, and quick enough for a search."""

import time
from pathlib import Path

import pytest

from exporters.predicted_bytes import predict_bytes
from exporters.shape import Scheme, Shape

SHAPE = Shape(vocab_size=3000, hidden=96, layers=2, heads=2, ffn=256, positions=64, n_labels=2, head_layers=1)
SCHEMES = (Scheme(8, 8), Scheme(4, 4), Scheme(4, 8, 64), Scheme(8, 4, 16), Scheme(None, None))


@pytest.fixture(scope="module")
def float_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from benchmarks.predicted_bytes import save_random_bert
    from exporters.graph.optimize import optimize
    from exporters.to_onnx import export_model

    folder = tmp_path_factory.mktemp("predict")
    save_random_bert(folder / "model", SHAPE)
    export_model(folder / "model", folder / "model.onnx", "classification", 64)
    optimize(folder / "model.onnx", folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: f"{scheme.name}-{scheme.block_size}")
def test_tensors_are_predicted_exactly_and_the_graph_nearly(scheme: Scheme, float_graph: Path, tmp_path: Path):
    from exporters.graph.ledger import model_parts
    from exporters.graph.quantize import quantize

    quantize(float_graph, tmp_path / "q.onnx", scheme)
    parts = list(model_parts(tmp_path / "q.onnx", "q.onnx"))
    measured = {kind: sum(part.bytes for part in parts if part.kind == kind) for kind in {part.kind for part in parts}}
    predicted = predict_bytes(SHAPE, scheme)
    tensors = sum(predicted[name] for name in ("embeddings", "weights", "vectors"))
    # two biases of the classifier and its scales are too small to be listed, and count as graph
    assert tensors == pytest.approx(sum(measured.values()) - measured["graph"], abs=16)
    assert predicted["graph"] == pytest.approx(measured["graph"], abs=700)
    assert predicted["graph"] + tensors == pytest.approx((tmp_path / "q.onnx").stat().st_size, abs=700)


def test_a_known_tokenizer_is_taken_as_it_is():
    assert predict_bytes(SHAPE, Scheme(), n_tokenizer_bytes=123)["tokenizer"] == 123


def test_fewer_bits_and_smaller_shapes_are_predicted_smaller():
    schemes = (Scheme(4, 4), Scheme(4, 8), Scheme(8, 8), Scheme(None, None))
    totals = [sum(predict_bytes(SHAPE, scheme).values()) for scheme in schemes]
    assert totals == sorted(totals)
    narrower = Shape(3000, 32, 2, 2, 128, 64, n_labels=2, head_layers=1)
    assert sum(predict_bytes(narrower, Scheme()).values()) < sum(predict_bytes(SHAPE, Scheme()).values())


def test_the_arithmetic_of_matrices_is_that_of_the_shape():
    shape = Shape(5000, 128, 3, 4, 512, 64, n_labels=5, head_layers=1, embedding_size=64)
    predicted = predict_bytes(shape, Scheme(None, None))
    n_tables = sum(shape.table_rows.values()) * 64
    assert predicted["embeddings"] == 4 * n_tables
    assert predicted["weights"] == 4 * sum(rows * columns * count for (rows, columns), count in shape.matrices)
    assert predicted["embeddings"] + predicted["weights"] + predicted["vectors"] == 4 * shape.n_parameters


def test_a_search_over_thousands_of_shapes_takes_no_time():
    start = time.perf_counter()
    for layers in range(1, 2001):
        predict_bytes(Shape(8000, 384, layers, 12, 1536, 128), Scheme(4, 4), kind="bpe")
    assert time.perf_counter() - start < 1.0


@pytest.mark.slow
def test_whole_packages_are_predicted_within_one_percent(tmp_path: Path):
    from tokenizers import Tokenizer

    from benchmarks.docstring_search import teacher_folder
    from benchmarks.predicted_bytes import CASES, build
    from exporters.package import package_bytes
    from vocab.train import train_vocabulary

    teacher = Tokenizer.from_file(str(teacher_folder() / "tokenizer.json"))
    texts = [f"word{index} and another{index % 700} text number {index * 7919 % 10007}" for index in range(20_000)]
    for shape, scheme in CASES[1:4]:
        tokenizer = train_vocabulary(texts, shape.vocab_size, "wordpiece", teacher)
        folder = tmp_path / f"{shape.layers}-{shape.hidden}"
        folder.mkdir()
        package = build(folder, shape, scheme, tokenizer)
        n_tokenizer_bytes = (package / "tokenizer.json").stat().st_size
        predicted = sum(predict_bytes(shape, scheme, n_tokenizer_bytes).values())
        assert predicted == pytest.approx(package_bytes(package), rel=0.01)

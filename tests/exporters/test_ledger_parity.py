"""Where the bytes of a package are, and how far two models are apart."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.graph.ledger import ledger
from exporters.graph.quantize import quantize
from exporters.measuring.parity import Limits, ParityLost, check, compare
from exporters.shape import Scheme


@pytest.fixture(scope="module", params=["none", "int8", "int4"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    (folder / "onnx").mkdir()
    rng = np.random.default_rng(0)
    constants = {"words.weight": (200, 64), "one.weight": (64, 128), "one.bias": (128,)}
    nodes = [
        helper.make_node("Gather", ["words.weight", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "one.weight"], ["y"]),
        helper.make_node("Add", ["y", "one.bias"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", "sequence", 128])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "onnx" / "model.onnx")
    bits = {"none": None, "int8": 8, "int4": 4}[request.param]
    quantize(folder / "onnx" / "model.onnx", folder / "onnx" / "model.onnx", Scheme(bits, bits))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "manifest.json", "README.md", "extra.bin"):
        (folder / name).write_text(name * 3, encoding="utf-8")
    return folder


def test_the_parts_add_up_to_the_folder(package: Path):
    total = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    assert sum(part.bytes for part in ledger(package)) == total


def test_every_part_has_its_kind(package: Path):
    kinds = {part.kind for part in ledger(package)}
    expected = {"embeddings", "weights", "vectors", "graph", "tokenizer", "labels", "manifest", "card", "other"}
    assert kinds - {"scales"} == expected
    by_name = {part.name: part for part in ledger(package)}
    assert by_name["one.bias"].kind == "vectors"
    tables = [part for part in by_name.values() if part.kind == "embeddings"]
    assert [part.name.split(".")[0] for part in tables] == ["words"]
    weights = [part for part in by_name.values() if part.kind == "weights"]
    assert [part.name.split(".")[0] for part in weights] == ["one"]
    assert {part.dtype for part in weights} <= {"float", "int8", "uint8"}


def test_the_largest_part_comes_first(package: Path):
    sizes = [part.bytes for part in ledger(package)]
    assert sizes == sorted(sizes, reverse=True)


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"ledger: .* is missing or empty"):
        ledger(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"ledger: .* is missing or empty"):
        ledger(tmp_path / "nowhere")


def test_equal_outputs_are_at_distance_zero():
    outputs = np.array([[1.0, 2.0], [0.0, 0.0]], dtype=np.float32)
    parity = compare([outputs], [outputs])
    assert parity == (0.0, pytest.approx(1.0), pytest.approx(1.0), 1.0)


def test_distances_are_those_worked_out_by_hand():
    ours = np.array([[1.0, 0.0], [0.0, 2.0]])
    theirs = np.array([[0.0, 1.0], [0.0, 1.0]])
    parity = compare([ours], [theirs])
    assert parity.max_abs == 1.0
    assert parity.cosine_min == pytest.approx(0.0)
    assert parity.cosine_mean == pytest.approx(0.5)
    assert parity.top1_agreement == 0.5


def test_several_outputs_of_several_shapes_are_compared_row_by_row():
    token_states, vectors = np.ones((2, 3, 4)), np.ones((2, 1))
    parity = compare([token_states, vectors], [token_states, vectors + 0.25])
    assert parity.max_abs == 0.25
    assert parity.top1_agreement == 1.0


def test_every_missed_limit_is_named():
    parity = compare([np.array([[1.0, 0.0], [0.0, 2.0]])], [np.array([[0.0, 1.0], [0.0, 1.0]])])
    limits = Limits("ONNX to int8", max_abs=0.1, cosine_min=0.9, cosine_mean=0.9, top1_agreement=0.9)
    assert check(parity, limits) == [
        "parity: ONNX to int8 changes an output by 1, allowed 0.1",
        "parity: ONNX to int8 has cosine min 0.0000, expected at least 0.9",
        "parity: ONNX to int8 has cosine mean 0.5000, expected at least 0.9",
        "parity: ONNX to int8 has top1 agreement 0.5000, expected at least 0.9",
    ]
    assert check(parity, Limits("nothing asked")) == []
    lost = ParityLost(check(parity, limits))
    assert lost.violations[0] in str(lost)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([], [], "expected the same number, at least one"),
        ([np.ones((1, 2))], [], "got 1 and 0 outputs"),
        ([np.ones((1, 2))], [np.ones((2, 2))], r"got outputs of shape \(1, 2\) and \(2, 2\)"),
        ([np.array([[np.nan, 1.0]])], [np.ones((1, 2))], "NaN or infinite"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(ours: list, theirs: list, message: str):
    with pytest.raises(ValueError, match=message):
        compare(ours, theirs)

"""The identity of a file: its bytes are those of its unique tensors and a small rest, and nothing is in it twice."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from exporters.graph.ledger import model_parts
from exporters.graph.optimize import initializers, optimize
from exporters.graph.quantize import quantize
from exporters.graph.stored_once import check_checkpoint, check_stored_once, digest, float_products, identity_of
from exporters.graph.to_ort import to_ort
from exporters.shape import Scheme

SCHEMES = (Scheme(8, 8), Scheme(4, 4), Scheme(4, 8), Scheme(8, None), Scheme(None, 8), Scheme(None, None))
IDS = np.arange(12, dtype=np.int64).reshape(3, 4)


def logits(path: Path) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": IDS})[0]


class Block(nn.Module):
    """Six times the same two matrices between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm, self.head = nn.Embedding(2000, 256), nn.LayerNorm(256), nn.Linear(256, 3)
        self.wide, self.narrow = nn.Linear(256, 1024), nn.Linear(1024, 256)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.words(ids)  # (batch, tokens, 256)
        for _ in range(6):
            hidden = hidden + self.narrow(torch.relu(self.wide(hidden)))
        return self.head(self.norm(hidden))


@pytest.mark.parametrize("is_folded", [True, False], ids=["constants folded", "not folded"])
def test_one_block_used_six_times_is_stored_once_where_the_plain_path_triples_it(is_folded: bool, tmp_path: Path):
    from onnxruntime.quantization import quantize_dynamic

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter, whose Identity nodes hide shared weights
        torch.onnx.export(
            Block().eval(), (torch.zeros(2, 5, dtype=torch.int64),), tmp_path / "raw.onnx", dynamo=False,
            opset_version=17, do_constant_folding=is_folded, input_names=["ids"], output_names=["logits"],
            dynamic_axes={"ids": {0: "batch", 1: "tokens"}},
        )  # fmt: skip
    optimize(tmp_path / "raw.onnx", tmp_path / "clean.onnx")
    result = quantize(tmp_path / "clean.onnx", tmp_path / "ours.onnx", Scheme(8, 8))
    ours = onnx.load(tmp_path / "ours.onnx")
    assert (result.n_matmuls, result.n_matmuls_quantized, result.left_float) == (13, 13, [])
    assert len(float_products(ours)) == 0
    assert [tensor.data_type for tensor in ours.graph.initializer].count(TensorProto.INT8) == 4
    assert 1_038_848 < result.bytes_after < 1.02 * 1_038_848  # 2000 x 256 + 2 x 256 x 1024 + the rest of the weights
    assert result.stored["n_values"] == 1_038_848
    onnx.save(onnx.load(tmp_path / "raw.onnx"), tmp_path / "plain.onnx")
    quantize_dynamic(tmp_path / "plain.onnx", tmp_path / "theirs.onnx")
    theirs = (tmp_path / "theirs.onnx").stat().st_size
    assert len(float_products(onnx.load(tmp_path / "theirs.onnx"))) == (10 if is_folded else 13)
    assert theirs > (2.9 if is_folded else 2.4) * result.bytes_after
    assert np.abs(logits(tmp_path / "ours.onnx") - logits(tmp_path / "raw.onnx")).max() < 0.02


def tied_model() -> onnx.ModelProto:
    """A table that is looked up and multiplied, a matrix read as it is, by Gemm, and as a stored transposed copy."""
    rng = np.random.default_rng(0)
    table, matrix, back = (
        (rng.standard_normal(shape) * 0.1).astype(np.float32) for shape in ((300, 64), (64, 128), (128, 64))
    )
    constants = {
        "table": table, "matrix": matrix, "turned_copy": matrix.T.copy(), "gemm_copy": matrix.T.copy(), "back": back,
        "table_copy": table.T.copy(), "bias": np.arange(128, dtype=np.float32) / 100, "rows": np.array([-1, 64]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "matrix"], ["a"]),
        helper.make_node("MatMul", ["a", "turned_copy"], ["b"]),
        helper.make_node("Reshape", ["b", "rows"], ["flat"]),
        helper.make_node("Gemm", ["flat", "gemm_copy", "bias"], ["c"], transB=1),
        helper.make_node("MatMul", ["c", "back"], ["d"]),
        helper.make_node("MatMul", ["d", "table_copy"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "tied", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 300])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    onnx.save(tied_model(), tmp_path / "raw.onnx")
    optimize(tmp_path / "raw.onnx", tmp_path / "tied.onnx")
    return tmp_path / "tied.onnx"


def test_a_transposed_copy_is_dropped_and_cleaning_again_changes_nothing(tied: Path, tmp_path: Path):
    floats = {
        tuple(tensor.dims) for tensor in onnx.load(tied).graph.initializer if tensor.data_type == TensorProto.FLOAT
    }
    assert floats == {(300, 64), (64, 128), (128, 64), (128,)}
    assert np.abs(logits(tied) - logits(tmp_path / "raw.onnx")).max() < 1e-6
    optimize(tied, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == tied.read_bytes()


@pytest.mark.parametrize(("scheme", "kernel"), list(itertools.product(SCHEMES, ("folded", "blocked"))))
def test_a_weight_read_both_ways_has_one_copy_and_one_set_of_scales(
    scheme: Scheme, kernel: str, tied: Path, tmp_path: Path
):
    result = quantize(tied, tmp_path / "small.onnx", scheme, kernel=kernel)
    assert result.stored["n_values"] == 300 * 64 + 64 * 128 + 128 * 64 + 128
    names = [tensor.name for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer]
    for stem in ("table", "matrix"):
        holding = [
            name for name in names if name.split(".")[0].split("+")[0] == stem and not name.endswith((".m", "16"))
        ]
        assert len(holding) == 1, names
        assert sum(name == f"{stem}.scale16" for name in names) <= 1
    error = logits(tmp_path / "small.onnx") - logits(tied)
    limit = 0.2 if scheme.weight_bits == 4 else 0.03
    assert np.linalg.norm(error) < limit * np.linalg.norm(logits(tied))


def test_a_tensor_stored_twice_fails_by_name(tied: Path, tmp_path: Path):
    model = onnx.load(tied)
    parameters = {digest(numpy_helper.to_array(each)): name for name, each in initializers(model).items()}
    assert check_checkpoint(tied, parameters).n_shared == 2
    twice = onnx.load(tmp_path / "raw.onnx")
    onnx.save(twice, tmp_path / "twice.onnx")
    with pytest.raises(ValueError, match=r"export: turned_copy \(128x64\) is stored twice, the other time as matrix"):
        check_checkpoint(tmp_path / "twice.onnx", parameters)
    with pytest.raises(ValueError, match=r"back \(128x64\) holds other values than every tensor of the checkpoint"):
        check_checkpoint(tied, {key: name for key, name in parameters.items() if name != "back"})


def test_a_float_copy_beside_the_quantised_one_fails_by_name(tied: Path, tmp_path: Path):
    quantize(tied, tmp_path / "small.onnx", Scheme(8, 8))
    small, floats = onnx.load(tmp_path / "small.onnx"), initializers(onnx.load(tied))
    check_stored_once(small, floats)
    small.graph.initializer.append(floats["back"])
    with pytest.raises(ValueError, match=r"quantize: back \(128x64\) is stored 2 times \(back.int8, back\)"):
        check_stored_once(small, floats)
    small.graph.initializer[-1].name = "elsewhere"
    with pytest.raises(ValueError, match="quantize: elsewhere is in the file, but not in the graph"):
        check_stored_once(small, floats)
    del small.graph.initializer[-1]
    floats["more.weight"] = numpy_helper.from_array(np.ones((8, 8), dtype=np.float32), "more.weight")
    with pytest.raises(ValueError, match=r"quantize: more.weight \(8x8\) is not stored, expected once"):
        check_stored_once(small, floats)


@pytest.mark.parametrize(("scheme", "name"), [(Scheme(8, 8), "matrix.int8"), (Scheme(None, None), "matrix")])
def test_a_weight_read_both_ways_is_refused_in_an_ort_file_by_name(scheme: Scheme, name: str, tmp_path: Path):
    model = tied_model()
    other = next(tensor for tensor in model.graph.initializer if tensor.name == "table_copy")
    other.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(other), other.name))  # a matrix of its own
    onnx.save(model, tmp_path / "raw.onnx")
    optimize(tmp_path / "raw.onnx", tmp_path / "clean.onnx")
    quantize(tmp_path / "clean.onnx", tmp_path / "small.onnx", scheme)
    with pytest.raises(ValueError, match=rf"export: {name} would be stored twice in the .ort file, the other time tra"):
        to_ort(tmp_path / "small.onnx", tmp_path / "small.ort")
    assert list(tmp_path.glob("*.ort")) == []


def test_vectors_of_the_same_values_in_other_dimensions_are_no_twins(tmp_path: Path):
    model = tied_model()
    model.graph.initializer.append(numpy_helper.from_array(np.arange(128, dtype=np.float32)[None] / 100, "row"))
    model.graph.node[-1].input[0] = "e"
    model.graph.node.insert(5, helper.make_node("Add", ["c", "row"], ["c_more"]))
    model.graph.node[6].input[0] = "c_more"
    model.graph.node.insert(7, helper.make_node("Sum", ["d"], ["e"]))
    onnx.save(model, tmp_path / "raw.onnx")
    optimize(tmp_path / "raw.onnx", tmp_path / "clean.onnx")
    clean = initializers(onnx.load(tmp_path / "clean.onnx"))
    assert {"bias", "row"} <= set(clean)
    check_checkpoint(
        tmp_path / "clean.onnx", {digest(numpy_helper.to_array(each)): name for name, each in clean.items()}
    )


@pytest.mark.parametrize("scheme", [Scheme(8, 8), Scheme(4, 4)], ids=lambda scheme: scheme.name)
def test_a_product_left_in_float_fails_by_name_where_no_matrix_is_seen(scheme: Scheme, tied: Path, tmp_path: Path):
    model = onnx.load(tied)
    row = numpy_helper.from_array(np.ones((1, 64), dtype=np.float32))
    last = model.graph.node[-1]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["row"], value=row))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1]), "column"))
    product = last.output[0]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("ReduceSum", ["before"], ["sum"], keepdims=1))
    model.graph.node.append(helper.make_node("Reshape", ["sum", "column"], ["turned"]))
    model.graph.node.append(helper.make_node("MatMul", ["turned", "row"], ["left"], name="outer"))
    model.graph.node.append(helper.make_node("ReduceMean", ["left"], ["mean"], keepdims=1))
    model.graph.node.append(helper.make_node("Add", ["before", "mean"], [product]))
    onnx.save(model, tmp_path / "more.onnx")
    sentence = (
        rf"1 products would multiply a constant matrix in float \(outer\), expected none at {scheme.name}\. Clean"
    )
    with pytest.raises(ValueError, match=sentence):
        quantize(tmp_path / "more.onnx", tmp_path / "small.onnx", scheme)
    assert not (tmp_path / "small.onnx").exists()
    result = quantize(tmp_path / "more.onnx", tmp_path / "small.onnx", scheme, allow_float=True)
    assert result.left_float == [] and len(float_products(onnx.load(tmp_path / "small.onnx"))) == 1
    quantize(tmp_path / "more.onnx", tmp_path / "small.onnx", Scheme(None, None))


def test_bytes_of_a_file_are_those_of_its_tensors_and_the_rest(tied: Path, tmp_path: Path):
    for scheme in SCHEMES:
        quantize(tied, tmp_path / "small.onnx", scheme)
        found = identity_of(tmp_path / "small.onnx")
        parts = list(model_parts(tmp_path / "small.onnx", "small.onnx"))
        assert found.bytes_file == sum(part.bytes for part in parts) == (tmp_path / "small.onnx").stat().st_size
        assert found.bytes_overhead < 4000


def test_uses_are_counted_behind_nodes_that_only_unpack(tied: Path, tmp_path: Path):
    quantize(tied, tmp_path / "small.onnx", Scheme(4, 8))
    uses = {part.name: part.uses for part in model_parts(tmp_path / "small.onnx", "small.onnx")}
    assert uses["matrix+back.int4"] == 4  # matrix three times, back once
    assert uses["table.int8"] == 2
    assert uses["matrix.scale16"] == 3


def test_the_digest_of_a_matrix_is_that_of_its_transpose():
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert digest(matrix) == digest(matrix.T) == digest(matrix.astype(np.float64)[None])
    assert digest(matrix) != digest(matrix.reshape(4, 3))

"""Cleaning a graph: what goes, what is shared, and that the numbers stay."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.graph.optimize import clean, count_ops, optimize

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((8, 8)).astype(np.float32)


def tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def messy_model() -> onnx.ModelProto:
    """One of everything: a shared matrix behind Identity, Gemm, a constant Transpose, Add before the norm."""
    vector = np.ones(8, dtype=np.float32)
    nodes = [
        helper.make_node("Identity", ["w"], ["w_alias"]),
        helper.make_node("MatMul", ["x", "w_alias"], ["a"], "/home/somebody/model.py"),
        helper.make_node("MatMul", ["a", "w_copy"], ["b"]),
        helper.make_node("Gemm", ["b", "w", "out.bias"], ["c"], transB=1),
        helper.make_node("Transpose", ["w"], ["w_turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["c", "w_turned"], ["d"]),
        helper.make_node("Add", ["d", "x"], ["e"]),
        helper.make_node("LayerNormalization", ["e", "gain", "shift"], ["f"]),
        helper.make_node("Constant", [], ["two"], value=tensor("", np.array(2.0, dtype=np.float32))),
        helper.make_node("Mul", ["f", "two"], ["y"]),
        helper.make_node("Relu", ["a"], ["nobody_reads_this"]),
    ]
    constants = {
        "w": WEIGHT, "w_copy": WEIGHT.copy(), "out.bias": vector, "gain": vector * 3, "shift": vector * 0,
        "unused": vector * 7,
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "messy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 8])],
        [tensor(name, array) for name, array in constants.items()],
        value_info=[helper.make_tensor_value_info("a", TensorProto.FLOAT, ["rows", 8])],
        doc_string="written by somebody",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"task": "text-classification"})
    return model


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    path = tmp_path / "messy.onnx"
    onnx.save(messy_model(), path)
    return path


def run(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)})[0]


def test_operators_are_counted_before_and_after(messy: Path, tmp_path: Path):
    result = optimize(messy, tmp_path / "clean.onnx")
    assert result.ops_before == {
        "Add": 1, "Constant": 1, "Gemm": 1, "Identity": 1, "LayerNormalization": 1, "MatMul": 3, "Mul": 1, "Relu": 1,
        "Transpose": 1,
    }  # fmt: skip
    assert result.ops_after == {
        "Add": 1, "LayerNormalization": 1, "MatMul": 4, "Mul": 1, "Sum": 1, "Transpose": 1,
    }  # fmt: skip


def test_the_numbers_stay(messy: Path, tmp_path: Path):
    optimize(messy, tmp_path / "clean.onnx")
    assert np.abs(run(tmp_path / "clean.onnx") - run(messy)).max() < 1e-5


def test_doing_it_twice_gives_the_same_bytes(messy: Path, tmp_path: Path):
    once, twice = tmp_path / "once.onnx", tmp_path / "twice.onnx"
    optimize(messy, once)
    result = optimize(once, twice)
    assert once.read_bytes() == twice.read_bytes()
    assert result.n_shared == 0


def test_equal_matrices_are_stored_once(messy: Path, tmp_path: Path):
    result = optimize(messy, tmp_path / "clean.onnx")
    constants = onnx.load(tmp_path / "clean.onnx").graph.initializer
    assert result.n_shared == 1
    # the matrix that is read as it is and transposed too
    assert sum(tuple(constant.dims) == (8, 8) for constant in constants) == 1
    assert "unused" not in {constant.name for constant in constants}


def test_a_matrix_is_named_after_its_bias(tmp_path: Path):
    model = messy_model()
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    gemm.input[1] = "only_here"
    model.graph.initializer.append(tensor("only_here", WEIGHT * 2))
    clean(model)
    assert "out.weight" in {constant.name for constant in model.graph.initializer}


def test_an_addition_before_a_norm_becomes_a_sum_and_no_other(messy: Path, tmp_path: Path):
    optimize(messy, tmp_path / "clean.onnx")
    nodes = {node.output[0]: node for node in onnx.load(tmp_path / "clean.onnx").graph.node}
    assert (nodes["e"].op_type, nodes["c"].op_type) == ("Sum", "Add")


def test_nothing_is_said_about_the_machine_that_exported(messy: Path, tmp_path: Path):
    optimize(messy, tmp_path / "clean.onnx")
    model = onnx.load(tmp_path / "clean.onnx")
    assert not model.graph.value_info and not model.graph.HasField("doc_string")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"task": "text-classification"}


def test_it_can_write_over_its_input(messy: Path):
    optimize(messy, messy)
    assert "Gemm" not in count_ops(onnx.load(messy))
    assert [path.name for path in messy.parent.iterdir()] == ["messy.onnx"]


def test_subgraphs_are_refused():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "branch", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    model = messy_model()
    model.graph.node.append(helper.make_node("If", ["flag"], ["q"], then_branch=branch, else_branch=branch))
    with pytest.raises(ValueError, match="optimize: the graph has subgraphs"):
        clean(model)

"""Rounding to 8 and 4 bits, and the graphs that hold the result: exact counts, exact bytes, the same numbers."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compressor.commands.folders import quantize_file
from exporters.graph.optimize import optimize
from exporters.graph.quantize import quantize
from exporters.graph.rounding import Folded4, fold4, round4, round8
from exporters.shape import Scheme

ROWS, WIDTH, INNER, LABELS = 300, 64, 128, 3
SCHEMES = (Scheme(8, 8), Scheme(4, 4), Scheme(4, 8), Scheme(8, 4), Scheme(4, 4, 16), Scheme(4, 4, 64), Scheme(8, None))
IDS = np.array([[1, 5, 299, 0], [7, 7, 8, 250]], dtype=np.int64)


def unfold4(folded: Folded4) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Return the int8 values of both matrices, flat: what the graph's own nodes compute when it is loaded."""
    whole = folded.packed.astype(np.float32)
    high = np.rint((whole - 8) * folded.high_multipliers.astype(np.float32)[:, None] / 16).clip(-128, 127)
    nibble = np.bitwise_and(folded.packed, np.int8(15)).astype(np.float32)
    low = (nibble - 8) * folded.low_multipliers.astype(np.float32)[:, None]
    return high.astype(np.int8).reshape(-1), low.astype(np.int8).reshape(-1)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.1).astype(np.float32)


def encoder() -> onnx.ModelProto:
    """Two tables, two matrices that read one activation, one matrix used twice, a product of activations, a head."""
    constants = {
        "words.weight": values(ROWS, WIDTH), "types.weight": values(2, WIDTH, seed=1),
        "one.weight": values(WIDTH, INNER, seed=2), "two.weight": values(WIDTH, INNER, seed=3),
        "twin.weight": values(WIDTH, WIDTH * 4, seed=7), "narrow.weight": values(WIDTH * 4, WIDTH, seed=8),
        "back.weight": values(INNER, WIDTH, seed=4),
        "head.weight": values(WIDTH, LABELS, seed=5), "head.bias": values(LABELS, seed=6),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["words.weight", "input_ids"], ["words"]),
        helper.make_node("Gather", ["types.weight", "token_type_ids"], ["types"]),
        helper.make_node("Add", ["words", "types"], ["x"]),
        helper.make_node("MatMul", ["x", "one.weight"], ["q"]),
        helper.make_node("MatMul", ["x", "two.weight"], ["k"]),
        helper.make_node("Transpose", ["k"], ["k_turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k_turned"], ["scores"]),
        helper.make_node("MatMul", ["scores", "q"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "back.weight"], ["left"]),
        helper.make_node("MatMul", ["k", "back.weight"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["y"]),
        helper.make_node("MatMul", ["y", "twin.weight"], ["wide"]),
        helper.make_node("MatMul", ["wide", "narrow.weight"], ["last"]),
        helper.make_node("MatMul", ["last", "head.weight"], ["z"]),
        helper.make_node("Add", ["z", "head.bias"], ["logits"]),
    ]
    shape = ["batch", "sequence"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "token_type_ids")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*shape, LABELS])]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    onnx.save(encoder(), path)
    optimize(path, path)
    return path


def run(path: Path, level: str = "ORT_ENABLE_ALL") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": IDS, "token_type_ids": IDS % 2})[0]


def ops(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in onnx.load(path).graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize(
    "scheme", SCHEMES, ids=lambda scheme: f"{scheme.name}-{scheme.embedding_bits}-{scheme.block_size}"
)
def test_every_constant_matrix_and_table_is_quantised(scheme: Scheme, float_model: Path, tmp_path: Path):
    result = quantize(float_model, tmp_path / "q.onnx", scheme)
    assert (result.n_matmuls, result.n_matmuls_quantized) == (7, 7)
    assert (result.n_gathers, result.n_gathers_quantized) == (2, 2 if scheme.embedding_bits else 0)
    assert result.left_float == []
    assert ops(tmp_path / "q.onnx")["MatMul"] == 2  # the products of two activations
    assert ops(tmp_path / "q.onnx")["MatMulInteger"] == 7
    assert (
        result.bytes_after == (tmp_path / "q.onnx").stat().st_size < result.bytes_before == float_model.stat().st_size
    )


@pytest.mark.parametrize(("scheme", "limit"), [(Scheme(8, 8), 0.03), (Scheme(4, 4), 0.20), (Scheme(4, 8, 16), 0.20)])
def test_the_outputs_stay_near(scheme: Scheme, limit: float, float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", scheme)
    assert relative_error(run(tmp_path / "q.onnx"), run(float_model)) < limit


def test_blocked_matrices_use_the_contributed_operator(float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", Scheme(4, 8), kernel="blocked")
    assert ops(tmp_path / "q.onnx")["MatMulNBits"] == 6
    assert ops(tmp_path / "q.onnx")["MatMulInteger"] == 1  # the head is too small for 4 bits
    assert relative_error(run(tmp_path / "q.onnx"), run(float_model)) < 0.20


def test_eight_bits_need_standard_operators_only(float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", Scheme(8, 8))
    assert [entry.domain for entry in onnx.load(tmp_path / "q.onnx").opset_import] == [""]
    quantize(float_model, tmp_path / "q.onnx", Scheme(4, 8))
    assert [entry.domain for entry in onnx.load(tmp_path / "q.onnx").opset_import] == [""]


def test_four_bit_weights_are_unpacked_when_the_file_is_loaded(float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", Scheme(4, 8))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "q.onnx"), options, providers=["CPUExecutionProvider"])
    assert ops(tmp_path / "q.onnx")["QLinearConv"] == 4  # one and two, twin and narrow
    assert not {"QLinearConv", "BitwiseAnd", "Reshape"} & set(ops(tmp_path / "loaded.onnx"))


def test_unpacking_gives_the_same_numbers_without_graph_optimisation(float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", Scheme(4, 4))
    ours, theirs = run(tmp_path / "q.onnx", "ORT_DISABLE_ALL"), run(tmp_path / "q.onnx")
    assert np.abs(ours - theirs).max() < 1e-5


def test_a_matrix_used_twice_is_stored_once(float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", Scheme(8, 8))
    stored = [
        tensor.name for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer if tensor.name.startswith("back")
    ]
    assert sorted(stored) == ["back.int8", "back.scale16"]


def test_query_and_key_share_one_rounded_activation(float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", Scheme(8, 8))
    assert ops(tmp_path / "q.onnx")["DynamicQuantizeLinear"] == 6  # x, mixed, k, y, wide, last


def test_four_bits_take_the_bytes_they_should(float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", Scheme(4, 4, 32))
    sizes = {tensor.name: len(tensor.raw_data) for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer}
    assert sizes["one+two.int4"] == WIDTH * INNER  # two matrices, two values per byte
    assert sizes["one.m"] == sizes["two.m"] == WIDTH * INNER // 32
    assert sizes["back.int8"] == WIDTH * INNER  # no partner of its size is left
    assert sizes["one.scale16"] == 2 * INNER
    assert sizes["words.int4"] + sizes["words.m"] == ROWS * WIDTH // 2 + ROWS * WIDTH // 32
    assert sizes["head.int8"] == WIDTH * LABELS


def test_a_float_matrix_left_behind_is_refused_by_name(float_model: Path, tmp_path: Path):
    model = onnx.load(float_model)
    node = next(node for node in model.graph.node if "head.weight" in node.input)
    node.op_type = "Gemm"  # not cleaned: it would stay float
    # a 2-d activation for it
    node.input[0] = "last_2d"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, WIDTH]), "shape"))
    model.graph.node.insert(len(model.graph.node) - 2, helper.make_node("Reshape", ["last", "shape"], ["last_2d"]))
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(ValueError, match=r"1 constant tensors would stay float \(head.weight 64x3\)"):
        quantize(tmp_path / "bad.onnx", tmp_path / "q.onnx", Scheme(8, 8))
    assert not (tmp_path / "q.onnx").exists()


def test_a_file_is_read_as_onnx_whatever_its_suffix(float_model: Path, tmp_path: Path):
    (tmp_path / "model.json").write_bytes(float_model.read_bytes())
    quantize_file(tmp_path / "model.json", tmp_path / "q.onnx", quantize="int8")
    quantize(float_model, tmp_path / "again.onnx", Scheme(8, 8))
    assert (tmp_path / "q.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    (tmp_path / "text.json").write_text('{"graph": {}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"quantize: \S+text.json is not a whole ONNX file .*tenmeg export"):
        quantize_file(tmp_path / "text.json", tmp_path / "none.onnx", quantize="int8")
    with pytest.raises(ValueError, match=r"--output \S+none.json would be taken for text, .* end in .onnx"):
        quantize_file(float_model, tmp_path / "none.json", quantize="int8")
    assert not list(tmp_path.glob("none*"))


def test_the_same_input_gives_the_same_bytes(float_model: Path, tmp_path: Path):
    for name in ("a", "b"):
        quantize(float_model, tmp_path / f"{name}.onnx", Scheme(4, 4))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_no_bits_means_no_change_of_numbers(float_model: Path, tmp_path: Path):
    result = quantize(float_model, tmp_path / "q.onnx", Scheme(None, None))
    assert (result.n_matmuls_quantized, result.n_gathers_quantized) == (0, 0)
    assert (run(tmp_path / "q.onnx") == run(float_model)).all()


def test_rounding_to_eight_bits_puts_the_largest_on_127():
    rounded = round8(np.array([[2.0, -1.0], [0.0, 0.0], [-4.0, 0.5]], dtype=np.float32))
    assert rounded.values.tolist() == [[127, -64], [0, 0], [-127, 16]]
    assert rounded.scales.dtype == np.float16


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 32, 64]), st.floats(1e-3, 1e3))
def test_rounding_errors_are_at_most_half_a_step(seed: int, block_size: int, size: float):
    matrix = (np.random.default_rng(seed).standard_normal((8, 64)) * size).astype(np.float32)
    eight = round8(matrix)
    step = eight.scales.astype(np.float32)[:, None]
    assert (np.abs(eight.values * step - matrix) <= 0.502 * step).all()
    four = round4(matrix, block_size, scale_rows=True)
    groups = (four.values.reshape(-1, block_size) * four.multipliers[:, None].astype(np.float32)).reshape(8, 64)
    error = groups * four.scales.astype(np.float32)[:, None] - matrix
    assert np.sqrt((error**2).mean()) < 0.15 * matrix.std()


def test_the_grid_beats_the_largest_value_as_scale():
    matrix = values(64, 64)
    four = round4(matrix, 32, scale_rows=True)
    ours = (four.values.reshape(-1, 32) * four.multipliers[:, None].astype(np.float32)).reshape(64, 64)
    ours *= four.scales.astype(np.float32)[:, None]
    groups = matrix.reshape(-1, 32)
    steps = np.abs(groups).max(axis=1, keepdims=True) / 7
    theirs = (np.rint(groups / steps) * steps).reshape(64, 64)
    assert ((ours - matrix) ** 2).sum() < 0.9 * ((theirs - matrix) ** 2).sum()


def test_the_graph_unpacks_what_numpy_unpacks(float_model: Path, tmp_path: Path):
    quantize(float_model, tmp_path / "q.onnx", Scheme(4, 8))
    packed = onnx.load(tmp_path / "q.onnx")
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(float_model).graph.initializer}
    theirs = unfold4(fold4(floats["twin.weight"], floats["narrow.weight"], 32))
    names = [node.output[0] for node in packed.graph.node if node.op_type == "Reshape"][-2:]
    packed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT8, None) for name in names)
    session = onnxruntime.InferenceSession(packed.SerializeToString(), providers=["CPUExecutionProvider"])
    ours = session.run(names, {"input_ids": IDS, "token_type_ids": IDS % 2})
    assert (ours[0] == theirs[0].reshape(WIDTH, 4 * WIDTH)).all()
    assert (ours[1] == theirs[1].reshape(4 * WIDTH, WIDTH)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_both_halves_of_a_byte_are_near_their_matrix(seed: int, size: float):
    high, low = values(32, 48, seed=seed) * np.float32(size), values(48, 32, seed=seed + 1)
    folded = fold4(high, low, 32)
    scales = (folded.high_scales, folded.low_scales)
    for matrix, unpacked, scale in zip((high, low), unfold4(folded), scales, strict=True):
        error = unpacked.reshape(matrix.shape) * scale.astype(np.float32) - matrix
        assert np.sqrt((error**2).mean()) < 0.12 * matrix.std()


def test_lines_that_do_not_fill_blocks_are_refused():
    with pytest.raises(ValueError, match="do not fill blocks of 32"):
        round4(values(3, 5), 32, scale_rows=True)
    with pytest.raises(ValueError, match="do not share bytes"):
        fold4(values(3, 32), values(4, 32), 32)

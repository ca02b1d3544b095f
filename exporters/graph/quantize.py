"""Quantise a cleaned ONNX graph: matrices to 8 or 4 bits, embedding tables to 8 or 4 bits.

| tensor     | 8 bits                                             | 4 bits                                          |
|------------|----------------------------------------------------|-------------------------------------------------|
| matrices   | DynamicQuantizeLinear, MatMulInteger, Cast, Mul    | the same, after int8 weights are unpacked once  |
| embeddings | Gather of int8 rows and of their scales, Cast, Mul | GatherBlockQuantized (com.microsoft), Mul       |

Four-bit matrices are stored in pairs, two values per byte, and unpacked to int8 by nodes with constant inputs only
(BitwiseAnd, QLinearConv, Reshape), which onnxruntime folds when it loads the file: 4 bits on disk, the speed of int8.
A matrix without a partner of its size keeps 8 bits. The other kernel, ``blocked``, is MatMulNBits (com.microsoft):
half as fast on CPU, but it needs about 3 bytes per weight less memory while loading. Float16 scales are likewise
followed by a Cast that is folded.

A graph whose metadata say so keeps float activations: its weights, those of convolutions and recurrent nets too, have 8
bits in the file and are widened when it is loaded (``exporters.graph.widened``), also where the scheme says 4.

Products of two activations (attention scores) stay float. If a constant matrix or a float table is left, it raises,
unless told that this is allowed. It takes graphs cleaned by ``exporters.graph.optimize``; it needs no calibration data.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from exporters.graph.optimize import drop_unused, initializers, replace_nodes, save
from exporters.graph.quantized_nodes import Kernel, Writer
from exporters.graph.stored_once import check_stored_once, float_products, identity_of
from exporters.graph.widened import Weight, keeps_float, weights_of, widen
from exporters.refused import Refused
from exporters.shape import Scheme


class QuantizeResult(NamedTuple):
    """Exact counts: constant matrices and float tables found, and how many of them were quantised."""

    n_matmuls: int
    n_matmuls_quantized: int
    n_gathers: int
    n_gathers_quantized: int
    left_float: list[str]  # constant matrices and tables that are still float, with their shapes
    bytes_before: int
    bytes_after: int
    stored: dict[str, int]  # exporters.graph.stored_once.Identity: the file is its unique tensors and a small rest


def quantize(
    path: Path, out: Path, scheme: Scheme, *, kernel: Kernel = "folded", allow_float: bool = False
) -> QuantizeResult:
    """Quantise the graph in ``path`` by the scheme and write it to ``out``.

    Raises:
        ValueError: if a tensor that the scheme quantises would stay float, or a product with a constant matrix, and
            ``allow_float`` is not set; or if a tensor would be stored more than once.
    """
    bytes_before = path.stat().st_size
    model = onnx.load(path, format="protobuf")  # whatever its suffix
    is_float = keeps_float(model)
    if is_float and scheme.weight_bits:
        scheme = replace(scheme, weight_bits=8)
    writer = Writer(model, scheme, kernel)
    matmuls, gathers = [0, 0], [0, 0]  # found, quantised
    nodes: list[NodeProto] = []
    widened: list[Weight] = []
    for node in list(model.graph.node):
        if is_float and (weights := weights_of(node, writer.floats)):
            matmuls[0] += len(weights)
            matmuls[1] += len(weights) if scheme.weight_bits else 0
            widened += weights if scheme.weight_bits else []
            nodes.append(node)
            continue
        is_matrix = writer.is_matrix(node)
        is_ours = is_matrix or writer.is_table(node)
        is_wanted = is_ours and writer.is_wanted(node)
        found = matmuls if is_matrix else gathers
        found[0] += is_ours
        found[1] += is_wanted
        nodes += (writer.matmul if is_matrix else writer.gather)(node) if is_wanted else [node]
    replace_nodes(model, widen(model, widened, writer.floats) + writer.unpacking + nodes)
    drop_unused(model)
    left_float = _left_float(model, scheme)
    if left_float and not allow_float:
        raise Refused(
            f"quantize: {len(left_float)} constant tensors would stay float ({', '.join(left_float[:3])}), expected "
            "none. Clean the graph with exporters.graph.optimize first, or allow it."
        )
    in_float = float_products(model) if scheme.weight_bits is not None else []
    if in_float and not allow_float:
        raise Refused(
            f"quantize: {len(in_float)} products would multiply a constant matrix in float ({', '.join(in_float[:3])}),"
            f" expected none at {scheme.name}. Clean the graph with exporters.graph.optimize first, or allow it."
        )
    if scheme != Scheme(None, None, scheme.block_size):
        shorten_names(model)
    check_stored_once(model, writer.floats)
    save(model, out)
    counts = matmuls[0], matmuls[1], gathers[0], gathers[1]
    return QuantizeResult(*counts, left_float, bytes_before, out.stat().st_size, identity_of(out)._asdict())


def shorten_names(model: ModelProto) -> None:
    """Drop node names and number the intermediate values: they cost bytes. Tensors, inputs and outputs keep theirs."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)} | set(initializers(model)) | {""}
    short: dict[str, str] = {}
    for node in model.graph.node:
        node.ClearField("name")
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name not in kept:
                    names[index] = short.setdefault(name, f"v{len(short)}")


def _left_float(model: ModelProto, scheme: Scheme) -> list[str]:
    """Return the float tensors with two or more dimensions that the scheme should have quantised."""
    readers = {name: node for node in model.graph.node for name in node.input}
    biases = {node.input[3] for node in model.graph.node if node.op_type in ("GRU", "LSTM")}  # a row per direction
    left = []
    for tensor in model.graph.initializer:
        if tensor.name in biases or tensor.name.endswith(".scale16"):
            continue
        is_float = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
        if is_float and sum(size > 1 for size in tensor.dims) > 1:
            bits = scheme.embedding_bits if readers[tensor.name].op_type == "Gather" else scheme.weight_bits
            if bits is not None:
                left.append(f"{tensor.name} {'x'.join(map(str, tensor.dims))}")
    return left

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

Products of two activations (attention scores) stay float. If a constant matrix or a float table is left, it raises,
unless told that this is allowed. It takes graphs cleaned by ``exporters.optimize``; it needs no calibration data.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters.blocks import Floats, fold4, round4, round8
from exporters.budget import Scheme, fits_4_bits
from exporters.optimize import drop_unused, initializers, replace_nodes, save

CONTRIB = "com.microsoft"
Kernel = Literal["folded", "blocked"]


class QuantizeResult(NamedTuple):
    """Exact counts: constant matrices and float tables found, and how many of them were quantised."""

    n_matmuls: int
    n_matmuls_quantized: int
    n_gathers: int
    n_gathers_quantized: int
    left_float: list[str]  # constant matrices and tables that are still float, with their shapes
    bytes_before: int
    bytes_after: int


def quantize(
    path: Path, out: Path, scheme: Scheme, *, kernel: Kernel = "folded", allow_float: bool = False
) -> QuantizeResult:
    """Quantise the graph in ``path`` by the scheme and write it to ``out``.

    Raises:
        ValueError: if a tensor that the scheme quantises would stay float and ``allow_float`` is not set.
    """
    bytes_before = path.stat().st_size
    model = onnx.load(path)
    writer = _Writer(model, scheme, kernel)
    n_matmuls = n_matmuls_quantized = n_gathers = n_gathers_quantized = 0
    nodes: list[NodeProto] = []
    for node in list(model.graph.node):
        if writer.is_matrix(node):
            n_matmuls += 1
            n_matmuls_quantized += scheme.weight_bits is not None
            nodes += [node] if scheme.weight_bits is None else writer.matmul(node)
        elif writer.is_table(node):
            n_gathers += 1
            n_gathers_quantized += scheme.embedding_bits is not None
            nodes += [node] if scheme.embedding_bits is None else writer.gather(node)
        else:
            nodes.append(node)
    replace_nodes(model, writer.unpacking + nodes)
    drop_unused(model)
    left_float = _left_float(model, scheme)
    if left_float and not allow_float:
        raise ValueError(
            f"quantize: {len(left_float)} constant tensors would stay float ({', '.join(left_float[:3])}), expected "
            "none. Clean the graph with exporters.optimize first, or allow it."
        )
    if scheme != Scheme(None, None, scheme.block_size):
        shorten_names(model)
    save(model, out)
    counts = (n_matmuls, n_matmuls_quantized, n_gathers, n_gathers_quantized)
    return QuantizeResult(*counts, left_float, bytes_before, out.stat().st_size)


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
    left = []
    for tensor in model.graph.initializer:
        is_float = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
        if is_float and sum(size > 1 for size in tensor.dims) > 1:
            bits = scheme.embedding_bits if readers[tensor.name].op_type == "Gather" else scheme.weight_bits
            if bits is not None:
                left.append(f"{tensor.name} {'x'.join(map(str, tensor.dims))}")
    return left


class _Writer:
    """Writes the nodes that replace a MatMul or a Gather, each tensor once however often it is used."""

    def __init__(self, model: ModelProto, scheme: Scheme, kernel: Kernel) -> None:
        self.graph = model.graph
        self.scheme = scheme
        self.floats = initializers(model)
        self.names = set(self.floats)
        self.quantized_activations: set[str] = set()
        self.unpacking: list[NodeProto] = []  # nodes with constant inputs only; they go first
        self.blocked: set[str] = set()
        self.folded: set[str] = set()
        if scheme.weight_bits == 4:
            self._plan(model, kernel)
        if self.blocked or scheme.embedding_bits == 4:
            model.opset_import.append(helper.make_opsetid(CONTRIB, 1))

    def _plan(self, model: ModelProto, kernel: Kernel) -> None:
        """Decide which matrices get 4 bits, and fold them in pairs of equal size; a leftover one keeps 8 bits."""
        block_size = self.scheme.block_size
        names = dict.fromkeys(node.input[1] for node in model.graph.node if self.is_matrix(node))
        sizes = {name: tuple(self.floats[name].dims) for name in names}
        large = [name for name, (rows, columns) in sizes.items() if fits_4_bits(rows, columns, block_size)]
        if kernel == "blocked":
            self.blocked = {name for name in large if sizes[name][0] % block_size == 0}
            return
        waiting: dict[int, str] = {}
        for name in large:
            n_values = sizes[name][0] * sizes[name][1]
            partner = waiting.pop(n_values, None)
            if partner is None:
                waiting[n_values] = name
            else:
                self.folded |= {partner, name}
                self._fold_pair(partner, name)

    def is_matrix(self, node: NodeProto) -> bool:
        """Say whether this is a product with a constant float matrix."""
        return node.op_type == "MatMul" and self._is_float_matrix(node.input[1])

    def is_table(self, node: NodeProto) -> bool:
        """Say whether this looks up rows of a constant float table."""
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return node.op_type == "Gather" and axis == 0 and self._is_float_matrix(node.input[0])

    def _is_float_matrix(self, name: str) -> bool:
        tensor = self.floats.get(name)
        return tensor is not None and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2

    def matmul(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that replace a MatMul with a constant matrix."""
        source, weight, product = node.input[0], node.input[1], node.output[0]
        matrix = self._array(weight)  # (inputs, outputs)
        if weight in self.blocked:
            return [self._blocked_matmul(source, _stem(weight), product, matrix)]
        stem = _stem(weight)
        if weight not in self.folded and f"{stem}.int8" not in self.names:
            rounded = round8(np.ascontiguousarray(matrix.T))  # one scale per output
            self._add(f"{stem}.int8", rounded.values.T)
            self._add_scales(stem, rounded.scales)
        values, scales = f"{stem}.int8", f"{stem}.scale"
        nodes = []
        if source not in self.quantized_activations:  # query, key and value share one
            self.quantized_activations.add(source)
            outputs = [f"{source}_uint8{part}" for part in ("", "_scale", "_zero")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [source], outputs))
        return [
            *nodes,
            helper.make_node("MatMulInteger", [f"{source}_uint8", values, f"{source}_uint8_zero"], [f"{product}_int"]),
            helper.make_node("Cast", [f"{product}_int"], [f"{product}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{source}_uint8_scale", scales], [f"{product}_scale"]),
            helper.make_node("Mul", [f"{product}_float", f"{product}_scale"], [product]),
        ]

    def _fold_pair(self, high: str, low: str) -> None:
        """Store two matrices in 4 bits and unpack them to int8 with standard operators (``blocks.fold4``).

        A grouped 1 x 1 convolution multiplies each block by its multiplier: the only standard operator that multiplies
        int8 by int8 into int8.
        """
        folded = fold4(self._array(high), self._array(low), self.scheme.block_size)
        n_blocks = len(folded.packed)
        packed = self._add(f"{_stem(high)}+{_stem(low)}.int4", folded.packed[None])  # (1, blocks, block)
        self._unpack("BitwiseAnd", [packed, self._scalar(15)], f"{packed}_low")
        one, zero = self._scalar(1.0), self._scalar(0)
        for name, source, scale, multipliers, scales in (
            (high, packed, 1 / 16, folded.high_multipliers, folded.high_scales),
            (low, f"{packed}_low", 1.0, folded.low_multipliers, folded.low_scales),
        ):
            stem, matrix = _stem(name), self._array(name)
            weights = self._add(f"{stem}.m", multipliers.reshape(n_blocks, 1, 1))
            inputs = [source, self._scalar(scale), self._scalar(8), weights, one, zero, one, zero]
            self._unpack("QLinearConv", inputs, f"{stem}.blocks", group=n_blocks, kernel_shape=[1])
            shape = self._add(f"shape_{'x'.join(map(str, matrix.shape))}", np.array(matrix.shape, dtype=np.int64))
            self._unpack("Reshape", [f"{stem}.blocks", shape], f"{stem}.int8")
            self._add_scales(stem, scales)

    def _blocked_matmul(self, source: str, name: str, product: str, matrix: Floats) -> NodeProto:
        n_inputs, n_outputs = matrix.shape
        block_size = self.scheme.block_size
        if f"{name}.int4" not in self.names:
            rounded = round4(np.ascontiguousarray(matrix.T), block_size, scale_rows=True)
            self._add(f"{name}.int4", _pack(rounded.values).reshape(n_outputs, -1, block_size // 2))
            self._add_scales(f"{name}.row", rounded.scales[:, None])  # (outputs, 1)
            self._add_multipliers(name, rounded.multipliers.reshape(n_outputs, -1))
            self._unpack("Mul", [f"{name}.multiplier", f"{name}.row.scale"], f"{name}.scale")
        return helper.make_node(
            "MatMulNBits",
            [source, f"{name}.int4", f"{name}.scale"],
            [product],
            domain=CONTRIB,
            K=n_inputs,
            N=n_outputs,
            bits=4,
            block_size=block_size,
            accuracy_level=4,  # int8 arithmetic: faster than 0 at every block size, and not less exact
        )

    def gather(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that replace a lookup in a float table."""
        name, indices, rows = _stem(node.input[0]), node.input[1], node.output[0]
        table = self._array(node.input[0])  # (rows, width)
        (n_rows, width), block_size = table.shape, self.scheme.block_size
        if self.scheme.embedding_bits == 4 and width % block_size == 0 and fits_4_bits(n_rows, width, block_size):
            return self._gather4(name, indices, rows, table)
        if f"{name}.int8" not in self.names:
            rounded = round8(table)
            self._add(f"{name}.int8", rounded.values)
            self._add_scales(name, rounded.scales[:, None])  # (rows, 1)
        return [
            helper.make_node("Gather", [f"{name}.int8", indices], [f"{rows}_int"]),
            helper.make_node("Gather", [f"{name}.scale", indices], [f"{rows}_scale"]),
            helper.make_node("Cast", [f"{rows}_int"], [f"{rows}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{rows}_float", f"{rows}_scale"], [rows]),
        ]

    def _gather4(self, name: str, indices: str, rows: str, table: Floats) -> list[NodeProto]:
        if f"{name}.int4" not in self.names:
            rounded = round4(table, self.scheme.block_size, scale_rows=False)
            self._add(f"{name}.int4", _pack(rounded.values))  # (rows, width / 2)
            self._add_scales(name, rounded.scales)  # (width,)
            self._add_multipliers(name, rounded.multipliers.reshape(len(table), -1))
        settings = {"bits": 4, "block_size": self.scheme.block_size, "gather_axis": 0, "quantize_axis": 1}
        inputs = [f"{name}.int4", indices, f"{name}.multiplier"]
        return [
            helper.make_node("GatherBlockQuantized", inputs, [f"{rows}_whole"], domain=CONTRIB, **settings),
            helper.make_node("Mul", [f"{rows}_whole", f"{name}.scale"], [rows]),
        ]

    def _array(self, name: str) -> Floats:
        return np.asarray(numpy_helper.to_array(self.floats[name]), dtype=np.float32)

    def _add(self, name: str, array: NDArray[np.generic]) -> str:
        if name not in self.names:
            self.names.add(name)
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def _scalar(self, value: float) -> str:
        kind, array = ("float", np.float32(value)) if isinstance(value, float) else ("int8", np.int8(value))
        return self._add(f"{kind}_{value:g}", np.array(array))

    def _unpack(self, operator: str, inputs: list[str], output: str, **settings: int | list[int]) -> None:
        self.unpacking.append(helper.make_node(operator, inputs, [output], **settings))

    def _add_scales(self, name: str, scales: NDArray[np.float16]) -> None:
        self._unpack("Cast", [self._add(f"{name}.scale16", scales)], f"{name}.scale", to=TensorProto.FLOAT)

    def _add_multipliers(self, name: str, multipliers: NDArray[np.int8]) -> None:
        self._unpack("Cast", [self._add(f"{name}.m", multipliers)], f"{name}.multiplier", to=TensorProto.FLOAT)


def _stem(name: str) -> str:
    return name.removesuffix(".weight")


def _pack(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return two 4-bit values per byte, offset by 8, the first in the low half: ``(rows, columns / 2)``."""
    codes = (values + 8).astype(np.uint8)
    packed: NDArray[np.uint8] = codes[:, 0::2] + 16 * codes[:, 1::2]
    return packed

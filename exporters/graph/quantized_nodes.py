"""The nodes that stand for a product or a lookup with few bits, and the tensors they read: each stored once.

A tensor is stored once however often it is read, with one set of scales: activations get theirs while the model runs,
so the scales of a weight depend on nothing but the weight. A product with the *transpose* of a stored matrix reads the
same values through a Transpose node, which is folded when the file is loaded; the scales then belong to its inputs, so
they multiply the activation before that is rounded.

Nodes with constant inputs only (unpacking 4 bits, widening scales, transposing) go first and exist once per tensor.
``exporters.graph.quantize`` decides what is replaced, and says what the formats are.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters.graph.optimize import initializers
from exporters.graph.rounding import Floats, fold4, round4, round8
from exporters.shape import Scheme, fits_4_bits

CONTRIB = "com.microsoft"
Kernel = Literal["folded", "blocked"]


class Writer:
    """Writes the nodes that replace a MatMul or a Gather, each tensor once however often it is used."""

    def __init__(self, model: ModelProto, scheme: Scheme, kernel: Kernel) -> None:
        self.graph = model.graph
        self.scheme = scheme
        self.floats = initializers(model)
        self.names = set(self.floats)
        self.turned = {  # what a product reads, by the name of its transpose
            node.output[0]: node.input[0]
            for node in model.graph.node
            if node.op_type == "Transpose" and self._is_float_matrix(node.input[0])
        }
        self.tables = {node.input[0] for node in model.graph.node if self.is_table(node)}
        multiplied = {node.input[1] for node in model.graph.node if self.is_matrix(node)}
        # Also read transposed, or by rows and as a matrix: 4 bits in blocks serve one way of reading only.
        self.tied = {self.turned[name] for name in multiplied & set(self.turned)} | (multiplied & self.tables)
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
        names = dict.fromkeys(self._stored(node.input[1]) for node in model.graph.node if self.is_matrix(node))
        sizes = {name: tuple(self.floats[name].dims) for name in names if name not in self.tables}
        large = [name for name, (rows, columns) in sizes.items() if fits_4_bits(rows, columns, block_size)]
        if kernel == "blocked":
            self.blocked = {name for name in large if sizes[name][0] % block_size == 0 and name not in self.tied}
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
        """Say whether this is a product with a constant float matrix, or with the transpose of one."""
        return node.op_type == "MatMul" and self._is_float_matrix(self._stored(node.input[1]))

    def is_table(self, node: NodeProto) -> bool:
        """Say whether this looks up rows of a constant float table."""
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return node.op_type == "Gather" and axis == 0 and self._is_float_matrix(node.input[0])

    def is_wanted(self, node: NodeProto) -> bool:
        """Say whether the scheme has bits for this matrix or table; what is both is stored once, so bits for any do."""
        scheme = self.scheme
        name = node.input[0] if self.is_table(node) else self._stored(node.input[1])
        if name in self.tied & self.tables:
            return scheme.weight_bits is not None or scheme.embedding_bits is not None
        return (scheme.embedding_bits if self.is_table(node) else scheme.weight_bits) is not None

    def _stored(self, name: str) -> str:
        return self.turned.get(name, name)

    def _is_float_matrix(self, name: str) -> bool:
        tensor = self.floats.get(name)
        return tensor is not None and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2

    def matmul(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that replace a MatMul with a constant matrix."""
        source, weight, product = node.input[0], self._stored(node.input[1]), node.output[0]
        if weight in self.blocked:
            return [self._blocked_matmul(source, _stem(weight), product, self._array(weight))]
        is_turned = node.input[1] != weight
        self._store(weight)
        values, scales = f"{_stem(weight)}.int8", f"{_stem(weight)}.scale"
        if is_turned:
            values = self._turn(values)
        if weight in self.tables:
            scales = self._turn(scales)  # (rows, 1) -> (1, rows)
        nodes = []
        # A matrix has a scale per column, a table one per row: do they belong to the outputs of this product?
        on_outputs = is_turned == (weight in self.tables)
        if not on_outputs:
            nodes.append(helper.make_node("Mul", [source, scales], [f"{product}_scaled"]))
            source = f"{product}_scaled"
        if source not in self.quantized_activations:  # query, key and value share one
            self.quantized_activations.add(source)
            outputs = [f"{source}_uint8{part}" for part in ("", "_scale", "_zero")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [source], outputs))
        scale = f"{source}_uint8_scale"
        nodes += [
            helper.make_node("MatMulInteger", [f"{source}_uint8", values, f"{source}_uint8_zero"], [f"{product}_int"]),
            helper.make_node("Cast", [f"{product}_int"], [f"{product}_float"], to=TensorProto.FLOAT),
        ]
        if on_outputs:
            nodes.append(helper.make_node("Mul", [scale, scales], [f"{product}_scale"]))
            scale = f"{product}_scale"
        return [*nodes, helper.make_node("Mul", [f"{product}_float", scale], [product])]

    def _store(self, name: str) -> None:
        """Store a matrix in 8 bits with a scale per column, or a table with one per row, unless it is there already."""
        stem = _stem(name)
        if name in self.folded or f"{stem}.int8" in self.names:
            return
        array = self._array(name)
        if name in self.tables:
            rounded = round8(array)
            self._add(f"{stem}.int8", rounded.values)
            self._add_scales(stem, rounded.scales[:, None])  # (rows, 1)
        else:
            rounded = round8(np.ascontiguousarray(array.T))  # (outputs, inputs): one scale per output
            self._add(f"{stem}.int8", rounded.values.T)
            self._add_scales(stem, rounded.scales)

    def _turn(self, name: str) -> str:
        """Return the name of the transpose of a stored tensor."""
        if f"{name}_T" not in self.names:
            self.names.add(f"{name}_T")
            self._unpack("Transpose", [name], f"{name}_T", perm=[1, 0])
        return f"{name}_T"

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
        has_4_bits = self.scheme.embedding_bits == 4 and node.input[0] not in self.tied
        if has_4_bits and width % block_size == 0 and fits_4_bits(n_rows, width, block_size):
            return self._gather4(name, indices, rows, table)
        self._store(node.input[0])
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

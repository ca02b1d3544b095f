"""Weights of 8 bits on disk that are float once the file is loaded: for graphs whose activations stay float.

    int8 values -> Cast -> Mul by a float16 scale per output (widened by Cast)

The nodes have constant inputs only, so every runtime of ONNX folds them when it loads the file, with standard
operators: a product, a convolution or a recurrent net then runs as fast and as exactly as a float one, and an answer
depends on nothing else that is in the batch. (DequantizeLinear would not be folded: onnxruntime keeps it for fusions.)
It pays where weights are few; ``exporters.graph.quantized_nodes`` multiplies in 8 bits instead.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters.graph.rounding import Rounded8, round8
from exporters.small.shape import FLOAT_ACTIVATIONS

# Which inputs of an operator are weights, and along which axis their outputs lie, counted from the end.
WEIGHTS = {"MatMul": ((1, 1),), "Conv": ((1, 3),), "GRU": ((1, 2), (2, 2)), "LSTM": ((1, 2), (2, 2))}


class Weight(NamedTuple):
    """A weight that a node reads."""

    name: str
    axis: int  # of its outputs, counted from the end


def keeps_float(model: ModelProto) -> bool:
    """Return whether the graph's metadata say that its activations stay float."""
    return any(entry.key == FLOAT_ACTIVATIONS and entry.value == "true" for entry in model.metadata_props)


def weights_of(node: NodeProto, floats: dict[str, TensorProto]) -> list[Weight]:
    """Return the constant float weights of a node, those with an axis of outputs and one of inputs."""
    found = []
    for position, axis in WEIGHTS.get(node.op_type, ()):
        tensor = floats.get(node.input[position])
        if tensor is not None and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= max(2, axis):
            found.append(Weight(tensor.name, axis))
    return found


def widen(model: ModelProto, weights: list[Weight], floats: dict[str, TensorProto]) -> list[NodeProto]:
    """Store the weights in 8 bits, each once, and return the nodes that make the float ones under their names."""
    nodes = []
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in {weight.name for weight in weights}]
    copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]  # the old ones die with the list
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    for name, axis in dict.fromkeys(weights):
        stem = name.removesuffix(".weight")
        values, scales = _round(np.asarray(numpy_helper.to_array(floats[name]), dtype=np.float32), axis)
        for array, suffix in ((values, "int8"), (scales, "scale16")):
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), f"{stem}.{suffix}"))
            source, made = f"{stem}.{suffix}", f"{stem}.{suffix}_float"
            nodes.append(helper.make_node("Cast", [source], [made], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{stem}.int8_float", f"{stem}.scale16_float"], [name]))
    return nodes


def _round(array: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Return values of the array's shape, and scales that spread over it.

    Axes in front of the outputs (directions of a recurrent net) count as outputs too, those behind as inputs; of a
    matrix of a product, whose outputs come last, the axis in front is that of the inputs.
    """
    is_last = axis == 1
    turned = array.T if is_last else array
    outputs = turned.shape[: 1 if is_last else turned.ndim - axis + 1]
    rounded: Rounded8 = round8(np.ascontiguousarray(turned.reshape(int(np.prod(outputs)), -1)))
    values = rounded.values.reshape(turned.shape)
    scales = rounded.scales.reshape(*outputs, *(1,) * (turned.ndim - len(outputs)))
    return (values.T, scales.T) if is_last else (values, scales)

"""Prove that a file holds every weight once: its bytes are those of its unique tensors and a small rest.

    bytes of the file = bytes of the unique tensors + overhead (nodes, names, shapes, small constants)

The first sum is counted in the written file. That the tensors are unique is checked in two steps: every float matrix of
a cleaned graph is a tensor of the checkpoint, by content, and none is there twice, not even transposed; and every
tensor of that graph is in the quantised file exactly once, in one precision. A weight stored twice fails the build.

It knows no architecture and compares no outputs (``exporters.measuring.parity`` does).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from exporters.graph.ledger import MIN_TENSOR_VALUES, Part, model_parts
from exporters.refused import Refused

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


class Identity(NamedTuple):
    """``bytes_file == bytes_tensors + bytes_overhead``, and what the tensors hold."""

    bytes_file: int
    bytes_tensors: int
    bytes_overhead: int
    n_values: int  # weights stored, each once; scales do not count
    n_values_used: int  # the same, times how often each is read: what a file without sharing would store
    n_shared: int  # matrices and tables that are read more than once


def identity_of(path: Path) -> Identity:
    """Count the bytes and values in a written file."""
    parts = [part for part in model_parts(path, path.name) if part.kind != "graph"]
    n_bytes, n_tensor_bytes = path.stat().st_size, sum(part.bytes for part in parts)
    held = [part for part in parts if part.kind != "scales"]
    return Identity(
        bytes_file=n_bytes,
        bytes_tensors=n_tensor_bytes,
        bytes_overhead=n_bytes - n_tensor_bytes,
        n_values=sum(_n_values(part) for part in held),
        n_values_used=sum(_n_values(part) * max(1, part.uses) // _n_matrices(part) for part in held),
        n_shared=sum(part.uses > _n_matrices(part) for part in held if part.kind != "vectors"),
    )


def check_checkpoint(path: Path, parameters: Mapping[str, str]) -> Identity:
    """Check that a cleaned float graph holds matrices of the checkpoint only, each once.

    Args:
        path: of the graph that ``exporters.graph.optimize`` wrote.
        parameters: the checkpoint's tensors, name by ``digest`` (``ExportResult.parameters``).

    Raises:
        ValueError: if a matrix is there twice, or is not one of the checkpoint's.
    """
    seen: dict[str, str] = {}
    for tensor in onnx.load(path).graph.initializer:
        if not _counts(tensor):
            continue
        key, shape = digest(numpy_helper.to_array(tensor)), "x".join(map(str, tensor.dims))
        is_matrix = sum(size > 1 for size in tensor.dims) > 1
        if is_matrix and key in seen:  # vectors of other dimensions, (1, n) and (n,), may hold the same by chance
            raise Refused(
                f"export: {tensor.name} ({shape}) is stored twice, the other time as {seen[key]}, expected once. "
                "Clean the graph with exporters.graph.optimize."
            )
        if is_matrix and key not in parameters:
            raise Refused(
                f"export: {tensor.name} ({shape}) holds other values than every tensor of the checkpoint, expected one "
                "of them. A weight was computed while exporting; try another version of torch."
            )
        seen[key] = tensor.name
    return identity_of(path)


def check_stored_once(model: ModelProto, floats: Mapping[str, TensorProto]) -> None:
    """Check that a quantised graph holds every tensor of the float graph it was made of exactly once, and no other.

    Args:
        model: the quantised graph.
        floats: the initializers of the float graph, by name.

    Raises:
        ValueError: if a tensor is stored twice (in two precisions, say), is missing, or was added.
    """
    holders: dict[str, list[str]] = {}
    for tensor in model.graph.initializer:
        if not tensor.name.endswith((".scale16", ".m")) and _size(tensor) >= MIN_TENSOR_VALUES:
            for name in tensor.name.removesuffix(".int8").removesuffix(".int4").removesuffix(".weight").split("+"):
                holders.setdefault(name, []).append(tensor.name)
    for name, tensor in floats.items():
        found = holders.pop(name.removesuffix(".weight"), [])
        if len(found) != 1 and _counts(tensor):
            where = f"stored {len(found)} times ({', '.join(found)})" if found else "not stored"
            raise Refused(
                f"quantize: {name} ({'x'.join(map(str, tensor.dims))}) is {where}, expected once. "
                "Clean the graph with exporters.graph.optimize first."
            )
    if holders:
        added = next(iter(holders.values()))[0]
        raise Refused(f"quantize: {added} is in the file, but not in the graph it was made of. Report this.")


def float_products(model: ModelProto) -> list[str]:
    """Return the nodes that read a constant float matrix, by name or, without one, by what they make.

    It sees through nodes with constant inputs (Identity, Transpose), behind which quantisers lose sight of a weight.
    """
    constants = {tensor.name for tensor in model.graph.initializer if _counts(tensor) and len(tensor.dims) > 1}
    found = []
    for node in model.graph.node:
        if node.op_type in ("Identity", "Transpose") and node.input[0] in constants:
            constants.add(node.output[0])
        elif node.op_type == "Constant" and node.attribute[0].name == "value" and len(node.attribute[0].t.dims) > 1:
            constants |= {node.output[0]} if _counts(node.attribute[0].t) else set()
        elif node.op_type in ("MatMul", "Gemm") and any(name in constants for name in node.input[:2]):
            found.append(node.name or node.output[0])
    return found


def digest(array: NDArray[np.generic]) -> str:
    """Return a name for the values as float32: the same for a matrix and its transpose, and for (n,) and (1, n)."""
    values = np.ascontiguousarray(array, dtype=np.float32).squeeze()
    turned = [values] if values.ndim != 2 else [values, np.ascontiguousarray(values.T)]
    return min(f"{each.shape} {hashlib.sha256(each.data).hexdigest()}" for each in turned)


def _counts(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOATS and _size(tensor) >= MIN_TENSOR_VALUES


def _size(tensor: TensorProto) -> int:
    return int(np.prod(tensor.dims, dtype=np.int64))


def _n_values(part: Part) -> int:
    return 2 * part.bytes if part.name.endswith(".int4") else part.n_values  # two in a byte


def _n_matrices(part: Part) -> int:
    return part.name.count("+") + 1  # two of 4 bits lie in the halves of one tensor

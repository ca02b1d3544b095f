"""Every byte of a package: which tensor, in which precision, used how often; and everything that is no tensor.

The parts add up to the folder's bytes exactly: what is left of an ONNX file after its tensors is the graph (nodes,
names, shapes, small constants). It reads files and runs nothing.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

Kind = Literal[
    "embeddings", "weights", "scales", "vectors", "graph", "tokenizer", "labels", "manifest", "card", "other"
]
FILE_KINDS: dict[str, Kind] = {
    "manifest.json": "manifest",
    "config.json": "labels",
    "README.md": "card",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "tokenizer",
    "special_tokens_map.json": "tokenizer",
    "vocab.txt": "tokenizer",
}
MIN_TENSOR_VALUES = 16  # smaller constants (axes, shapes, epsilons) belong to the graph
LOOKUPS = ("Gather", "GatherBlockQuantized")


class Part(NamedTuple):
    """Some bytes of one file."""

    file: str
    name: str
    kind: Kind
    dtype: str  # of the tensor; "" for what is no tensor
    n_values: int
    bytes: int
    uses: int  # nodes that read the tensor; those that only unpack or transpose it stand for their own readers


def ledger(package_dir: Path) -> list[Part]:
    """Return the parts of all files under ``package_dir``, the largest first.

    Raises:
        FileNotFoundError: if the folder is missing or empty.
    """
    paths = sorted(path for path in package_dir.rglob("*") if path.is_file())
    if not paths:
        raise FileNotFoundError(f"ledger: {package_dir} is missing or empty. Give the folder of a package.")
    parts: list[Part] = []
    for path in paths:
        name = path.relative_to(package_dir).as_posix()
        if path.suffix == ".onnx":
            parts += model_parts(path, name)
        else:
            kind = FILE_KINDS.get(path.name, "other")
            parts.append(Part(name, path.name, kind, "", 0, path.stat().st_size, 0))
    return sorted(parts, key=lambda part: (-part.bytes, part.file, part.name))


def model_parts(path: Path, file: str) -> Iterator[Part]:
    """Yield the tensors of one ONNX file, then its graph."""
    model = onnx.load(path)
    readers: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, index))
    count = _counter(model, readers)
    left = path.stat().st_size
    for tensor in model.graph.initializer:
        n_values = int(np.prod(tensor.dims, dtype=np.int64))
        if n_values < MIN_TENSOR_VALUES or tensor.data_type == TensorProto.INT64:
            continue
        n_bytes = len(tensor.raw_data) or n_values * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        uses = readers.get(tensor.name, [])
        dtype = TensorProto.DataType.Name(tensor.data_type).lower()
        yield Part(file, tensor.name, _kind(tensor, uses), dtype, n_values, n_bytes, count(tensor.name))
        left -= n_bytes
    yield Part(file, "graph", "graph", "", 0, left, 0)


def _counter(model: ModelProto, readers: dict[str, list[tuple[NodeProto, int]]]) -> Callable[[str], int]:
    """Return a function that counts the readers of a constant, seeing through nodes that are folded at loading."""
    constants = {tensor.name for tensor in model.graph.initializer} | {""}
    folded: set[str] = set()  # first outputs
    for node in model.graph.node:
        if node.input and constants.issuperset(node.input):
            constants.update(node.output)
            folded.add(node.output[0])

    def count(name: str) -> int:
        nodes = [node for node, _ in readers.get(name, [])]
        return sum(count(node.output[0]) if node.output[0] in folded else 1 for node in nodes)

    return count


def _kind(tensor: TensorProto, uses: list[tuple[NodeProto, int]]) -> Kind:
    """Say what a tensor is for from the node that reads it."""
    if not uses:
        return "other"
    node, index = uses[0]
    is_small = sum(size > 1 for size in tensor.dims) < 2
    if node.op_type in LOOKUPS and index == 0 and tensor.data_type != TensorProto.FLOAT16:
        return "embeddings"
    is_cast = node.op_type == "Cast" and not tensor.name.endswith(".int8")  # those are widened weights
    if is_cast or (node.op_type == "QLinearConv" and index == 3):  # its weights
        return "scales"
    return "vectors" if is_small else "weights"

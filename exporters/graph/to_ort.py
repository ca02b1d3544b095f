"""Convert a clean ONNX file to onnxruntime's own format (``.ort``), which its mobile and minimal builds read.

onnxruntime optimises the graph first, with nothing that depends on this processor, and folds every node whose inputs
are constant. So matrices of 4 bits must be those of the ``blocked`` kernel: the ``folded`` ones would be stored as the
int8 values that they unpack to. A file that holds a weight twice is refused, as everywhere.

It reads what was written with the flatbuffers classes that onnxruntime brings along.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from exporters.graph.ledger import MIN_TENSOR_VALUES
from exporters.graph.quantize import quantize
from exporters.measuring.ort import onnxruntime
from exporters.refused import Refused
from exporters.shape import Scheme


class OrtResult(NamedTuple):
    """What was written."""

    path: Path
    bytes_file: int
    bytes_tensors: int  # of its initializers, each once
    n_tensors: int


def write_ort(float_path: Path, path: Path, scheme: Scheme) -> OrtResult:
    """Write the ``.ort`` file beside the quantised file ``path``; 4-bit matrices from the float graph once more."""
    if scheme.weight_bits != 4:
        return to_ort(path, path.with_suffix(".ort"))
    blocked = path.with_name("blocked.onnx")
    try:
        quantize(float_path, blocked, scheme, kernel="blocked")
        return to_ort(blocked, path.with_suffix(".ort"))
    finally:
        blocked.unlink(missing_ok=True)


def to_ort(path: Path, out: Path) -> OrtResult:
    """Write the model in ``path`` to ``out``, whose name ends in ``.ort``.

    Raises:
        ValueError: if the name is another, or the file would hold a tensor twice or 4-bit weights as 8 bits.
    """
    if out.suffix != ".ort":
        raise Refused(f"export: {out} does not end in .ort, by which onnxruntime knows the format. Rename it.")
    model = onnx.load(path)
    if any(node.op_type == "QLinearConv" for node in model.graph.node):
        raise Refused(
            f"export: the 4-bit weights of {path.name} would be stored as 8 bits in an .ort file, expected 4. "
            "Quantise it with the kernel 'blocked', or use int8."
        )
    _check_turned(model)
    temporary = out.with_name(f"partial-{out.name}")  # the suffix has to stay
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3  # it warns that the file may depend on this processor; at this level it does not
    options.optimized_model_filepath = str(temporary)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        tensors = stored_tensors(temporary)
        _check_once(tensors)
        n_bytes = temporary.stat().st_size
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return OrtResult(out, n_bytes, sum(len(content) for _, content in tensors), len(tensors))


def stored_tensors(path: Path) -> list[tuple[str, bytes]]:
    """Return name and raw content of the initializers in an ``.ort`` file."""
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    graph = InferenceSession.GetRootAsInferenceSession(path.read_bytes(), 0).Model().Graph()
    tensors = [graph.Initializers(index) for index in range(graph.InitializersLength())]
    return [
        (each.Name().decode("utf-8"), b"" if each.RawDataIsNone() else each.RawDataAsNumpy().tobytes())
        for each in tensors
    ]


def _check_turned(model: onnx.ModelProto) -> None:
    """Refuse a weight that is read as it is and transposed: folded, the two would be stored beside each other."""
    sizes = {tensor.name: int(np.prod(tensor.dims, dtype=np.int64)) for tensor in model.graph.initializer}
    readings: dict[str, set[tuple[int, ...] | None]] = {}  # axes of Transpose nodes, None: as it is
    for node in model.graph.node:
        axes = next((tuple(each.ints) for each in node.attribute if each.name == "perm"), ())
        for name in node.input:
            readings.setdefault(name, set()).add(axes if node.op_type == "Transpose" else None)
    for name, found in readings.items():
        if len(found) > 1 and sizes.get(name, 0) >= MIN_TENSOR_VALUES:
            raise Refused(
                f"export: {name} would be stored twice in the .ort file, the other time transposed, expected once. "
                "Use the ONNX file."
            )


def _check_once(tensors: list[tuple[str, bytes]]) -> None:
    seen: dict[bytes, str] = {}
    for name, content in tensors:
        if len(content) < 4 * MIN_TENSOR_VALUES:
            continue
        other = seen.setdefault(hashlib.sha256(content).digest(), name)
        if other != name:
            raise Refused(
                f"export: {name} would be stored twice in the .ort file, the other time as {other}, expected once. "
                "Use the ONNX file."
            )

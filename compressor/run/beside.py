"""What stands beside a package in its report: TF-IDF and static vectors at its bytes, and the teacher as ONNX int8.

All are scored on the evaluation rows; graphs are built, quantised and timed like the package's own.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from compressor.data import splits
from compressor.packaging import baselines
from compressor.packaging.build import Built, export_graph, quantize_graph
from compressor.run.planning.plan import Plan
from compressor.scoring.evaluate import evaluate, tuned
from compressor.student.static import build_static, token_counts
from compressor.student.student import save_student
from exporters.measuring import measure
from exporters.measuring.answers import asker, graph_predictor
from exporters.predicted_bytes import predict_bytes
from exporters.shape import Scheme
from exporters.small.shape import SmallShape, small_shape

Outputs = npt.NDArray[np.float32]
INT8 = Scheme(8, 8)
NARROWEST = 16  # columns of static vectors worth comparing


def what_stands_beside(planned: Plan, tokenizer: Tokenizer, part: Path, reference: Outputs) -> list[dict[str, Any]]:
    """Return what was scored: name, metrics, bytes, p50_ms, p95_ms.

    Args:
        planned: the run.
        tokenizer: the student's, whose vocabulary static vectors share.
        part: a folder to work in.
        reference: the teacher's outputs on the evaluation rows.
    """
    found = []
    limit = planned.budget.max_bytes or planned.choice.n_bytes
    scored = planned.train.labels is not None or not planned.spec.needs_labels
    if scored and planned.spec.judges(planned.evaluation):
        # Where nothing is tuned the baseline has no use for rows held out: it learns from them too.
        is_tuned, held_out = planned.spec.tunes, planned.held_out
        seen = planned.train if is_tuned or held_out is None else splits.together(planned.train, held_out)
        simple = baselines.tfidf(
            seen, planned.evaluation, planned.spec, limit, planned.resolved.seed, held_out if is_tuned else None
        )
        found.append(simple._asdict())
    with tempfile.TemporaryDirectory(dir=part) as name:
        found += _static(planned, tokenizer, limit, Path(name), reference)
        found.append(_teacher_int8(planned, Path(name), reference))
    return found


def _teacher_int8(planned: Plan, folder: Path, reference: Outputs) -> dict[str, Any]:
    info = planned.info
    clean, path = folder / "teacher.onnx", folder / "teacher-int8.onnx"
    allow_pickle = planned.resolved.teacher.allow_pickle
    exported, _ = export_graph(info, clean, info.max_length, allow_pickle=allow_pickle)
    quantize_graph(clean, path, INT8)
    scored = _scored(planned, path, info.tokenizer, info.max_length, exported.inputs, reference)
    return {"name": "teacher as ONNX int8", **scored}


def _static(
    planned: Plan, tokenizer: Tokenizer, limit: int, folder: Path, reference: Outputs
) -> Iterator[dict[str, Any]]:
    """Yield static vectors of the teacher with the student's vocabulary, as wide as the bytes allow; of encoders."""
    info = planned.info
    if info.answers.has_head or not planned.resolved.student.is_trained:
        return
    shape = _static_shape(planned, tokenizer, limit)
    if shape is None:
        return
    from compressor.models.teacher import load_model

    counts = token_counts(tokenizer, planned.rows, planned.max_length)
    section = planned.resolved.teacher
    teacher = load_model(info, section.allow_pickle, section.trust_remote_code)
    student, origin = build_static(info, teacher, shape, tokenizer, counts)
    assert info.pooling is not None
    pooling = info.pooling._replace(mode="mean")
    save_student(student, origin, info, folder / "static", planned.max_length, pooling)
    clean, path = folder / "static.onnx", folder / "static-int8.onnx"
    exported, _ = export_graph(info, clean, planned.max_length, Built(folder / "static", pooling))
    quantize_graph(clean, path, INT8)
    scored = _scored(planned, path, tokenizer, planned.max_length, exported.inputs, reference)
    yield {"name": f"static vectors of the teacher, {shape.width} columns", **scored}


def _static_shape(planned: Plan, tokenizer: Tokenizer, limit: int) -> SmallShape | None:
    """Return the widest shape of static vectors within the bytes; None where not even a narrow one is."""
    n_tokens, n_bytes = tokenizer.get_vocab_size(), len(tokenizer.to_str().encode("utf-8"))
    for width in range(planned.info.shape.hidden, NARROWEST - 1, -NARROWEST):
        shape = small_shape("mean", n_tokens, width, 0, positions=planned.max_length)
        if sum(predict_bytes(shape, INT8, n_tokenizer_bytes=n_bytes).values()) <= limit:
            return shape
    return None


def _scored(
    planned: Plan, path: Path, tokenizer: Tokenizer, max_length: int, inputs: tuple[str, ...], reference: Outputs
) -> dict[str, Any]:
    """Return metrics, bytes and times of a graph and its tokenizer."""
    info, asked, answer = planned.info, planned.spec.asked(planned.evaluation), planned.spec.head().answer
    settings = (tokenizer, max_length, inputs, answer, info.truncation)
    predict = graph_predictor(path, *settings)
    spec = tuned(predict, planned.held_out, planned.spec, answer)
    metrics = evaluate(predict, planned.evaluation, spec, reference, answer).metrics
    ask = asker(path, *settings)
    seconds: Sequence[str | None] = asked.pairs or [None] * len(asked)
    rows = list(zip(asked.texts, seconds, strict=True))
    timed = measure.latency(lambda row: ask(*row), rows, runs=planned.resolved.measure.runs)
    n_bytes = path.stat().st_size + len(tokenizer.to_str().encode("utf-8"))
    return {"metrics": metrics, "bytes": n_bytes, "p50_ms": timed.p50, "p95_ms": timed.p95}

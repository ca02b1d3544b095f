"""Look at a finished package as a device would: its bytes, its time from text to answer, its score on labelled rows.

The package is opened by ``edge_demo.runtime`` alone, so whatever is wrong with it is refused here in the same words as
on the device. It needs no torch, except to score a teacher that is named for comparison.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressor.data.columns import DETECTED, Columns
from compressor.packaging.parity import sample_rows
from compressor.recipe.sections import MeasureSection, TeacherSection
from compressor.refused import Refused
from compressor.report import fold_certificates
from compressor.report.interval import too_few
from exporters.budget import Budget, Measurement, parse_latency, parse_size, violations

if TYPE_CHECKING:
    from compressor.data.table import Table
    from compressor.scoring.contract import Array, Resampled, TaskSpec
    from edge_demo.runtime import Package

DEFAULTS = MeasureSection()


def measure_package(
    package: Path,
    *,
    ep: str | None = None,
    threads: int | None = None,
    runs: int | None = None,
    eval: str | None = None,  # noqa: A002 - the flag's name
    columns: Columns = DETECTED,
) -> dict[str, Any]:
    """Return the bytes of a package by part, its latency, its peak memory, and the machine they belong to."""
    from exporters.graph.ledger import ledger
    from exporters.graph.stored_once import identity_of
    from exporters.measuring.machine import machine
    from exporters.measuring.measure import peak_rss_mb

    opened = open_package(package, ep, threads)
    table = sample_rows(eval, columns)
    pair = (table.pairs or table.texts)[0] if opened.manifest["pair"] else None
    model_path = package / opened.manifest["model"]
    return {
        "package": str(package),
        "bytes": opened.n_bytes,
        "parts": measured_parts(package),
        "stored": identity_of(model_path)._asdict(),
        "tensors": [part._asdict() for part in ledger(package) if part.dtype],
        "latency": time_answers(opened, table, ep, threads, runs),
        "peak_rss_mb": round(peak_rss_mb(edge_command(package, table.texts[0], pair)), 1),
        "machine": machine(),
    }


def verify_package(
    package: Path,
    *,
    eval: str | None = None,  # noqa: A002 - the flag's name
    max_size: str | None = None,
    max_latency: str | None = None,
    max_drop: float | None = None,
    metric: str | None = None,
    columns: Columns = DETECTED,
    teacher: str | None = None,
    ep: str | None = None,
    threads: int | None = None,
    runs: int | None = None,
) -> dict[str, Any]:
    """Open a package (hashes and self-test), score it on labelled rows, and list the promises that it breaks."""
    from compressor.data.table import read_table
    from compressor.scoring.registry import load_kind

    budget = Budget(
        max_bytes=parse_size(max_size) if max_size else None,
        latency=parse_latency(max_latency) if max_latency else None,
        max_drop=max_drop,
    )
    if max_drop is not None and eval is None:
        raise Refused("--max-drop needs rows to score the package on. Give --eval.")
    opened = open_package(package, ep, threads)
    found: dict[str, Any] = {"package": str(package), "bytes": opened.n_bytes, "self_test": "passed"}
    if folds := fold_certificates.told(opened.manifest.get("inheritance")):
        found["inheritance"] = folds
    if eval is not None:
        kind = load_kind(opened.manifest["kind"])
        several = opened.manifest["labels"] if kind.several_labels else None
        table = read_table(eval, columns=columns, split="validation", needs_label=kind.needs_labels, several=several)
        found |= _score(opened, table, teacher, metric, needs_drop=max_drop is not None)
        if "drop_interval" in found:
            found["verdict"] = too_few(found["drop_interval"], max_drop)
        if teacher is not None:
            found["vocabulary"] = _compare_words(package / opened.manifest["tokenizer"], teacher, table)
    if budget.latency is not None or runs is not None:
        rows = table if eval is not None else sample_rows(None)
        found["latency"] = time_answers(opened, rows, ep, threads, runs)
    measured = Measurement(opened.n_bytes, found.get("latency"), found.get("drop"))
    broken = violations(measured, budget)
    return {**found, "status": "not met" if broken else "ok", "violations": broken}


def measured_parts(package_dir: Path) -> dict[str, int]:
    """Return the bytes of a package by kind of part; they add up to the whole folder."""
    from exporters.graph.ledger import ledger

    totals: dict[str, int] = {}
    for entry in ledger(package_dir):
        totals[entry.kind] = totals.get(entry.kind, 0) + entry.bytes
    return totals


def tensor_lines(tensors: list[dict[str, Any]], n_rows: int = 12) -> list[str]:
    """Return the largest tensors as a table: bytes, precision, how many nodes read it, name."""
    rows = [f"{each['bytes']:>12,}  {each['dtype']:8}{each['uses']:>3} x  {each['name']}" for each in tensors[:n_rows]]
    left = tensors[n_rows:]
    if left:
        rows.append(f"{sum(each['bytes'] for each in left):>12,}  in {len(left)} more (--json lists them)")
    return rows


def edge_command(package_dir: Path, text: str, pair: str | None) -> list[str]:
    """Return the command that a device would run."""
    return [sys.executable, "-m", "edge_demo", str(package_dir), text, *(["--pair", pair] if pair is not None else [])]


def open_package(package: Path, ep: str | None = None, threads: int | None = None) -> "Package":
    """Open a package on an execution provider; ``cuda`` is refused where it cannot really run."""
    from edge_demo import runtime

    opened = runtime.load(package, threads=threads or DEFAULTS.threads)
    if (ep or DEFAULTS.ep) == "cpu":
        return opened
    from exporters.measuring.measure import session

    session(package / opened.manifest["model"], "cuda", threads or DEFAULTS.threads)
    return runtime.load(package, threads=threads or DEFAULTS.threads, providers=["CUDAExecutionProvider"])


def time_answers(
    opened: "Package", table: "Table", ep: str | None, threads: int | None, runs: int | None
) -> dict[str, Any]:
    """Return the time from text to answer in milliseconds; a package that compares two texts gets two."""
    from exporters.measuring.measure import latency

    seconds = (table.pairs or table.texts) if opened.manifest["pair"] else [None] * len(table.texts)
    rows = list(zip(table.texts, seconds, strict=True))
    timed = latency(lambda row: opened.predict(*row), rows, runs=runs or DEFAULTS.runs)  # type: ignore[misc, arg-type]
    return {**timed._asdict(), "threads": threads or DEFAULTS.threads, "ep": ep or DEFAULTS.ep}


def _score(
    opened: "Package", table: "Table", teacher: str | None, metric: str | None, *, needs_drop: bool
) -> dict[str, Any]:
    """Return the metrics on the rows at the top level and, where a teacher's score is known, the drop in points.

    How sure that is, is told where the teacher was asked, row by row.
    """
    from compressor.scoring.drop import drop_of
    from compressor.scoring.evaluate import evaluate
    from compressor.scoring.registry import load_kind

    manifest = opened.manifest
    kind = load_kind(manifest["kind"])
    if kind.reads_pairs and not manifest["pair"] and table.pairs is not None:
        raise Refused(f"{table.source}: rows hold two texts, the package takes one. Name it with --text-column.")
    quality = manifest.get("quality") or {}
    if quality.get("asked") and quality.get("metric") in kind.metrics:
        metric = metric or quality["metric"]
    scored = kind.of(manifest["labels"], pair=table.pairs is not None).is_scored(table)
    spec = kind.of(manifest["labels"], pair=table.pairs is not None, scored=scored, metric=metric)
    if manifest["pair"]:
        spec = dataclasses.replace(spec, pair=True)
    chosen = spec.restored(manifest)
    is_tuned = chosen.manifest() != spec.manifest()
    known = _teacher_score(teacher, table, spec, is_tuned=is_tuned) if teacher else None
    theirs, outputs = (known.score, known.outputs) if known else (None, None)
    metrics, answers = evaluate(opened.outputs, table, chosen, outputs, manifest["output"])
    if theirs is None and quality.get("data_sha256") == table.sha256 and quality.get("metric") == spec.metric:
        theirs = quality.get("teacher")  # measured on these very rows when the package was made
    if theirs is None and needs_drop:
        raise Refused(f"--max-drop: the package does not know its teacher's score on {table.source}. Give --teacher.")
    drop: dict[str, Any] = {}
    if theirs is not None:
        drop = {"teacher": theirs, "drop": 100 * (theirs - metrics[spec.metric])}
    if known is not None:
        ours = chosen.resampled(answers, table, outputs, manifest["output"])
        drop["drop_interval"] = drop_of(drop["drop"], known.resampled, ours, len(table))
    return {**metrics, "metric": spec.metric, "rows": len(table), **drop}


def _compare_words(tokenizer_path: Path, teacher: str, table: "Table") -> dict[str, Any]:
    """Say how the package's vocabulary cuts the words of the rows, against the teacher's."""
    from tokenizers import Tokenizer

    from compressor.models.sentence_folder import model_folder
    from compressor.models.teacher import find_folder, load_tokenizer
    from vocab.comparing.word_report import certificate

    folder = model_folder(find_folder(teacher, None, False))
    theirs = load_tokenizer(folder)._tokenizer  # the tokenizers.Tokenizer inside
    return certificate(Tokenizer.from_file(str(tokenizer_path)), theirs, [*table.texts, *(table.pairs or [])])


class _TeacherScore(NamedTuple):
    """A teacher's score on rows, its outputs in the order of the package's labels, and how draws of rows score."""

    score: float
    outputs: "Array"
    resampled: "Resampled"


def _teacher_score(teacher: str, table: "Table", spec: "TaskSpec", *, is_tuned: bool) -> _TeacherScore:
    """Ask a teacher the rows."""
    from compressor.batches.outputs import predictor
    from compressor.models.teacher import load_model, read_teacher
    from compressor.scoring.evaluate import measured_teacher, outputs_on

    info = read_teacher(TeacherSection(path=teacher), for_export=True)
    if info.kind != spec.kind:
        raise Refused(
            f"--teacher {teacher} is made for {info.kind}, the package for {spec.kind}. Give its own teacher."
        )
    if len(info.spec(pair=spec.pair).labels) != len(spec.labels):
        raise Refused(
            f"--teacher {teacher} answers {len(info.labels)} labels, the package {len(spec.labels)}. Give its own "
            "teacher."
        )
    predict = predictor(load_model(info), info.tokenizer, info.max_length, info.pooling, info.truncation)
    theirs = dataclasses.replace(spec, labels=info.spec(pair=spec.pair).labels)
    outputs = outputs_on(predict, table, theirs)
    if is_tuned:
        theirs = theirs.tuned(outputs, table)  # on these very rows: no teacher is judged below what it can do
    found = measured_teacher(outputs, table, theirs)[spec.metric]
    resampled = theirs.resampled(outputs, table, outputs)
    if set(theirs.labels) == set(spec.labels):
        outputs = outputs[:, [theirs.labels.index(label) for label in spec.labels]] if spec.labels else outputs
    return _TeacherScore(found, outputs, resampled)

"""From a saved model to a clean graph, from that to fewer bits, and from an export folder to a package."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressor.files import read_json
from compressor.refused import Refused
from exporters.shape import Scheme

if TYPE_CHECKING:
    from compressor.data.table import Table
    from compressor.models.teacher import TeacherInfo
    from compressor.scoring.contract import TaskSpec
    from exporters.graph.optimize import OptimizeResult
    from exporters.package import PackageInfo, SelfTestCase
    from exporters.pooling import Pooling
    from exporters.to_onnx import ExportResult

EXPORT_VERSION = 1
N_CASES = 5


def scheme_of(quantize: str | None, embedding_bits: int | None, block_size: int | None) -> Scheme:
    """Return the bits that the flags ask for; without a budget to decide by, ``auto`` is int8."""
    if quantize == "none":
        return Scheme(None, None)
    bits = 4 if quantize == "int4" else 8
    return Scheme(bits, embedding_bits or bits, block_size or 32)  # type: ignore[arg-type]


class Built(NamedTuple):
    """A student on disk, and how its states become a vector."""

    folder: Path
    pooling: "Pooling | None"


def export_graph(
    info: "TeacherInfo", path: Path, max_length: int, student: Built | None = None, *, allow_pickle: bool = False
) -> tuple["ExportResult", "OptimizeResult"]:
    """Write the clean float graph of a teacher, or of its student."""
    from exporters.graph.optimize import optimize
    from exporters.to_onnx import export_model

    folder, pooling = student or (info.folder, info.pooling)
    exported = export_model(folder, path, info.kind, max_length, pooling, allow_pickle=allow_pickle)
    return exported, optimize(path, path)


def quantize_graph(source: Path, out: Path, scheme: Scheme) -> dict[str, Any]:
    """Write the graph in the bits of the scheme and return what is counted in it; float bits write nothing."""
    from exporters.graph.quantize import quantize
    from exporters.graph.stored_once import identity_of

    if scheme.weight_bits is None:
        return {"scheme": scheme.name, "stored": identity_of(source)._asdict()}
    return {"scheme": scheme.name, "block_size": scheme.block_size, **quantize(source, out, scheme)._asdict()}


def build_package(
    model_path: Path,
    tokenizer_dir: Path,
    config: Mapping[str, Any],
    spec: "TaskSpec",
    table: "Table",
    told: dict[str, Any],
    folder: Path,
    **facts: Any,
) -> Path:
    """Write the package of a quantised model into ``folder``, with self-test cases of some of the rows.

    Args:
        model_path: the graph.
        tokenizer_dir: holds tokenizer.json and its configuration.
        config: of the Hugging Face model.
        spec: the task; kind, labels, output and tolerance follow from it.
        table: rows to choose the cases from, as they are evaluated.
        told: what the card says (``compressor.report.report.model_card``).
        folder: to write to.
        **facts: all else that ``PackageInfo`` holds.
    """
    from compressor.report.report import model_card
    from exporters.measuring.machine import versions
    from exporters.package import PackageInfo, write_package

    details = PackageInfo(
        kind=spec.kind,
        output=spec.head().answer,
        labels=spec.labels,
        chosen=spec.manifest(),
        versions=versions(),
        tolerance=spec.tolerance(table),
        **facts,
    )
    cases = _cases(model_path, tokenizer_dir, details, spec, table)
    return write_package(model_path, tokenizer_dir, config, details, cases, model_card(told), folder)


def _cases(
    model_path: Path, tokenizer_dir: Path, details: "PackageInfo", spec: "TaskSpec", table: "Table"
) -> "list[SelfTestCase]":
    """Return self-test cases of rows whose answer is not on the edge of another, short and long ones."""
    from compressor.data.splits import subset
    from compressor.data.table import select
    from compressor.scoring.contract import TOLERANCE
    from exporters.package import make_cases

    asked = spec.asked(table)
    asked = subset(asked, min(8 * N_CASES, len(asked)), 0)
    asked = select(asked, sorted(range(len(asked)), key=lambda row: len(asked.texts[row])))
    cases = make_cases(model_path, tokenizer_dir, details, asked.texts, asked.pairs)
    clear = [case for case in cases if spec.margin(case.output) > 4 * TOLERANCE]
    cases = clear if len(clear) >= N_CASES else sorted(cases, key=lambda case: -spec.margin(case.output))
    return cases[:: max(1, len(cases) // N_CASES)][:N_CASES]


def package_export(source: Path, rows: "Callable[..., Table]", part: Path) -> None:
    """Write the package of an export folder into the empty folder ``part``; ``rows`` gives rows to ask."""
    from compressor.models.cross_encoder import check_pairs
    from compressor.scoring.registry import task_spec

    facts = read_json(source / "export.json")
    if facts.get("version") != EXPORT_VERSION:
        raise Refused(
            f"package: {source}/export.json has version {facts.get('version')}, expected {EXPORT_VERSION}. "
            "Export again."
        )
    table = rows(pairs=facts.get("pair", False))
    check_pairs(facts.get("pair", False), table)
    is_quantized = facts["quantization"]["scheme"] != "none"
    model_path = source / ("model_quantized.onnx" if is_quantized else "model.onnx")
    bits = {name: value for name, value in facts["quantization"].items() if not name.startswith("bytes_")}
    spec = task_spec(facts["kind"], facts["labels"], pair=table.pairs is not None)
    task = {name: facts[name] for name in ("task", "labels", "max_length")}
    told = {
        "recipe": {"teacher": {"path": facts["teacher"]["name"]}},
        "task": {**task, "pair": spec.asked(table).pairs is not None},
        "quantization": bits,
    }
    part.rmdir()  # the package makes it
    build_package(
        model_path,
        source,
        read_json(source / "config.json"),
        spec,
        table,
        told,
        part,
        max_length=facts["max_length"],
        inputs=tuple(facts["inputs"]),
        pooling=facts["pooling"],
        truncation=facts.get("truncation", "right"),
        scheme={**bits, "name": bits["scheme"]},
        teacher=facts["teacher"],
    )

"""From a saved model to a clean graph, from that to fewer bits, and from an export folder to a package."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.files import read_json
from compressor.refused import Refused
from exporters.shape import Scheme

if TYPE_CHECKING:
    from compressor.data.table import Table
    from compressor.models.teacher import TeacherInfo
    from exporters.graph.optimize import OptimizeResult
    from exporters.to_onnx import ExportResult

EXPORT_VERSION = 1
N_CASES = 5


def scheme_of(quantize: str | None, embedding_bits: int | None, block_size: int | None) -> Scheme:
    """Return the bits that the flags ask for; without a budget to decide by, ``auto`` is int8."""
    if quantize == "none":
        return Scheme(None, None)
    bits = 4 if quantize == "int4" else 8
    return Scheme(bits, embedding_bits or bits, block_size or 32)  # type: ignore[arg-type]


def export_graph(
    info: "TeacherInfo", path: Path, max_length: int, *, model_dir: Path | None = None, allow_pickle: bool = False
) -> tuple["ExportResult", "OptimizeResult"]:
    """Write the clean float graph of a teacher, or of the student in ``model_dir``."""
    from exporters.graph.optimize import optimize
    from exporters.to_onnx import export_model

    folder = model_dir or info.folder
    exported = export_model(folder, path, info.kind, max_length, info.pooling, allow_pickle=allow_pickle)
    return exported, optimize(path, path)


def quantize_graph(source: Path, out: Path, scheme: Scheme) -> dict[str, Any]:
    """Write the graph in the bits of the scheme and return what is counted in it; float bits write nothing."""
    from exporters.graph.quantize import quantize
    from exporters.graph.stored_once import identity_of

    if scheme.weight_bits is None:
        return {"scheme": scheme.name, "stored": identity_of(source)._asdict()}
    return {"scheme": scheme.name, "block_size": scheme.block_size, **quantize(source, out, scheme)._asdict()}


def package_export(source: Path, table: "Table", part: Path) -> None:
    """Write the package of an export folder into the empty folder ``part``."""
    from compressor.report.report import model_card
    from compressor.scoring.registry import task_spec
    from exporters.measuring.machine import versions
    from exporters.package import PackageInfo, make_cases, write_package

    facts = read_json(source / "export.json")
    if facts.get("version") != EXPORT_VERSION:
        raise Refused(
            f"package: {source}/export.json has version {facts.get('version')}, expected {EXPORT_VERSION}. "
            "Export again."
        )
    quantized = facts["quantization"]["scheme"] != "none"
    model_path = source / ("model_quantized.onnx" if quantized else "model.onnx")
    bits = {name: value for name, value in facts["quantization"].items() if not name.startswith("bytes_")}
    spec = task_spec(facts["kind"], facts["labels"], pair=table.pairs is not None)
    details = PackageInfo(
        kind=facts["kind"],
        max_length=facts["max_length"],
        inputs=tuple(facts["inputs"]),
        output=facts["output"],
        labels=tuple(facts["labels"]),
        chosen=spec.manifest(),
        pooling=facts["pooling"],
        scheme={**bits, "name": bits["scheme"]},
        teacher=facts["teacher"],
        versions=versions(),
    )
    asked = spec.asked(table)
    cases = make_cases(model_path, source, details, asked.texts[:40], asked.pairs[:40] if asked.pairs else None)
    # First answers that rounding on another processor cannot turn.
    cases = sorted(cases, key=lambda case: -spec.margin(case.output))
    task = {**{name: facts[name] for name in ("task", "labels", "max_length")}, "pair": asked.pairs is not None}
    card = model_card({"recipe": {"teacher": {"path": facts["teacher"]["name"]}}, "task": task, "quantization": bits})
    part.rmdir()  # write_package makes it
    write_package(model_path, source, read_json(source / "config.json"), details, cases[:N_CASES], card, part)

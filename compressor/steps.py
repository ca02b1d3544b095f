"""The single steps of a run on folders that already exist: export, quantise, package, measure, verify.

``tenmeg compress`` does the same in one go and remembers what is done (``compressor.run``); no model is trained here.
Every function reads its inputs, writes one folder or file whole or not at all, and returns what a person and a program
want to know. An output that is there already is refused unless ``overwrite`` is said.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.checks import OUTPUT_OF, compare_steps, sample_rows
from compressor.journal import write_json, write_text
from compressor.recipe import Recipe, TeacherSection
from exporters.budget import Scheme

if TYPE_CHECKING:
    from compressor.data import Table
    from compressor.plan import Plan
    from compressor.teacher import TeacherInfo

EXPORT_VERSION = 1
N_CASES = 5


def save_plan(recipe: Recipe, out_dir: Path, overwrite: bool = False) -> tuple["Plan", Path]:
    """Plan a run and write its resolved recipe to ``out_dir``."""
    from compressor.plan import plan
    from compressor.run import check_output

    check_output(recipe, out_dir, overwrite)
    planned = plan(recipe)
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / "recipe.toml"
    write_text(path, planned.resolved.dumps())
    return planned, path


def export_folder(
    model_dir: Path,
    out_dir: Path,
    *,
    quantize: str | None = None,
    embedding_bits: int | None = None,
    block_size: int | None = None,
    max_length: int | None = None,
    eval: str | None = None,  # noqa: A002 - the flag's name
    text_column: str | None = None,
    pair_column: str | None = None,
    allow_pickle: bool = False,
    format: str | None = None,  # noqa: A002 - the flag's name
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a model folder, clean the graph, quantise it, and compare torch, ONNX and the quantised file.

    ``format="ort"`` writes onnxruntime's own format as well; it is compared too.
    """
    from compressor.teacher import load_tokenizer, read_teacher
    from exporters.identity import check_checkpoint
    from exporters.optimize import optimize
    from exporters.to_onnx import export_model
    from exporters.to_ort import write_ort
    from vocab.save import save_tokenizer

    scheme = scheme_of(quantize, embedding_bits, block_size)
    info = read_teacher(TeacherSection(path=str(model_dir), allow_pickle=allow_pickle), for_export=True)
    table = sample_rows(eval, text_column, pair_column)
    length = max_length or info.max_length
    with new_folder(out_dir, overwrite) as part:
        model_path = part / "model.onnx"
        exported = export_model(info.folder, model_path, info.task, length, info.pooling, allow_pickle=allow_pickle)
        optimized = optimize(model_path, model_path)
        stored = check_checkpoint(model_path, exported.parameters)
        save_tokenizer(load_tokenizer(info.folder)._tokenizer, part, tokenizer_config(info.folder), length)
        write_json(part / "config.json", info.config)
        quantized = _quantize(model_path, part / "model_quantized.onnx", scheme)
        facts = {
            "version": EXPORT_VERSION,
            "task": info.task,
            "kind": info.kind,
            "labels": list(info.labels) if info.kind == "classification" else [],
            "max_length": length,
            "inputs": list(exported.inputs),
            "output": OUTPUT_OF[info.kind],
            "pooling": info.pooling._asdict() if info.pooling else None,
            "teacher": {"name": info.name, "revision": None, "sha256": info.hashes},
            "operators": optimized.ops_after,
            "stored": stored._asdict(),
            "quantization": quantized,
        }
        if format == "ort":
            write_ort(model_path, part / _graphs(part)[-1], scheme)
        parity, violations = _parities(info, allow_pickle, part, facts, table)
        facts |= {"parity": parity, "violations": violations}
        write_json(part / "export.json", facts)
    sizes = {path.name: path.stat().st_size for path in sorted(out_dir.glob("model*.o*"))}
    shown = {name: facts[name] for name in ("task", "labels", "max_length", "quantization", "parity", "violations")}
    return {"output": str(out_dir), "bytes": sizes, **shown, "stored": quantized["stored"]}


def quantize_file(
    onnx_file: Path,
    out: Path,
    *,
    quantize: str | None = None,
    embedding_bits: int | None = None,
    block_size: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Quantise one cleaned ONNX file; beside an export.json the new bits are noted there for ``tenmeg package``."""
    scheme = scheme_of(quantize, embedding_bits, block_size)
    if not onnx_file.is_file():
        raise FileNotFoundError(f"quantize: {onnx_file} does not exist. 'tenmeg export --quantize none' writes one.")
    if scheme.weight_bits is None:
        raise ValueError("--quantize none leaves nothing to do. Give int8 or int4.")
    if out.is_dir() or (out.exists() and not overwrite):
        raise FileExistsError(f"--output {out} exists. Choose another, or give --overwrite to replace the file.")
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.serialization import registry

    if registry.get_format_from_file_extension(out.suffix) not in (None, "protobuf"):
        raise ValueError(f"--output {out} would be taken for text, expected an ONNX file. Let it end in .onnx.")
    try:
        counts = _quantize(onnx_file, out, scheme)
    except DecodeError as error:
        raise ValueError(
            f"quantize: {onnx_file} is not a whole ONNX file ({error}). Export it again with 'tenmeg export'."
        ) from error
    record = out.parent / "export.json"
    if record.is_file() and out.name == "model_quantized.onnx":
        write_json(record, {**_read_json(record), "quantization": counts})
    return {"output": str(out), **counts}


def make_package(
    source: Path,
    out: Path,
    *,
    eval: str | None = None,  # noqa: A002 - the flag's name
    text_column: str | None = None,
    pair_column: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the package of an export folder or of a finished run, and its archive, and open it as a device would."""
    from compressor import certificates
    from edge_demo import runtime
    from exporters.package import package_bytes, write_archive

    finished = source / "steps" / "package" / "package"
    with new_folder(out, overwrite) as part:
        if finished.is_dir():
            steps = source / "steps"
            certificates.read(steps, sorted(path.parent.name for path in steps.glob("train-*/step.json")))
            shutil.copytree(finished, part, dirs_exist_ok=True)
        elif (source / "export.json").is_file():
            _package_export(source, sample_rows(eval, text_column, pair_column), part)
        else:
            raise FileNotFoundError(
                f"package: {source} holds neither export.json nor a finished run. "
                "Give a folder that 'tenmeg export' wrote, or finish the run with 'tenmeg run'."
            )
        manifest = runtime.load(part).manifest
    archive = write_archive(out, out.with_name(f"{out.name}.zip"))
    return {"output": str(out), "archive": str(archive), "bytes": package_bytes(out), "task": manifest["task"]}


def describe_methods(name: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the training methods with a line each or, with ``name``, all that one of them says and its options."""
    from compressor.objective import default_of, load_method, method_names, method_summary

    if name is None:
        summaries = {each: method_summary(each).partition("\n")[0] for each in method_names()}
        width = max(map(len, summaries)) + 2
        return {"methods": summaries}, [f"{each:{width}}{text}" for each, text in summaries.items()]
    text = method_summary(name)
    options = [
        {"name": field.name, "type": getattr(field.type, "__name__", str(field.type)), "default": default_of(field)}
        for field in dataclasses.fields(load_method(name).options_class)
    ]
    lines = [text, "", *[f"--option {each['name']}={each['default']}  ({each['type']})" for each in options]]
    return {"name": name, "text": text, "options": options}, lines


def scheme_of(quantize: str | None, embedding_bits: int | None, block_size: int | None) -> Scheme:
    """Return the bits that the flags ask for; without a budget to decide by, ``auto`` is int8."""
    if quantize == "none":
        return Scheme(None, None)
    bits = 4 if quantize == "int4" else 8
    return Scheme(bits, embedding_bits or bits, block_size or 32)  # type: ignore[arg-type]


@contextlib.contextmanager
def new_folder(out_dir: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to write into that becomes ``out_dir`` when all went well, and vanishes otherwise."""
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f"--output {out_dir} is a file, expected a folder. Choose another --output.")
    if out_dir.is_dir() and any(out_dir.iterdir()) and not overwrite:
        raise FileExistsError(f"--output {out_dir} is not empty. Choose another, or give --overwrite to replace it.")
    part = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(part, ignore_errors=True)  # of a command that was killed
    part.mkdir(parents=True)
    try:
        yield part
        if out_dir.is_dir():
            shutil.rmtree(out_dir)
        part.rename(out_dir)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def tokenizer_config(folder: Path) -> dict[str, object]:
    """Return the tokenizer_config.json of a checkpoint; empty if it has none."""
    path = folder / "tokenizer_config.json"
    return _read_json(path) if path.is_file() else {}


def _quantize(source: Path, out: Path, scheme: Scheme) -> dict[str, Any]:
    from exporters.identity import identity_of
    from exporters.quantize import quantize

    if scheme.weight_bits is None:
        return {"scheme": scheme.name, "stored": identity_of(source)._asdict()}
    return {"scheme": scheme.name, "block_size": scheme.block_size, **quantize(source, out, scheme)._asdict()}


def _parities(
    info: "TeacherInfo", allow_pickle: bool, folder: Path, facts: dict[str, Any], table: "Table"
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare torch, the float graph and the quantised one on the rows; the limits are those of a run."""
    from tokenizers import Tokenizer

    from compressor.forward import predictor
    from compressor.graphs import graph_predictor
    from compressor.teacher import load_model

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pairs = table.pairs if facts["kind"] != "embedding" else None
    output = "sentence_embedding" if facts["kind"] == "embedding" else "logits"
    predict = predictor(load_model(info, allow_pickle), tokenizer, facts["max_length"], info.pooling)
    settings = (tokenizer, facts["max_length"], facts["inputs"], output)
    graphs = [graph_predictor(folder / name, *settings) for name in _graphs(folder)]
    outputs = [predict(table.texts, pairs), *(graph(table.texts, pairs) for graph in graphs)]
    scheme = facts["quantization"]["scheme"]
    parity, violations = compare_steps(facts["kind"], scheme, outputs)
    for path in folder.glob("*.ort"):
        last = graph_predictor(path, *settings)(table.texts, pairs)
        # the float graph beside itself, so that only the second step can be missed
        more, missed = compare_steps(facts["kind"], f"{scheme} .ort", [outputs[1], outputs[1], last])
        parity, violations = [*parity, more[1]], [*violations, *missed]
    return parity, violations


def _package_export(source: Path, table: "Table", part: Path) -> None:
    """Write the package of an export folder into the empty folder ``part``."""
    from compressor.journal import versions
    from compressor.report import model_card
    from exporters.package import PackageInfo, make_cases, write_package

    facts = _read_json(source / "export.json")
    if facts.get("version") != EXPORT_VERSION:
        raise ValueError(
            f"package: {source}/export.json has version {facts.get('version')}, expected {EXPORT_VERSION}. "
            "Export again."
        )
    quantized = facts["quantization"]["scheme"] != "none"
    model_path = source / ("model_quantized.onnx" if quantized else "model.onnx")
    bits = {name: value for name, value in facts["quantization"].items() if not name.startswith("bytes_")}
    details = PackageInfo(
        kind=facts["kind"],
        max_length=facts["max_length"],
        inputs=tuple(facts["inputs"]),
        output=facts["output"],
        labels=tuple(facts["labels"]),
        pooling=facts["pooling"],
        scheme={**bits, "name": bits["scheme"]},
        teacher=facts["teacher"],
        versions=versions(),
    )
    pairs = table.pairs if facts["kind"] != "embedding" else None
    cases = make_cases(model_path, source, details, table.texts[:40], pairs[:40] if pairs else None)
    if facts["kind"] == "classification":  # answers that rounding on another processor cannot turn
        cases = sorted(cases, key=lambda case: sorted(case.output)[-2] - sorted(case.output)[-1])
    task = {**{name: facts[name] for name in ("task", "labels", "max_length")}, "pair": pairs is not None}
    card = model_card({"recipe": {"teacher": {"path": facts["teacher"]["name"]}}, "task": task, "quantization": bits})
    part.rmdir()  # write_package makes it
    write_package(model_path, source, _read_json(source / "config.json"), details, cases[:N_CASES], card, part)


def _graphs(folder: Path) -> list[str]:
    return [name for name in ("model.onnx", "model_quantized.onnx") if (folder / name).is_file()]


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content

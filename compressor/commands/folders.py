"""The single steps of a run on folders that already exist: export, quantise, package, measure, verify.

``tenmeg compress`` does the same in one go and remembers what is done (``compressor.run.compress``); no model is
trained here. Every function reads its inputs, writes one folder or file whole or not at all, and returns what a person
and a program want to know. An output that is there already is refused unless ``overwrite`` is said.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.columns import DETECTED, Columns
from compressor.data.table import select
from compressor.files import new_folder, read_json, write_json, write_text
from compressor.models.checkpoint import cutting, tokenizer_config
from compressor.models.cross_encoder import check_pairs
from compressor.packaging.build import EXPORT_VERSION, export_graph, package_export, quantize_graph, scheme_of
from compressor.packaging.original import compare_original, rows_to_compare
from compressor.packaging.parity import Asked, compare_graphs, sample_rows
from compressor.recipe.recipe import Recipe
from compressor.recipe.sections import TeacherSection
from compressor.refused import Refused

if TYPE_CHECKING:
    from compressor.models.teacher import TeacherInfo
    from compressor.run.planning.plan import Plan


def save_plan(recipe: Recipe, out_dir: Path, overwrite: bool = False) -> tuple["Plan", Path]:
    """Plan a run and write its resolved recipe to ``out_dir``."""
    from compressor.run.output import check_output
    from compressor.run.planning.plan import plan

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
    columns: Columns = DETECTED,
    allow_pickle: bool = False,
    format: str | None = None,  # noqa: A002 - the flag's name
    vocab_from: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a model folder, clean the graph, quantise it, and compare torch, ONNX and the quantised file.

    ``format="ort"`` writes onnxruntime's own format as well; it is compared too. With ``vocab_from`` the model gets
    that vocabulary, its table mapped and nothing trained.
    """
    from tokenizers import Tokenizer

    from compressor.batches.outputs import predictor
    from compressor.models.configuration import check_room
    from compressor.models.teacher import load_model, read_teacher
    from exporters.graph.stored_once import check_checkpoint
    from exporters.graph.to_ort import write_ort
    from vocab.save import save_tokenizer

    scheme = scheme_of(quantize, embedding_bits, block_size)
    info = read_teacher(TeacherSection(path=str(model_dir), allow_pickle=allow_pickle), for_export=True)
    table = sample_rows(eval, columns, pairs=info.needs_pairs)
    check_pairs(info.needs_pairs, table)
    original = info
    if vocab_from:
        info = _trimmed(info, vocab_from, max_length, is_pair=table.pairs is not None, allow_pickle=allow_pickle)
    length, spec = max_length or info.max_length, info.spec(pair=table.pairs is not None)
    check_room(length, max_length is not None, info.tokenizer, spec.pair and spec.reads_pairs)
    with new_folder(out_dir, overwrite) as part:
        model_path = part / "model.onnx"
        exported, optimized = export_graph(info, model_path, length, allow_pickle=allow_pickle)
        stored = check_checkpoint(model_path, exported.parameters)
        save_tokenizer(info.tokenizer, part, cutting(tokenizer_config(info.folder), info.truncation), length)
        write_json(part / "config.json", info.config)
        quantized = quantize_graph(model_path, part / "model_quantized.onnx", scheme)
        facts: dict[str, Any] = {  # any JSON
            "version": EXPORT_VERSION,
            "task": info.task,
            "kind": info.kind,
            "labels": list(spec.labels),
            "max_length": length,
            "inputs": list(exported.inputs),
            "output": spec.head().answer,
            "pooling": info.pooling._asdict() if info.pooling else None,
            **({} if info.truncation == "right" else {"truncation": info.truncation}),
            **({"pair": True} if info.needs_pairs else {}),
            "teacher": {"name": original.name, "revision": None, "sha256": original.hashes},
            "operators": optimized.ops_after,
            "stored": stored._asdict(),
            "quantization": quantized,
        }
        made = {quantized["scheme"]: part / "model_quantized.onnx"} if quantized["scheme"] != "none" else {}
        if format == "ort":
            small = made.get(quantized["scheme"], model_path)
            made[f"{quantized['scheme']} .ort"] = write_ort(model_path, small, scheme).path
        own = Tokenizer.from_file(str(part / "tokenizer.json"))
        settings = Asked(own, length, exported.inputs, info.truncation)
        predict = predictor(load_model(info, allow_pickle), own, length, info.pooling, info.truncation)
        parity, violations = compare_graphs(spec, predict, model_path, made, settings, table)
        if info.saved_in is not None:
            asked = select(table, rows_to_compare(table))
            cut, pairs = max_length if length < info.max_length else None, asked.pairs if spec.reads_pairs else None
            ours = predict(asked.texts, pairs)
            scores = not info.pooling
            found, missed = compare_original(info.saved_in, ours, asked.texts, pairs, scores=scores, cut=cut)
            parity, violations = parity + found, violations + missed
        facts |= {"parity": parity, "violations": violations}
        write_json(part / "export.json", facts)
    sizes = {path.name: path.stat().st_size for path in sorted(out_dir.glob("model*.o*"))}
    shown = {name: facts[name] for name in ("task", "labels", "max_length", "quantization", "parity", "violations")}
    return {"output": str(out_dir), "bytes": sizes, **shown, "stored": quantized["stored"]}


def _trimmed(
    info: "TeacherInfo", vocab_from: str, max_length: int | None, *, is_pair: bool, allow_pickle: bool
) -> "TeacherInfo":
    """Return what the files of the model with another vocabulary say; they lie in a folder of this process."""
    import atexit
    import tempfile

    from compressor.models.teacher import read_teacher
    from compressor.models.vocabulary import check_vocabulary, read_vocabulary
    from compressor.student.trimmed import write_trimmed

    given = read_vocabulary(vocab_from)
    check_vocabulary(given, info, info.tokenizer, is_pair=is_pair, hides_words=False)
    folder = Path(tempfile.mkdtemp(prefix="tenmeg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_trimmed(info, given, folder, max_length or info.max_length, allow_pickle=allow_pickle)
    return read_teacher(TeacherSection(path=str(folder), task=info.task), for_export=True)  # type: ignore[arg-type]


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
        raise Refused("--quantize none leaves nothing to do. Give int8 or int4.")
    if out.is_dir() or (out.exists() and not overwrite):
        raise FileExistsError(f"--output {out} exists. Choose another, or give --overwrite to replace the file.")
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.serialization import registry

    if registry.get_format_from_file_extension(out.suffix) not in (None, "protobuf"):
        raise Refused(f"--output {out} would be taken for text, expected an ONNX file. Let it end in .onnx.")
    try:
        counts = quantize_graph(onnx_file, out, scheme)
    except DecodeError as error:
        raise Refused(
            f"quantize: {onnx_file} is not a whole ONNX file ({error}). Export it again with 'tenmeg export'."
        ) from error
    record = out.parent / "export.json"
    if record.is_file() and out.name == "model_quantized.onnx":
        write_json(record, {**read_json(record), "quantization": counts})
    return {"output": str(out), **counts}


def make_package(
    source: Path,
    out: Path,
    *,
    eval: str | None = None,  # noqa: A002 - the flag's name
    columns: Columns = DETECTED,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the package of an export folder or of a finished run, and its archive, and open it as a device would."""
    from compressor.report import fold_certificates
    from edge_demo import runtime
    from exporters.package import package_bytes, write_archive

    finished = source / "steps" / "package" / "package"
    with new_folder(out, overwrite) as part:
        if finished.is_dir():
            steps = source / "steps"
            fold_certificates.read(steps, sorted(path.parent.name for path in steps.glob("train-*/step.json")))
            shutil.copytree(finished, part, dirs_exist_ok=True)
        elif (source / "export.json").is_file():
            package_export(source, partial(sample_rows, eval, columns), part)
        else:
            raise FileNotFoundError(
                f"package: {source} holds neither export.json nor a finished run. "
                "Give a folder that 'tenmeg export' wrote, or finish the run with 'tenmeg run'."
            )
        manifest = runtime.load(part).manifest
    archive = write_archive(out, out.with_name(f"{out.name}.zip"))
    told = {"bytes": package_bytes(out), "task": manifest["task"], "pair": manifest["pair"]}
    return {"output": str(out), "archive": str(archive), **told}

"""What shared weights cost in a file and in memory: ALBERT's shape, and students whose layers run twice.

    python -m benchmarks.shared_export --work DIR

An ALBERT of base shape (embeddings 128, hidden 768, 12 passes of one layer, 30,000 tokens, random weights) goes through
our export at int8 and int4, and through the plain path: torch.onnx.export with either exporter, onnxruntime's
``quantize_dynamic``, with and without its ``quant_pre_process`` (and that once more without symbolic shapes, which it
cannot infer here). Then three stored layers, the same run twice with query and key exchanged, and six stored layers, at
hidden 256 and 768, and at 768 three layers in 12 passes. Latency: processor time of one thread for 32 tokens, all files
of a table in turn. Memory: of a process of its own above one without a model, at its peak, which loading makes, and
while it runs; with onnxruntime's packed copies of weights and without (``session.disable_prepacking``). What loading
has freed is given back to the system before the first run, as ``edge_demo.runtime`` does.
Writes docs/results/shared_export.json.
"""

import os

from exporters.head import load_head

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from compressor.files import write_json
from exporters import to_onnx
from exporters.graph.optimize import optimize
from exporters.graph.quantize import quantize
from exporters.graph.stored_once import check_checkpoint, float_products, identity_of
from exporters.measuring.machine import machine, versions
from exporters.repetition import pattern
from exporters.shape import Scheme

RESULT_PATH = Path("docs/results/shared_export.json")
TOKENS, N_ROWS, N_LABELS = 32, 32, 3
SCHEMES = (Scheme(8, 8), Scheme(4, 4))
# What stands before quantize_dynamic, with the settings of quant_pre_process.
PREPARATIONS: dict[str, dict[str, bool] | None] = {
    "": None,
    "quant_pre_process, ": {},
    "quant_pre_process without symbolic shapes, ": {"skip_symbolic_shape": True},
}
STUDENTS: tuple[tuple[str, int, str | tuple[int, ...]], ...] = (
    ("3 layers", 3, "none"),
    ("3 layers, 6 passes, exchanged", 3, "all"),
    ("6 layers", 6, "none"),
    ("3 layers, 12 passes, exchanged", 3, (0, 1, 2) * 3),
)
NO_PREPACKING = "session.disable_prepacking"
# Opens a model (or none) and runs it; prints the peak and what it needs while it runs, in kB.
RUN_ONCE = """
import sys, numpy, onnxruntime
from edge_demo.runtime import _return_freed_memory
if len(sys.argv) > 1:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    options.add_session_config_entry("session.disable_prepacking", sys.argv[2])
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    _return_freed_memory()
    for _ in range(5):
        session.run(None, {each.name: numpy.ones((1, 32), numpy.int64) for each in session.get_inputs()})
known = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(known["VmHWM"].split()[0], known["VmRSS"].split()[0])
"""


Files = dict[str, tuple[nn.Module, Path | str]]  # by name: the model, and its file or why there is none


def randomise(model: nn.Module) -> nn.Module:
    """Give every tensor values of its own, so that the unique parameters are all parameters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = parameter.dim() == 1 and name.endswith("weight")  # of a LayerNorm
            parameter.normal_(mean=1.0 if is_gain else 0.0, std=0.05)
    return model.eval()


def albert() -> nn.Module:
    """Return the shape of albert-base-v2 with a head."""
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = AlbertConfig(
        vocab_size=30_000, embedding_size=128, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072, max_position_embeddings=512, num_labels=N_LABELS, attn_implementation="eager",
    )  # fmt: skip
    return randomise(AlbertForSequenceClassification(config))


def student(hidden: int, layers: int, repeat: str | tuple[int, ...]) -> nn.Module:
    """Return a BERT of ``layers`` stored layers that repeat as ``repeat`` says."""
    from transformers import AutoModelForSequenceClassification, BertConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    sizes = {
        "vocab_size": 5000, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden, "max_position_embeddings": 64, "num_labels": N_LABELS,
    }  # fmt: skip
    found = pattern(repeat, layers)
    config: Any = BertConfig(**sizes)
    if repeat != "none":
        config = CONFIG_MAPPING["repeated-bert"](**sizes, passes=list(found.passes), exchanged=list(found.exchanged))
    return randomise(AutoModelForSequenceClassification.from_config(config))


def ours(model: nn.Module, folder: Path) -> dict[str, Path]:
    """Export, clean, prove and quantise; return the files by their names."""
    model.save_pretrained(folder / "checkpoint")  # type: ignore[operator]
    paths = {"float": folder / "float.onnx"} | {scheme.name: folder / f"{scheme.name}.onnx" for scheme in SCHEMES}
    result = to_onnx.export_model(folder / "checkpoint", paths["float"], "classification", 64)
    optimize(paths["float"], paths["float"])
    check_checkpoint(paths["float"], result.parameters)
    for scheme in SCHEMES:
        quantize(paths["float"], paths[scheme.name], scheme)
    return paths


def plain(model: nn.Module, folder: Path) -> dict[str, Path | str]:
    """Export and quantise as the manuals say; a step that fails leaves its first line instead of a path."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    wrapper = to_onnx.Answering(model, load_head("classification"), None).eval()
    found: dict[str, Path | str] = {}
    for exporter in ("TorchScript", "dynamo"):
        source = folder / f"{exporter}.onnx"
        _plain_export(wrapper, source, is_dynamo=exporter == "dynamo")
        found[f"plain, {exporter}: float"] = source
        for number, (step, settings) in enumerate(PREPARATIONS.items()):
            name = f"plain, {exporter}: {step}quantize_dynamic"
            prepared, out = (folder / f"{exporter}-{number}{part}.onnx" for part in ("-prepared", ""))
            try:
                if settings is not None:
                    given, made = str(source.resolve()), str(prepared.resolve())
                    with contextlib.chdir(folder):  # where it leaves files of its own
                        quant_pre_process(given, made, **settings)
                quantize_dynamic(
                    str(source if settings is None else prepared),
                    str(out),
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                )
                found[name] = out
            except Exception as error:  # noqa: BLE001 - whatever a stock tool raises is a result here
                found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return found


def _plain_export(wrapper: nn.Module, path: Path, *, is_dynamo: bool) -> None:
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones((2, 8), dtype=torch.int64) for _ in names)
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    batch, tokens = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("sequence", min=1, max=64)
    more: dict[str, Any] = {"dynamic_axes": axes, "opset_version": 17}
    if is_dynamo:
        more = {"dynamic_shapes": [{0: batch, 1: tokens}] * 3, "opset_version": 20, "external_data": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter says that it is the older one
        torch.onnx.export(
            wrapper, example, str(path), dynamo=is_dynamo, input_names=names, output_names=["logits", "probabilities"],
            verbose=False, **more,
        )  # fmt: skip


def feeds() -> list[dict[str, np.ndarray]]:
    """Return rows of random tokens, one per run."""
    draw = np.random.default_rng(0)
    ids = draw.integers(10, 5000, (N_ROWS, 1, TOKENS))
    ones = np.ones((1, TOKENS), dtype=np.int64)
    return [{"input_ids": row, "attention_mask": ones, "token_type_ids": 0 * ones} for row in ids]


def reference(model: nn.Module) -> np.ndarray:
    """Return torch's logits (rows, labels) for ``feeds``."""
    with torch.inference_mode():
        rows = [model(**{name: torch.from_numpy(array) for name, array in each.items()}).logits for each in feeds()]
    logits: np.ndarray = torch.cat(rows).numpy()
    return logits


def session(path: Path, is_packed: bool = True) -> onnxruntime.InferenceSession:
    """Open a file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(NO_PREPACKING, "0" if is_packed else "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def latencies(paths: dict[str, Path], rounds: int) -> dict[str, dict[str, float]]:
    """Return milliseconds by file, packed and not, all in turn: p50, and p10, which other work disturbs least.

    It is processor time: with one thread all work is done by this one, and what else runs here does not lengthen it.
    """
    rows = feeds()
    sessions = {(name, packed): session(path, packed) for name, path in paths.items() for packed in (True, False)}
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in sessions}
    for index in range(rounds + 3):
        for key, opened in sessions.items():
            start = time.thread_time_ns()
            opened.run(["logits"], rows[index % N_ROWS])
            if index >= 3:
                times[key].append((time.thread_time_ns() - start) / 1e6)
    found: dict[str, dict[str, float]] = {name: {} for name in paths}
    for (file, is_packed), each in times.items():
        for percentile in (10, 50):
            figure = f"p{percentile}_ms{'' if is_packed else '_unpacked'}"
            found[file][figure] = round(float(np.percentile(each, percentile)), 3)
    return found


def memory(*given: str) -> tuple[float, float]:
    """Return the megabytes of a process that runs a file, or none: at the peak, and while it runs; least of three."""
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", RUN_ONCE, *given], capture_output=True, text=True, check=True)
        runs.append([int(word) / 1024 for word in done.stdout.split()])
    peak, running = (min(each) for each in zip(*runs, strict=True))
    return peak, running


def memories(path: Path, empty: tuple[float, float]) -> dict[str, float]:
    """Return the megabytes that a file needs above a process without one, packed and not."""
    found: dict[str, float] = {}
    for ending, flag in (("", "0"), ("_unpacked", "1")):
        peak, running = memory(str(path), flag)
        found |= {f"peak_mb{ending}": round(peak - empty[0], 1), f"running_mb{ending}": round(running - empty[1], 1)}
    return found


def measure(files: Files, rounds: int) -> list[dict[str, Any]]:
    """Return a row per file: bytes, what is left float, distance from torch, time, memory."""
    times = latencies({name: path for name, (_, path) in files.items() if isinstance(path, Path)}, rounds)
    empty = memory()
    rows: list[dict[str, Any]] = []
    for name, (model, path) in files.items():
        if not isinstance(path, Path):
            rows.append({"name": name, "failed": path})
            continue
        theirs, n_parameters = reference(model), sum(each.numel() for each in model.parameters())
        opened = session(path)
        logits = np.concatenate([opened.run(["logits"], each)[0] for each in feeds()])  # (rows, labels)
        row = {
            "name": name,
            "parameters": n_parameters,
            **identity_of(path)._asdict(),
            "bytes_per_parameter": round(path.stat().st_size / n_parameters, 4),
            "float_products": len(float_products(onnx.load(path))),
            "relative_error": round(float(np.linalg.norm(logits - theirs) / np.linalg.norm(theirs)), 5),
            "top1_agreement": float((logits.argmax(1) == theirs.argmax(1)).mean()),
            **times[name],
            **memories(path, empty),
        }
        rows.append(row)
        told = f"{row['float_products']:3} left  {row['p50_ms']:.2f} ms  {row['peak_mb']} / {row['running_mb']} MB"
        click.echo(f"{name:75} {row['bytes_file']:>12,} {told}")
    return rows


@click.command()
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the models go; may be deleted.")
@click.option("--rounds", default=24, show_default=True)
def main(work: Path, rounds: int) -> None:
    """Build, measure and write the result."""
    torch.set_num_threads(1)
    sections: list[dict[str, Any]] = []
    shared = albert()
    folder = work / "albert"
    folder.mkdir(parents=True, exist_ok=True)
    files: Files = {f"tenmeg: {name}": (shared, path) for name, path in ours(shared, folder).items()}
    files |= {name: (shared, path) for name, path in plain(shared, folder).items()}
    sections.append({"name": "albert", "rows": measure(files, rounds)})
    for hidden in (256, 768):
        files = {}
        for name, layers, repeat in STUDENTS[: len(STUDENTS) if hidden == 768 else 3]:
            model = student(hidden, layers, repeat)
            folder = work / f"{hidden}-{name.replace(', ', '-').replace(' ', '-')}"
            folder.mkdir(parents=True, exist_ok=True)
            files |= {f"{name}: {bits}": (model, path) for bits, path in ours(model, folder).items()}
        sections.append({"name": f"students, hidden {hidden}", "rows": measure(files, 2 * rounds)})
    command = "python -m benchmarks.shared_export --work DIR"
    setting = {"tokens": TOKENS, "rows": N_ROWS, "rounds": rounds, "threads": 1}
    facts = {"setting": setting, "versions": versions(), "machine": machine()}
    write_json(RESULT_PATH, {"version": 1, "command": command, **facts, "sections": sections})


if __name__ == "__main__":
    main()

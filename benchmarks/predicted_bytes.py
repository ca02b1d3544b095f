"""Predicted against measured bytes of whole packages, for twelve shapes: ``python -m benchmarks.predicted_bytes``.

In two of them layers repeat, and two are packaged once more with the certificate of a fold that computed every tensor.

Each shape gets random weights (bytes do not depend on them) and a vocabulary trained on docstrings, and goes through
export, clean-up, quantisation and packaging as every package does. Prints a table and writes
``docs/results/predicted_bytes.json``. Needs the extras train, cpu and demo; takes about two minutes.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.docstring_search import teacher_folder
from benchmarks.support.docstrings import docstrings, sentences_of
from compressor.recipe.sections import StageSection
from compressor.report.fold_certificates import manifest_block, predicted_bytes
from compressor.report.report import model_card
from compressor.training.registry import resolve
from exporters.package import PackageInfo, make_cases, package_bytes, write_package
from exporters.pooling import Pooling
from exporters.predicted_bytes import predict_bytes
from exporters.repetition import pattern
from exporters.shape import Scheme, Shape
from vocab.save import save_tokenizer
from vocab.train import train_vocabulary

RESULTS = Path("docs/results/predicted_bytes.json")
TEXTS = ("a short one", "Return the number of rows.", "the file does not exist", "what a lovely film", "no")
CLASSES: dict[str, Any] = {"n_labels": 2, "head_layers": 1}
CASES: tuple[tuple[Shape, Scheme], ...] = (
    (Shape(2000, 64, 2, 2, 256, 64, **CLASSES), Scheme(8, 8)),
    (Shape(4000, 128, 2, 2, 512, 64, **CLASSES), Scheme(4, 4)),
    (Shape(4000, 128, 4, 2, 512, 128), Scheme(8, 8)),
    (Shape(3000, 312, 4, 12, 1248, 128, **CLASSES), Scheme(8, 8)),
    (Shape(8000, 256, 4, 4, 1024, 128, **CLASSES), Scheme(8, 4)),
    (Shape(6000, 384, 4, 12, 1536, 64), Scheme(8, 8)),
    (Shape(8000, 384, 6, 12, 1536, 128, n_labels=20, head_layers=1), Scheme(4, 8)),
    (Shape(6000, 384, 6, 12, 1536, 128), Scheme(4, 4, 64)),
    (Shape(12000, 320, 5, 5, 1280, 128, **CLASSES), Scheme(4, 4, 16)),
    (Shape(4000, 128, 3, 4, 512, 64, **CLASSES), Scheme(None, None)),
    (Shape(4000, 128, 3, 4, 512, 64, **CLASSES, **pattern("all", 3)._asdict()), Scheme(8, 8)),
    (Shape(6000, 384, 6, 12, 1536, 128, **pattern("top_half", 6)._asdict()), Scheme(4, 8)),
)
FOLDED = (CASES[1], CASES[6])
STAGE = StageSection(method="weight_squeezing", options={"map_biases": True, "map_layernorm": True})


def main() -> None:
    """Build the packages, print the table and write it."""
    teacher_dir = teacher_folder()
    teacher = Tokenizer.from_file(str(teacher_dir / "tokenizer.json"))
    texts = [sentence for docstring in docstrings() for sentence in sentences_of(docstring)]
    rows: list[dict[str, object]] = []
    errors: list[float] = []
    print(f"{'shape':52}{'scheme':>10}{'predicted':>12}{'measured':>12}{'error %':>9}")
    for number, (shape, scheme) in enumerate((*CASES, *FOLDED)):
        is_folded = number >= len(CASES)
        with tempfile.TemporaryDirectory() as name:
            tokenizer = train_vocabulary(texts, shape.vocab_size, "wordpiece", teacher)
            package = build(Path(name), shape, scheme, tokenizer, is_folded)
            certificates = predicted_bytes([resolve(STAGE)], "bert", shape) if is_folded else (0, 0)
            predicted = sum(predict_bytes(shape, scheme, certificates=certificates).values())
            measured = package_bytes(package)
        error = 100 * (predicted - measured) / measured
        passes = f" in {shape.n_passes} passes" if shape.passes else ""
        sizes = f"{shape.layers}{passes} x {shape.hidden}, FFN {shape.ffn}, {shape.vocab_size:,} tokens"
        label = f"{sizes}, {shape.n_labels} labels{', folded' if is_folded else ''}"
        errors.append(abs(error))
        row = {"shape": label, "scheme": scheme.name, "block_size": scheme.block_size}
        rows.append({**row, "predicted": predicted, "measured": measured, "error_percent": round(error, 3)})
        print(f"{label:52}{scheme.name:>10}{predicted:12,}{measured:12,}{error:9.2f}")
    worst = round(max(errors), 3)
    print(f"largest error: {worst:.2f} %")
    content = {"command": "python -m benchmarks.predicted_bytes", "rows": rows, "largest_error_percent": worst}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def build(folder: Path, shape: Shape, scheme: Scheme, tokenizer: Tokenizer, is_folded: bool = False) -> Path:
    """Write a package of a BERT with random weights, folded from a teacher's or not, and return its folder."""
    from exporters.graph.optimize import optimize
    from exporters.graph.quantize import quantize
    from exporters.head import load_head
    from exporters.to_onnx import export_model

    save_tokenizer(tokenizer, folder / "tokenizer", {}, shape.positions)
    model_dir, model_path = folder / "model", folder / "model.onnx"
    config = save_random_bert(model_dir, shape)
    kind = "classification" if shape.n_labels else "embedding"
    pooling = None if shape.n_labels else Pooling("mean", normalize=True)
    result = export_model(model_dir, model_path, kind, shape.positions, pooling)
    optimize(model_path, model_path)
    counts = quantize(model_path, model_path, scheme)
    folds = [_certificate(model_dir)] if is_folded else []
    info = PackageInfo(
        kind=kind,
        max_length=shape.positions,
        inputs=result.inputs,
        output="probabilities" if shape.n_labels else "sentence_embedding",
        labels=tuple(config["id2label"].values()) if shape.n_labels else (),
        pooling=pooling._asdict() if pooling else None,
        scheme={"name": scheme.name, **counts._asdict()},
        versions={"tenmeg": "0.1.0", "onnxruntime": "1.31.1", "torch": "2.13.0", "transformers": "5.23.0"},
        recipe_sha256="0" * 64,
        teacher={"name": "teacher", "sha256": {"model.safetensors": "0" * 64, "config.json": "0" * 64}},
        quality={"metric": "accuracy", "value": 0.9, "teacher": 0.91, "rows": 872, "data_sha256": "0" * 64},
        inheritance=manifest_block(folds),
    )
    cases = make_cases(model_path, folder / "tokenizer", info, list(TEXTS))
    facts = {"task": load_head(kind).task, "labels": list(info.labels), "max_length": shape.positions}
    card = model_card({"task": facts, "inheritance": folds})
    shutil.rmtree(model_dir)
    return write_package(model_path, folder / "tokenizer", config, info, cases, card, folder / "package")


def _certificate(model_dir: Path) -> dict[str, Any]:  # Any: JSON
    """Return a certificate over every tensor of a model: the differences that rounding to float32 makes."""
    import torch
    from safetensors.torch import load_file

    from compressor.inherit.fold import TOLERANCES

    doubled = {name: value.double() * (1 + 1e-9) for name, value in load_file(model_dir / "model.safetensors").items()}
    tensors = {name: float((value.to(torch.float32) - value).abs().max()) for name, value in sorted(doubled.items())}
    worst = max(tensors, key=lambda name: tensors[name])
    scale = float(doubled[worst].abs().max())
    return {
        "stage": 1,
        "method": STAGE.method,
        "tensors": tensors,
        "largest": {"tensor": worst, "difference": tensors[worst], "scale": scale},
        "outputs": {"rows": 64, "float64": 4.4e-16, "stored": 1.8e-07, "scale": 1.0},
        "tolerances": dict(TOLERANCES),
    }


def save_random_bert(model_dir: Path, shape: Shape) -> dict[str, Any]:
    """Save a BERT of this shape and return its configuration (``Any``: whatever Hugging Face keeps there)."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    import exporters.repeats  # noqa: F401 - registers the architectures whose layers repeat

    torch.manual_seed(0)
    passes = {"passes": list(shape.passes), "exchanged": list(shape.exchanged)} if shape.passes else {}
    config = AutoConfig.for_model(
        "repeated-bert" if passes else "bert",
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=shape.positions,
        id2label={index: f"label {index}" for index in range(max(1, shape.n_labels))},
        **passes,
    )
    auto_class = AutoModelForSequenceClassification if shape.n_labels else AutoModel
    model = auto_class.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are all zero, and would be stored once
            parameter.normal_(std=0.05)
    model.save_pretrained(model_dir)
    content: dict[str, Any] = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main()

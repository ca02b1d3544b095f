"""Tiny real stages for the tests of training methods: two vocabularies, a teacher of any family, its cached outputs."""

import json
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from compressor.batches.encoded import Collate, Collator, EncodedRows, encode_rows
from compressor.batches.outputs import takes_segments, teacher_outputs
from compressor.batches.teacher_cache import TeacherCache
from compressor.data.table import Table
from compressor.mixing.batches import MixedCollator, Tokens, encode_mixed, tokens_of
from compressor.models.families import family_of, shape_of
from compressor.models.teacher import TeacherInfo
from compressor.recipe.sections import StageSection
from compressor.scoring.registry import task_spec
from compressor.student.activations import Activations, measure_activations
from compressor.training.contract import Context, Mixing, model_inputs
from compressor.training.registry import build_options, load_method, resolve
from exporters.pooling import Pooling
from tests.support.tiny import make_rows, tiny_tokenizer
from vocab.mapping import VocabMap, map_vocabulary
from vocab.mixing.cut import MixedRows
from vocab.train import train_vocabulary

N_ROWS, MAX_LENGTH, STUDENT_SIZE = 24, 48, 150
TEACHER_HIDDEN, TEACHER_LAYERS, CACHED_LAYERS = 24, 3, (1, 3)
FIRST_LAYERS = (1, 2, 3)  # cached for the first token: whatever a method may ask for
LABELS = {"classification": ("a", "b", "c"), "regression": ("score",), "embedding": (), "multi_label": ("a", "b", "c")}
MODEL_TYPES = ("bert", "roberta", "distilbert", "electra")


class Case(NamedTuple):
    """One training stage that is ready to run."""

    objective: Any  # an nn.Module and an Objective
    rows: EncodedRows
    collate: Collate
    context: Context
    options: Any  # an instance of the method's own Options


@cache
def tokenizers() -> tuple[Tokenizer, Tokenizer]:
    """Return the teacher's tokenizer and the student's, which cuts words more finely; do not change them.

    The teacher's has every word of the rows. It is written down, not learned: the trainer of ``tokenizers`` does not
    choose the same tokens in every process.
    """
    texts = [text for text, _ in make_rows(300, 0)]
    spec = json.loads(tiny_tokenizer()._tokenizer.to_str())
    special = [token["content"] for token in spec["added_tokens"]]
    letters = [chr(code) for code in range(33, 127) if chr(code) == chr(code).lower()]
    words = sorted({word for text in texts for word in re.findall(r"[a-z0-9]+", text.lower())})
    tokens = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    spec["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    teacher = Tokenizer.from_str(json.dumps(spec))
    return teacher, train_vocabulary(texts, STUDENT_SIZE, "wordpiece", teacher)


@cache
def vocab_map() -> VocabMap:
    """Return the student's tokens as the teacher's."""
    teacher, student = tokenizers()
    return map_vocabulary(student, teacher)


def table_of(texts: list[str], pairs: list[str] | None = None) -> Table:
    """Return rows without labels."""
    return Table(texts=texts, pairs=pairs, labels=None, columns={}, sha256="", source="")


@cache
def table() -> Table:
    """Return the rows of every case: sentences of different lengths."""
    texts = [text for text, _ in make_rows(2 * N_ROWS, 3)]
    return table_of([f"{text}. {other}" if n % 3 else text for n, (text, other) in enumerate(pairwise(texts))])


def pairwise(texts: list[str]) -> list[tuple[str, str]]:
    """Return the first half beside the second."""
    return list(zip(texts[: len(texts) // 2], texts[len(texts) // 2 :], strict=True))


@cache
def encoded() -> tuple[MixedRows, EncodedRows]:
    """Return both cuts of the rows."""
    return encode_mixed(*tokenizers(), table(), MAX_LENGTH)


def tiny_config(
    model_type: str, vocab_size: int, hidden: int, layers: int, n_labels: int = 3, **more: int
) -> Any:  # Any: a configuration of one of four classes
    """Return the configuration of a tiny model with FFN layers of twice the width."""
    numbers: dict[str, Any] = {"vocab_size": vocab_size, "num_labels": n_labels, "max_position_embeddings": 64, **more}
    spelled = ("dim", "n_layers", "n_heads", "hidden_dim")
    if model_type != "distilbert":
        spelled = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    numbers |= dict(zip(spelled, (hidden, layers, 2, 2 * hidden), strict=True))
    if model_type == "roberta":
        numbers |= {"type_vocab_size": 1, "pad_token_id": 1}
    if model_type == "electra":
        numbers["embedding_size"] = 12  # as in the real ones not the width of the layers
    return AutoConfig.for_model(model_type, initializer_range=0.1, **numbers)


def tiny_model(config: Any, kind: str = "classification", seed: int = 0) -> PreTrainedModel:  # Any: see ``tiny_config``
    """Return a model with random weights, those of biases and gains too: a trained one's are not 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "embedding":
            model = AutoModel.from_config(config, **family_of(config.model_type).without_pooler)
        elif kind == "mlm":
            model = AutoModelForMaskedLM.from_config(config)
        else:
            model = AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.float().eval()


def context_of(
    kind: str = "classification",
    *,
    hidden: int = 16,
    model_type: str = "bert",
    layers: int = 2,
    teacher_dir: Path | None = None,
) -> Context:
    """Return the context of a student beside its teacher, which has another vocabulary, width and depth."""
    n_labels, n_tokens = max(1, len(LABELS[kind])), tokenizers()[1].get_vocab_size()
    return Context(
        tiny_model(tiny_config(model_type, n_tokens, hidden, layers, n_labels), kind, seed=1).train(),
        task_spec(kind, LABELS[kind], pair=False),
        Pooling("mean", True) if kind == "embedding" else None,
        TEACHER_HIDDEN,
        CACHED_LAYERS,
        TEACHER_LAYERS,
        teacher=tiny_teacher(kind, model_type).requires_grad_(False),
        teacher_dir=teacher_dir,
        vocab_map=vocab_map(),
        model_type=model_type,
        activations=activations_of(kind, model_type),
        teacher_first_layers=FIRST_LAYERS,
    )


def tiny_teacher(kind: str, model_type: str) -> PreTrainedModel:
    """Return the teacher of every context of a kind and family: always the same weights, in a model of its own."""
    n_labels, n_tokens = max(1, len(LABELS[kind])), tokenizers()[0].get_vocab_size()
    return tiny_model(tiny_config(model_type, n_tokens, TEACHER_HIDDEN, TEACHER_LAYERS, n_labels), kind)


@cache
def activations_of(kind: str, model_type: str) -> Activations:
    """Return what the teacher's parts do on the rows."""
    rows = encode_rows(tokenizers()[0], table(), MAX_LENGTH)
    return measure_activations(tiny_teacher(kind, model_type), family_of(model_type), rows)


def cache_of(context: Context) -> TeacherCache:
    """Return what the teacher says about the rows on its own cut of them."""
    assert context.teacher is not None
    config = context.teacher.config.to_dict()
    kind = context.spec.kind
    info = TeacherInfo(
        folder=Path(), name="tiny", revision=None, config=config, task="", kind=kind, labels=LABELS[kind],
        pooling=context.pooling, max_length=MAX_LENGTH, shape=shape_of(config, len(LABELS[kind])), hashes={},
    )  # fmt: skip
    rows = encode_rows(tokenizers()[0], table(), MAX_LENGTH)
    with torch.autocast("cpu", enabled=False):
        kept = context.teacher_layers, range(N_ROWS), context.teacher_first_layers
        shard = teacher_outputs(context.teacher, info, rows, *kept)
    return TeacherCache(
        [shard], context.teacher_layers, context.teacher_first_layers, tuple(range(len(context.teacher_first_layers)))
    )


def labels_of(kind: str) -> npt.NDArray[np.generic] | None:
    """Return labels, of which the first class can be told from the texts; an encoder's rows have none."""
    if kind == "embedding":
        return None
    numbers = np.arange(N_ROWS) % 3  # a row of class 0 has one sentence, the others two
    if kind == "multi_label":
        return np.stack([numbers > 0, numbers > 1, numbers < 2], axis=1).astype(np.float32)
    return numbers if kind == "classification" else (numbers / 2).astype(np.float32)


def collator_of(
    mixing: Mixing | None, plain: Collator, *, seed: int = 5, epochs: float = 3.0, max_length: int | None = MAX_LENGTH
) -> Collate:
    """Return the collator that a stage with this mixing has."""
    if mixing is None:
        return plain
    return MixedCollator(encoded()[0], plain, tokens(), mixing, seed, epochs, max_length)


def tokens() -> Tokens:
    """Return what mixing must know of the two vocabularies."""
    return tokens_of(*tokenizers(), masked=0.15)


def make_case(method: str, context: Context, options: dict[str, Any] | None = None) -> Case:
    """Return a stage of ``method`` on the rows."""
    chosen = build_options(method, options or {})
    kind, model_type = context.spec.kind, context.model_type
    wants = resolve(StageSection(method=method, options=options or {})).wants
    cached = cache_of(context) if wants.cache else None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = load_method(method).objective_class(context, chosen)
    mixing = objective.mixing
    rows, labels = encoded()[1], labels_of(kind)
    if cached is not None and objective.relabels:
        labels = objective.relabel(cached.outputs(range(N_ROWS)), labels).labels
    plain = Collator(rows, 0, takes_segments(model_type), labels, cached, has_words=mixing is not None)
    return Case(objective, rows, collator_of(mixing, plain), context, chosen)


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the module's tensors."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def is_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """Say whether two states hold the same tensors bit for bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def descend(case: Case, n_steps: int, rate: float = 3e-3) -> list[float]:
    """Train on one batch of all rows and return the loss before each step."""
    optimizer = torch.optim.AdamW([each for each in case.objective.parameters() if each.requires_grad], lr=rate)
    batch, losses = case.collate(range(N_ROWS)), []
    case.objective.begin(n_steps)
    for _ in range(n_steps):
        loss = torch.stack(list(case.objective(**batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        case.objective.before_step(optimizer)
        optimizer.step()
        case.objective.after_step(optimizer)
        losses.append(loss.item())
    return losses


def finish(case: Case, n_rows: int = 8) -> Any:  # Any: a certificate, as JSON
    """End the stage as a run does: the objective's student is the plain final model."""
    batches = [model_inputs(case.collate(range(n_rows)))]
    return case.objective.finish(batches) if case.objective.is_folded else None


def options_of(chosen: Any) -> dict[str, Any]:  # Any: an instance of a method's own Options
    """Return a method's options as a recipe writes them."""
    return asdict(chosen)

"""Tiny checkpoints of every family, teachers and smaller models, with tokenizers that go together."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from compressor.models.teacher import TeacherInfo, read_teacher
from compressor.recipe.sections import TeacherSection
from tests.support import vocab_teachers
from tests.support.method_cases import tiny_config, tiny_model, tokenizers
from vocab.save import save_tokenizer

ROBERTA_LIKE = ("roberta", "xlm-roberta", "camembert")


def save_model(
    folder: Path,
    model_type: str = "bert",
    kind: str = "classification",
    *,
    hidden: int = 16,
    layers: int = 1,
    labels: tuple[str, ...] = ("a", "b", "c"),
    tokenizer: Tokenizer | None = None,
    seed: int = 1,
    **more: int,
) -> Path:
    """Write a model with random weights and the student's tokenizer of its family; return its folder.

    Args:
        folder: made if missing.
        model_type: architecture.
        kind: "classification", "embedding" (the bare encoder) or "mlm".
        hidden: width.
        layers: depth.
        labels: of a classifier.
        tokenizer: instead of the family's.
        seed: of the weights.
        **more: keys of the configuration.
    """
    cutter = tokenizer or tokenizers_of(model_type)[1]
    config = tiny_config(model_type, cutter.get_vocab_size(), hidden, layers, len(labels), **more)
    if kind == "classification":
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    tiny_model(config, kind, seed).save_pretrained(folder)
    save_tokenizer(cutter, folder, {"tokenizer_class": "RobertaTokenizer"} if model_type in ROBERTA_LIKE else {}, 60)
    return folder


def save_teacher(folder: Path, model_type: str = "bert", kind: str = "classification") -> TeacherInfo:
    """Write a teacher of three layers and width 24, and return what its files say."""
    save_model(folder, model_type, kind, hidden=24, layers=3, tokenizer=tokenizers_of(model_type)[0], seed=0)
    task: Any = "feature-extraction" if kind == "embedding" else "text-classification"
    return read_teacher(TeacherSection(path=str(folder), task=task))


def tokenizers_of(model_type: str) -> tuple[Tokenizer, Tokenizer]:
    """Return the tokenizers of a teacher and of a student."""
    if model_type in ROBERTA_LIKE:
        return vocab_teachers.teacher("roberta"), vocab_teachers.student("roberta", "bpe")
    return tokenizers()


def change_json(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; ``None`` removes one."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")

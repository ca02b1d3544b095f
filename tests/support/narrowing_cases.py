"""Tiny stages of weight inheritance: students of fewer dimensions per head or of fewer heads, disturbed, cut down."""

import dataclasses
from typing import Any

import torch

from compressor.inherit.masks import clear
from compressor.models.families import family_of
from compressor.training.contract import Context
from tests.support.inheriting_cases import inheriting_context
from tests.support.method_cases import context_of, make_case, tiny_config, tiny_model, tokenizers

NAME = "weight_inheritance"


def mlm_model(model_type: str, hidden: int, layers: int, seed: int) -> Any:  # a masked-language model
    config = tiny_config(model_type, tokenizers()[0].get_vocab_size(), hidden, layers)
    config.tie_word_embeddings = False
    return tiny_model(config, "mlm", seed)


def stage_context(model_type: str, kind: str, strategy: str, is_vocabulary_new: bool) -> Context:
    """Return the context of a student of two layers: two heads of 8, or one of the teacher's two heads of 12."""
    hidden = 16 if strategy == "dim" else 12
    if kind == "mlm":
        teacher, student = mlm_model(model_type, 24, 3, 0), mlm_model(model_type, hidden, 2, 1)
        context = dataclasses.replace(
            context_of(model_type=model_type), student=student, teacher=teacher, vocab_map=None
        )
    else:
        context = inheriting_context(
            kind, model_type=model_type, hidden=hidden, layers=2, is_vocabulary_new=is_vocabulary_new
        )
    if strategy == "head":
        config = context.student.config
        setattr(config, family_of(model_type).config["heads"], 1)
        context = dataclasses.replace(context, student=type(context.student)(config, **without_pooler(kind)).train())
    return context


def without_pooler(kind: str) -> dict[str, bool]:
    return {"add_pooling_layer": False} if kind == "embedding" else {}


def objective_of(context: Context, **options: Any) -> Any:  # an Objective
    """Return the objective; a masked-language model's has a loss that is never computed."""
    return make_case(NAME, context, options).objective


def disturb(objective: Any, seed: int = 0, size: float = 0.1) -> None:
    """Move everything that is trained away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in objective.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def cut_down(objective: Any) -> None:
    """Choose everything that goes and set it to zero."""
    objective.begin(100)
    objective.choose(100)
    clear(objective.entries())

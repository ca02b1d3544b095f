"""Tiny models whose layers run more than once, beside the plain ones of ``method_cases``."""

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from compressor.models.families import family_of
from compressor.training.contract import Context
from exporters.repeats import PLACES, pattern
from exporters.repetition import PREFIX, plain_type
from tests.support.method_cases import context_of, tiny_config, tiny_model

FAMILIES = ("bert", "roberta", "distilbert", "electra")
N_TOKENS, HIDDEN, LAYERS = 60, 16, 2


def plain_model(model_type: str, layers: int = LAYERS, seed: int = 0) -> PreTrainedModel:
    """Return a model whose layers run once each."""
    return tiny_model(tiny_config(model_type, N_TOKENS, HIDDEN, layers), seed=seed)


def repeated(model: PreTrainedModel, repeat: str | list[int] = "all", exchange: bool = True) -> PreTrainedModel:
    """Return a copy of a plain model whose layers run again."""
    found = pattern(repeat, model.config.num_hidden_layers, exchange)
    numbers = {key: value for key, value in model.config.to_dict().items() if key != "model_type"}
    numbers |= {"passes": list(found.passes), "exchanged": list(found.exchanged)}
    config = AutoConfig.for_model(f"{PREFIX}{plain_type(model.config.model_type)}", **numbers)
    config._attn_implementation = model.config._attn_implementation
    if "ForSequenceClassification" in type(model).__name__:
        made = AutoModelForSequenceClassification.from_config(config)
    else:
        made = AutoModel.from_config(config, **family_of(config.model_type).without_pooler)
    made.load_state_dict(model.state_dict())
    return made.to(next(model.parameters()).dtype).train(model.training)


def repeated_context(kind: str = "classification", repeat: str | list[int] = "all", **more: Any) -> Context:
    """Return a context of ``method_cases`` whose student runs its layers again."""
    context = context_of(kind, **more)
    return dataclasses.replace(context, student=repeated(context.student, repeat))


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the list of layers of a model."""
    place = PLACES[plain_type(model.config.model_type)]
    found: Any = model.base_model.get_submodule(f"{place.encoder}.layer")
    return found


def unrolled(model: PreTrainedModel, repeat: str | list[int], *, is_tied: bool) -> PreTrainedModel:
    """Return a plain model with a layer per pass: the same module for passes of one stored layer, or one for each."""
    found = pattern(repeat, model.config.num_hidden_layers)
    deep = plain_model(plain_type(model.config.model_type), len(found.passes)).to(next(model.parameters()).dtype)
    others = {name: each for name, each in model.state_dict().items() if ".layer." not in name}
    deep.load_state_dict({**deep.state_dict(), **others})
    stored, layers = copy.deepcopy(layers_of(model)), layers_of(deep)  # a layer of two models would be recorded twice
    for place, index in enumerate(found.passes):
        if is_tied:
            layers[place] = stored[index]
        else:
            layers[place].load_state_dict(stored[index].state_dict())
    return deep.eval()


def batch_of(n_rows: int = 3, length: int = 7) -> dict[str, Tensor]:
    """Return rows without padding."""
    ids = torch.randint(4, N_TOKENS, (n_rows, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@contextmanager
def recorded_scores(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Yield what attention weighs before its softmax, (batch, heads, tokens, tokens) per pass, while the model runs."""
    scores: list[Tensor] = []

    def record(_module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
        scores.append(query @ key.transpose(-1, -2))
        return (scores[-1].softmax(-1) @ value).transpose(1, 2), None

    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register("recorded", record)
    model.config._attn_implementation = "recorded"
    try:
        yield scores
    finally:
        model.config._attn_implementation = before

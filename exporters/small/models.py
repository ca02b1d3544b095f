"""Small encoders that are no transformers; importing this module registers them with transformers.

    recurrent     token table -> gated recurrent units in both directions (GRU, Cho et al. 2014, 1406.1078)
    convolution   token table -> convolutions over 1, 3 and 5 tokens side by side (Kim 2014, 1408.5882)
    mean          token table, whose rows are weighted by their own lengths (fastText, 1607.01759)
    tfidf         words and pairs of words, counted, under a linear model (``exporters.small.tfidf``)

``import exporters.small.models`` is all that transformers needs to open such a folder: AutoConfig, AutoModel and
AutoModelForSequenceClassification then know the ``model_type`` "small-recurrent" and so on, and no code lies in the
checkpoint. A sentence encoder gives the state of every token, through one linear layer, to be pooled; a classifier
takes the largest of every state over the tokens (of ``mean`` their mean) through two dense layers. Of a pair the two
texts are pooled one by one, and the dense layers see u, v, |u - v| and u v.

A text's answer does not depend on what it is padded with: a recurrent net stops at a row's last token, and
convolutions see zeros behind it. The recurrent weights have the layout of the ONNX operator (gates z, r, h; the reset
gate after the product), so that an exported graph reads them as they are stored.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from exporters.refused import Refused
from exporters.small.layers import Convolutions, Recurrent
from exporters.small.shape import PREFIX, SMALL, TFIDF, state_size
from exporters.small.tfidf import TfidfConfig

LOWEST = -1.0  # no state of a recurrent net or a convolution is below: it stands for one that is not there


class SmallConfig(PretrainedConfig):
    """The numbers of a small encoder."""

    model_type = PREFIX

    def __init__(
        self,
        vocab_size: int = 8000,
        embedding_size: int = 64,
        units: int = 96,
        dense: int = 64,
        output_size: int = 0,
        type_vocab_size: int = 1,
        max_position_embeddings: int = 128,
        dropout: float = 0.0,
        pad_token_id: int = 0,
        **rest: Any,
    ) -> None:
        """Take the numbers.

        Args:
            vocab_size: rows of the token table.
            embedding_size: its columns.
            units: of the recurrent net in one direction, or filters of every convolution's width; ``mean`` has none.
            dense: width of the layer before the one that answers.
            output_size: width of a sentence encoder's vectors; 0: the states are the vectors.
            type_vocab_size: 2 where a classifier reads two texts.
            max_position_embeddings: tokens at most; there is no table of positions.
            dropout: between the layers, while it is trained.
            pad_token_id: what rows are filled up with.
            **rest: of every configuration.
        """
        self.vocab_size, self.embedding_size, self.units = vocab_size, embedding_size, units
        self.dense, self.output_size, self.type_vocab_size = dense, output_size, type_vocab_size
        self.max_position_embeddings, self.dropout = max_position_embeddings, dropout
        self.num_hidden_layers = rest.pop("num_hidden_layers", 1)
        rest.pop("hidden_size", None)  # follows from the others
        super().__init__(pad_token_id=pad_token_id, **rest)

    @property
    def family(self) -> str:
        """``recurrent``, ``convolution`` or ``mean``."""
        return self.model_type.removeprefix(PREFIX)

    @property
    def state_size(self) -> int:
        """Width of a token's state."""
        return state_size(self.family, self.units, self.embedding_size)

    @property
    def hidden_size(self) -> int:
        """Width of what the encoder gives for a token."""
        return self.output_size or self.state_size


class SmallPreTrainedModel(PreTrainedModel):
    """What all small models have in common."""

    config_class = SmallConfig
    base_model_prefix = "small"
    _supports_sdpa = True  # it has no attention, so that whichever is asked for will do

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif isinstance(module, Recurrent):
            module.draw()
        elif isinstance(module, nn.Linear | nn.Conv1d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class SmallModel(SmallPreTrainedModel):
    """Token table and body: a state for every token."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = nn.Dropout(config.dropout)
        self.recurrent = Recurrent(config.embedding_size, config.units) if config.family == "recurrent" else None
        self.convolutions = (
            Convolutions(config.embedding_size, config.units) if config.family == "convolution" else None
        )
        self.output = nn.Linear(config.state_size, config.output_size) if config.output_size else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token table."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Take another token table."""
        self.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_unused: Any,
    ) -> BaseModelOutput:
        """Return the states (batch, tokens, hidden) of ids and mask (batch, tokens), padded on the right."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        visible = mask.unsqueeze(-1).to(torch.float32)  # (batch, tokens, 1)
        embedded = self.dropout(self.word_embeddings(input_ids))
        states = embedded
        if self.recurrent is not None:
            states = self.recurrent(embedded, mask.sum(dim=1))
        elif self.convolutions is not None:
            states = self.convolutions(embedded, visible)
        if self.output is not None:
            states = self.output(self.dropout(states))
        return BaseModelOutput(states, hidden_states=(embedded, states) if output_hidden_states else None)


class SmallForSequenceClassification(SmallPreTrainedModel):
    """A small model and the dense layers that answer."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.small = SmallModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.is_pair = config.type_vocab_size > 1
        self.dense = nn.Linear(config.hidden_size * (4 if self.is_pair else 1), config.dense)
        self.classifier = nn.Linear(config.dense, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_unused: Any,
    ) -> SequenceClassifierOutput:
        """Return logits (batch, labels)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        output = self.small(input_ids, mask, output_hidden_states=output_hidden_states)
        states = output.last_hidden_state
        if not self.is_pair:
            pooled = self._pool(states, mask)
        else:
            second = torch.zeros_like(mask) if token_type_ids is None else token_type_ids
            first, last = self._pool(states, mask * (1 - second)), self._pool(states, mask * second)
            pooled = torch.cat([first, last, (first - last).abs(), first * last], dim=-1)
        hidden = F.relu(self.dense(self.dropout(pooled)))
        logits = self.classifier(self.dropout(hidden))
        return SequenceClassifierOutput(logits=logits, hidden_states=output.hidden_states)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return one vector per text (batch, hidden)."""
        visible = mask.unsqueeze(-1).to(states.dtype)  # (batch, tokens, 1)
        if self.config.family == "mean":
            return (states * visible).sum(dim=1) / visible.sum(dim=1).clamp(min=1.0)
        return (states * visible + (1 - visible) * LOWEST).amax(dim=1)


def _config_class(family: str) -> type[SmallConfig]:
    class Config(SmallConfig):
        """The numbers of a small encoder of one family."""

        model_type = f"{PREFIX}{family}"

        def __init__(self, **numbers: Any) -> None:  # a configuration without its own gets a made one
            super().__init__(**numbers)

    return _named(Config, SmallConfig, family)


def _model_class(plain: Any, config: type[SmallConfig], family: str) -> Any:  # Any: a model class
    class Model(plain):  # type: ignore[misc]
        __doc__ = plain.__doc__
        config_class = config

    return _named(Model, plain, family)


def _named(made: Any, plain: type, family: str) -> Any:
    """Call a class after its family and put it into this module, where pickle looks for it."""
    made.__name__ = made.__qualname__ = plain.__name__.replace("Small", f"Small{family.capitalize()}", 1)
    globals()[made.__name__] = made
    return made


CONFIGS: dict[str, type[SmallConfig]] = {family: _config_class(family) for family in SMALL}


def config_class(family: str) -> type[SmallConfig] | type[TfidfConfig]:
    """Return the configuration of a family.

    Raises:
        ValueError: for a family that is not known.
    """
    if family == TFIDF:
        return TfidfConfig
    if family not in CONFIGS:
        raise Refused(f"family {family!r} is not known, expected one of {', '.join(SMALL)}.")
    return CONFIGS[family]


for _family, _config in CONFIGS.items():
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model_class(SmallModel, _config, _family))
    AutoModelForSequenceClassification.register(_config, _model_class(SmallForSequenceClassification, _config, _family))

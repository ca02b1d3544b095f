"""TF-IDF under a linear model, as a model of transformers; importing this module registers it.

A text's features are its words and its pairs of adjacent words, both known; a pair (a, b) falls into one of ``n_pairs``
buckets. With c the number of times that a feature occurs in the text:

    tf = 1 + ln c     x = tf * idf / |tf * idf|     score = x . coefficients + bias

Each of the c occurrences carries tf / c, so that nothing has to be collected: sums run over the places of a text, in
plain operators, and the graph and torch do the same. An inverse document frequency is stored as a whole number from 1
to 255, whose unit divides out; 0 is no feature. Coefficients are of 8 bits with a scale per column.

Of two classes there is one column: their logits are (-score, score). A text without a known word gets the bias.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from exporters.small.shape import FIRST_WORD, PAIR_STEP, PREFIX, TFIDF


class TfidfConfig(PretrainedConfig):
    """The numbers of TF-IDF under a linear model."""

    model_type = f"{PREFIX}{TFIDF}"

    def __init__(
        self,
        vocab_size: int = 8000,
        n_pairs: int = 20000,
        columns: int = 1,
        max_position_embeddings: int = 128,
        pad_token_id: int = 0,
        **rest: Any,
    ) -> None:
        """Take the numbers.

        Args:
            vocab_size: words, with [PAD] (0) and [UNK] (1).
            n_pairs: buckets for pairs of adjacent words.
            columns: of coefficients: as many as labels, or one for two.
            max_position_embeddings: tokens at most; there is no table of positions.
            pad_token_id: what rows are filled up with.
            **rest: of every configuration.
        """
        self.vocab_size, self.n_pairs, self.columns = vocab_size, n_pairs, columns
        self.max_position_embeddings, self.type_vocab_size = max_position_embeddings, 1
        rest.pop("type_vocab_size", None)
        super().__init__(pad_token_id=pad_token_id, **rest)


class SmallTfidfForSequenceClassification(PreTrainedModel):
    """Counted words and pairs, and the linear model on them."""

    config_class = TfidfConfig
    base_model_prefix = "small"

    def __init__(self, config: TfidfConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        n_features = config.vocab_size + config.n_pairs
        self.idf: Tensor
        self.coefficients: Tensor
        self.register_buffer("idf", torch.zeros(n_features, 1, dtype=torch.uint8))
        self.register_buffer("coefficients", torch.zeros(n_features, config.columns, dtype=torch.int8))
        self.scale = nn.Parameter(torch.ones(config.columns))
        self.bias = nn.Parameter(torch.zeros(config.columns))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave everything as it is: nothing is drawn."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_unused: Any
    ) -> SequenceClassifierOutput:
        """Return logits (batch, labels) of ids and mask (batch, tokens)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        known = input_ids * mask * (input_ids >= FIRST_WORD)  # (batch, tokens) 0: no feature
        padded = F.pad(known, (0, 2))
        # One place more than tokens: runtimes disagree on sums over none, which an empty text would ask for.
        words, following = padded[:, :-1], padded[:, 1:]  # (batch, places)
        buckets = self.config.vocab_size + (words * PAIR_STEP + following) % self.config.n_pairs
        pairs = buckets * ((words * following) > 0)
        features = torch.stack([words, pairs], dim=1)  # (batch, 2, places)
        # A word's number is never a pair's, so each is counted among its own.
        same = features.unsqueeze(-1) == features.unsqueeze(-2)
        counts = same.sum(dim=-1, keepdim=True).to(torch.float32)  # (batch, 2, places, 1)
        values = (1.0 + counts.log()) * F.embedding(features, self.idf).to(torch.float32)
        squared = (values * values / counts).sum(dim=(1, 2))  # (batch, 1)
        # Where there is a feature at all, the sum is 1 or more.
        norm = squared.clamp(min=1.0).sqrt()
        products = values / counts * F.embedding(features, self.coefficients).to(torch.float32)
        scores = products.sum(dim=(1, 2)) / norm * self.scale + self.bias  # (batch, columns)
        if self.config.columns < self.num_labels:
            scores = torch.cat([-scores, scores], dim=-1)
        return SequenceClassifierOutput(logits=scores)


AutoConfig.register(TfidfConfig.model_type, TfidfConfig)
AutoModelForSequenceClassification.register(TfidfConfig, SmallTfidfForSequenceClassification)

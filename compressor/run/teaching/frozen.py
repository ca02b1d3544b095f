"""What the frozen encoder knows already: vectors of its texts, and a linear model of the labels on them.

A fine-tuned teacher that does not beat this has unlearned something. One text becomes its pooled vector at unit
length; two texts u, v become u, v, |u - v| and u * v, each part brought to one mean length. Refuses nothing.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from compressor.batches.outputs import predictor
from compressor.data.splits import subset
from compressor.data.table import Table
from compressor.models.sentence_folder import read_surroundings
from compressor.models.teacher import TeacherInfo
from compressor.run.teaching import linear
from compressor.run.teaching.linear import Vectors
from compressor.scoring.contract import TaskSpec
from compressor.scoring.evaluate import Predict, score
from exporters.pooling import Pooling
from exporters.weights import open_model

MEAN = Pooling("mean", normalize=True)
MOST_ROWS = 100_000  # that coefficients come from: more say the same


@dataclass(frozen=True)
class Frozen:
    """An encoder that is only read."""

    info: TeacherInfo
    pooling: Pooling | None  # in which it was trained to say what a text means; None: not at all
    max_length: int

    @cached_property
    def predict(self) -> Predict:
        """The function from texts to vectors of unit length; the encoder is opened once."""
        unit = (self.pooling or MEAN)._replace(normalize=True)
        return predictor(load_encoder(self.info), self.info.tokenizer, self.max_length, unit, self.info.truncation)

    def vectors(self, texts: list[str]) -> Vectors:
        """Return vectors of unit length (texts, width)."""
        return np.asarray(self.predict(texts, None))

    def features(self, table: Table, pair: bool) -> list[Vectors]:
        """Return the parts of a row's features, (rows, width) each: one for a text, four for two."""
        first = self.vectors(table.texts)
        if not pair or table.pairs is None:
            return [first]
        second = self.vectors(table.pairs)
        return [first, second, abs(first - second), first * second]


def probe(frozen: Frozen, train: Table, evaluation: Table, spec: TaskSpec, seed: int) -> dict[str, float]:
    """Return what the linear model on the frozen encoder's vectors scores on ``evaluation``."""
    outputs = probe_outputs(frozen, train, evaluation, spec, seed)
    targets = spec.targets(evaluation)
    assert targets is not None
    return score(outputs, targets, spec)


def probe_outputs(frozen: Frozen, train: Table, evaluation: Table, spec: TaskSpec, seed: int) -> Vectors:
    """Return its outputs (rows, outputs), as a model's logits are."""
    train = subset(train, MOST_ROWS, seed)
    targets = spec.targets(train)
    assert targets is not None
    of_train, of_evaluation = (frozen.features(table, spec.pair) for table in (train, evaluation))
    # A product of unit vectors is a fraction of their length; under one penalty it would count for nothing.
    sizes = [float(np.sqrt(np.square(part - part.mean(axis=0)).sum(axis=1).mean())) or 1.0 for part in of_train]
    ours, theirs = (
        np.hstack([part / size for part, size in zip(parts, sizes, strict=True)]) for parts in (of_train, of_evaluation)
    )
    weights, bias = linear.fit(ours, targets, spec, seed)
    return np.asarray(theirs @ weights + bias, dtype=np.float32)


def pooling_of(info: TeacherInfo) -> Pooling | None:
    """Return how a sentence encoder that sentence-transformers saved makes its vectors; None for any other model."""
    return None if info.saved_in is None else read_surroundings(info.saved_in).pooling


def load_encoder(info: TeacherInfo) -> Any:  # a PreTrainedModel
    """Return the encoder without a head."""
    from transformers import AutoModel

    import exporters.repeats  # noqa: F401 - registers the architectures whose layers repeat

    return open_model(AutoModel, info.folder, where="model", is_encoder=True, **info.family.without_pooler).model

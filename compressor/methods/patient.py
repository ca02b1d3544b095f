"""Imitate the teacher's outputs and, layer by layer, the state of its first token (Patient KD).

    loss = (1 - alpha) * CE(student, label) + alpha * T^2 KL(teacher / T || student / T)
         + beta * mean over rows, layers, features of (s/|s| - t/|t|)^2

s and t are states of the first special token ([CLS], <s>), whatever either vocabulary makes of the words: after every
pass of the student's layers except the last, and after as many of the teacher's layers (PKD, 1908.09355, as the code of
Pea-KD, 2009.14822, has it). A layer that runs twice has two passes. A student of one pass has no such term. Where a
row has several labels, CE and KL are those of each by itself, summed. For a score, squared errors take their place. A
sentence encoder has neither labels nor logits: the terms ``embedding`` and ``similarity`` of ``distill`` stand for
both, and the first token counts whatever the pooling is.

``alpha`` = 0.7, ``temperature`` = 10 and ``beta`` = 100 are the published values. The squares of two unit vectors'
differences sum up to at most 4, so their mean over d features is at most 4 / d, and ``beta`` times it at most 0.52 for
the published teacher's 768. That is what makes 100 sensible; beside a teacher of half the width it is twice as strong.
Where the widths differ, a learned linear map per pair brings s to the teacher's width, so d is always the teacher's;
the maps are dropped after training. With ``alpha`` = 1 no labels are needed.

``layers`` pairs passes and teacher layers, both counted from 0. "even": each pass beside the teacher's layer at the
same relative depth, for models of any depth. "published": the pairs of the paper, for a teacher of 12 layers and a
student of 1, 2, 3 or 6, which either run once, or again as published (all of 1, 2 or 3; the upper three of 6). The two
agree except for the repeated six: published are two of its eight pairs, (2, 3) and (5, 7). Or a list: one teacher layer
per pass except the last, ``[3, 7]``, or pairs of a pass and a teacher layer, ``[[2, 3], [5, 7]]``.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.models.families import n_passes, pattern
from compressor.refused import Refused
from compressor.scoring.contract import Weights
from compressor.scoring.losses import unit_mse
from compressor.training import objective as base
from compressor.training.contract import Context, Depths, MethodOptions, Wants, check_choice, check_shares, model_inputs
from compressor.training.imitation import Imitation, without_dropout
from compressor.training.projection import Projection, brought

NAME = "patient"
PUBLISHED_TEACHER = 12
# By stored layers and passes: pass of the student -> layer of the teacher (the paper's code).
PUBLISHED: dict[tuple[int, int], dict[int, int]] = {
    (1, 1): {},
    (2, 2): {0: 5},
    (3, 3): {0: 3, 1: 7},
    (6, 6): {0: 1, 1: 3, 2: 5, 3: 7, 4: 9},
    (1, 2): {0: 5},
    (2, 4): {0: 2, 1: 5, 2: 8},
    (3, 6): {0: 1, 1: 3, 2: 5, 3: 7, 4: 9},
    (6, 9): {2: 3, 5: 7},
}
Pairs = tuple[tuple[int, int], ...]  # (pass of the student, layer of the teacher), both from 0


@dataclass(frozen=True)
class Options(MethodOptions):
    """Knobs of ``patient``."""

    alpha: float = 0.7  # of the soft labels; the labels get the rest
    temperature: float = 10.0
    beta: float = 100.0  # of the first token's states
    layers: str | list[int] | list[list[int]] = "even"  # or "published", teacher layers, [pass, teacher layer] pairs
    embedding: float = 1.0  # of sentence encoders
    similarity: float = 10.0  # of sentence encoders
    dropout: float = 0.0  # while training; published 0.1, but the targets are those of a teacher without it

    def __post_init__(self) -> None:
        check_shares(NAME, alpha=self.alpha, dropout=self.dropout)
        for key in ("beta", "embedding", "similarity"):
            if getattr(self, key) < 0:
                raise Refused(f"recipe: [[stage]] {NAME!r} option {key} = {getattr(self, key):g}, expected 0 or more.")
        if self.temperature <= 0:
            raise Refused(
                f"recipe: [[stage]] {NAME!r} option temperature = {self.temperature:g}, expected more than 0."
            )
        if isinstance(self.layers, str):
            check_choice(NAME, "layers", self.layers, ("even", "published"))
        elif not _are_layers(self.layers) and not _are_pairs(self.layers):
            raise Refused(
                f"recipe: [[stage]] {NAME!r} option layers = {self.layers!r}, expected a word ('even', 'published'), a "
                "list of teacher layers such as [3, 7], or of pairs of a student pass and a teacher layer such as "
                "[[2, 3], [5, 7]], all counted from 0. The default is 'even'."
            )

    def pairs(self, depths: Depths) -> Pairs:
        """Return which pass of the student stands beside which layer of the teacher; none without the term.

        Raises:
            ValueError: if the layers that are asked for do not fit the two depths.
        """
        return pair_layers(self.layers, depths) if self.beta > 0 else ()

    def first_layers(self, depths: Depths) -> tuple[int, ...]:
        """Return the teacher's hidden states of which the first token's is read; 0 is the embedding output."""
        return tuple(layer + 1 for _, layer in self.pairs(depths))

    def wants(self) -> Wants:
        """Return what a stage with this loss wants of the run."""
        return Wants(labels=self.alpha < 1)


class Objective(base.Objective):
    """The student and the projections that training needs."""

    keeps_best = True

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        self.student, self.beta = context.student, options.beta
        without_dropout(self.student, options.dropout)
        config = context.student.config
        width, depth = config.hidden_size, config.num_hidden_layers
        runs = tuple(getattr(config, "passes", ()))
        pairs = options.pairs(Depths(context.teacher_n_layers, depth, n_passes(config), runs))
        self.passes = [run for run, _ in pairs]
        self.places = [context.teacher_first_layers.index(layer + 1) for _, layer in pairs]  # in teacher_first
        self.projections = nn.ModuleList(
            nn.Identity()
            if width == context.teacher_hidden
            else Projection(f"first/{run}-{layer}", width, context.teacher_hidden)
            for run, layer in pairs
        )
        weights = Weights(
            logits=options.alpha,
            labels=1 - options.alpha,
            embedding=options.embedding,
            similarity=options.similarity,
            temperature=options.temperature,
        )
        self.imitation = Imitation(context, weights, width=width, n_layers=depth, layers=())

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Args:
            **batch: the student's view; ``teacher_output`` (batch, classes or width) and ``labels`` (batch,) as of
                ``Imitation.forward``; ``teacher_first`` (batch, cached layers, teacher width).
        """
        output = self.student(**model_inputs(batch), output_hidden_states=bool(self.passes))
        terms: dict[str, Tensor] = self.imitation(output, batch["attention_mask"], None, batch)
        if self.passes:
            term = self.patience(output.hidden_states, batch["teacher_first"])
            terms["patience"] = self.beta * term
        return terms

    def patience(self, hidden_states: tuple[Tensor, ...], teacher_first: Tensor) -> Tensor:
        """Return the squared difference of the unit states, mean over rows, pairs and features.

        Args:
            hidden_states: of the student, the embedding output first: passes + 1 of (batch, tokens, width).
            teacher_first: (batch, cached layers, teacher width).
        """
        states = [hidden_states[run + 1][:, 0] for run in self.passes]
        theirs = teacher_first[:, self.places]  # (batch, pairs, teacher width)
        ours = [
            brought(projection, each, theirs[:, place].to(each.dtype))
            for place, (projection, each) in enumerate(zip(self.projections, states, strict=True))
        ]
        stacked = torch.stack(ours, dim=1)
        exact = torch.promote_types(stacked.dtype, torch.float32)  # autocast's bfloat16 is too coarse to subtract
        return unit_mse(stacked.to(exact), theirs.to(exact))


def pair_layers(layers: str | list[int] | list[list[int]], depths: Depths) -> Pairs:
    """Return which pass of the student stands beside which layer of the teacher, as the option ``layers`` says.

    Raises:
        ValueError: if there are not as many of one as of the other, or if a model has no such layer.
    """
    n_pairs = depths.passes - 1
    if layers == "even":
        return tuple((run, _even(run, depths)) for run in range(n_pairs))
    if isinstance(layers, str):
        return _published(depths)
    given: Any = layers
    if _are_layers(given):
        if len(given) != n_pairs:
            raise Refused(
                f"{_option(layers)}: {len(given)} teacher layers, expected {n_pairs}, one for each of the student's "
                f"{depths.passes} passes except the last. Name as many, or give [pass, layer] pairs."
            )
        given = list(enumerate(given))
    for run, layer in given:
        for what, number, limit in (("pass", run, n_pairs), ("teacher layer", layer, depths.teacher)):
            if number >= limit:
                known = f"0 to {limit - 1}" if limit else "none, for the only pass is the last"
                raise Refused(f"{_option(layers)}: {what} {number}, expected {known}. Or use layers = 'even'.")
    return tuple((run, layer) for run, layer in given)


def _published(depths: Depths) -> Pairs:
    found = PUBLISHED.get((depths.stored, depths.passes))
    if found is None or depths.teacher != PUBLISHED_TEACHER:
        raise Refused(
            f"{_option('published')}: a teacher of {depths.teacher} layers and a student of {depths.stored} in "
            f"{depths.passes} passes, expected {PUBLISHED_TEACHER} layers and 1, 2, 3 or 6 in as many passes, in "
            "twice as many (1, 2, 3) or in 9 (6). Use layers = 'even'."
        )
    how = "none" if depths.passes == depths.stored else "top_half" if depths.stored == 6 else "all"
    if depths.pattern and depths.pattern != pattern(how, depths.stored).passes:
        raise Refused(
            f"{_option('published')}: a student whose passes run the layers {' '.join(map(str, depths.pattern))}, "
            f"expected {' '.join(map(str, pattern(how, depths.stored).passes))} (repeat = {how!r}). Use "
            "layers = 'even'."
        )
    return tuple(found.items())


def _even(run: int, depths: Depths) -> int:
    """Return the teacher's layer at the depth of the student's pass ``run``, the nearest one, halves up."""
    done = (2 * (run + 1) * depths.teacher + depths.passes) // (2 * depths.passes)
    return max(done, 1) - 1


def _are_layers(layers: list[Any]) -> bool:
    return bool(layers) and all(type(each) is int and each >= 0 for each in layers)


def _are_pairs(layers: list[Any]) -> bool:
    """Say whether this is a list of pairs, each pass once."""
    is_list = bool(layers) and all(isinstance(each, list) and len(each) == 2 and _are_layers(each) for each in layers)
    return is_list and len({run for run, _ in layers}) == len(layers)


def _option(layers: object) -> str:
    return f"recipe: [[stage]] {NAME!r} option layers = {layers!r}"

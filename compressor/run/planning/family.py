"""Which family of student a budget buys, where the user names none: a rule that was fitted on runs of this work.

For every family the shape that fits best is found by its own rule (``sizing``, ``small_sizing``); then the families are
compared by how many points they are expected to lose against their teacher:

    points = at 1 MB + per doubling * log2(predicted bytes / 1 MB)

for as many bytes as packages of the family had at most: more are not expected to help. The line, with a spread, is
fitted on dev scores by ``benchmarks/fit_families.py`` into ``families.json`` beside this file, for each kind of task
that has enough of them. Another family than the transformer must be better by ``CLEARLY``: the lines rest on few sets.
What is not trained is told where it is expected to be better. Of other tasks, of two texts that are read together, and
where the recipe says anything that only a transformer has, the student is a transformer. No torch here.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from compressor.data.table import Table
from compressor.models.teacher import TeacherInfo
from compressor.models.vocabulary import GivenVocabulary
from compressor.recipe.recipe import Recipe
from compressor.recipe.student import OF_TRANSFORMERS, UNTRAINED
from compressor.refused import Refused
from compressor.report import fold_certificates
from compressor.run.planning import sizing, small_sizing
from compressor.run.planning.choice import Choice
from compressor.run.planning.words import words_of
from compressor.student.pretrained import Pretrained
from compressor.training.registry import Stage
from exporters.budget import Budget, OverBudget
from vocab.alphabet import least_size
from vocab.surfaces import Kind

RULE = Path(__file__).with_name("families.json")
SPREADS = 1.28  # standard deviations to either side of which 80 % of a normal distribution lies
MEGABYTE = 1e6
CLEARLY = 2.0  # points: sets differ by as much in which family suits them


class Expected(NamedTuple):
    """What a family is expected to lose against its teacher, in points."""

    points: float
    low: float  # 80 % of the runs lie between
    high: float

    def told(self) -> str:
        """Return ``3.1 points below the teacher (80 %: 1.0 to 5.2)``."""
        return f"{self.points:.1f} points below the teacher (80 %: {self.low:.1f} to {self.high:.1f})"


def expected(kind: str, family: str, n_bytes: int) -> Expected | None:
    """Return what a package of so many bytes is expected to lose; None where nothing was fitted."""
    line = rule().get(kind, {}).get(family)
    if line is None:
        return None
    measured = min(n_bytes, int(line["largest_mb"] * MEGABYTE))
    points = line["at_1mb"] + line["per_doubling"] * math.log2(measured / MEGABYTE)
    return Expected(points, points - SPREADS * line["spread"], points + SPREADS * line["spread"])


@cache
def rule() -> dict[str, dict[str, dict[str, float]]]:
    """Return the fitted lines: kind of task, family, and its numbers."""
    found: dict[str, dict[str, dict[str, float]]] = json.loads(RULE.read_text(encoding="utf-8"))["lines"]
    return found


def is_open(recipe: Recipe, kind: str, stages: tuple[Stage, ...], *, is_pair: bool) -> bool:
    """Return whether the recipe leaves the family to the rule, and the rule knows the task."""
    student = recipe.student
    said = student.given("family", "hidden", "ffn", *OF_TRANSFORMERS) or student.init != "teacher"
    any_family = all(stage.method.objective_class.any_family for stage in stages)
    return not said and any_family and not is_pair and kind in rule()


def choose(
    recipe: Recipe,
    budget: Budget,
    stages: tuple[Stage, ...],
    info: TeacherInfo,
    train: Table,
    positions: int,
    kind: Kind,
    tokenizer: Tokenizer,
    pretrained: Pretrained | None,
    vocabulary: GivenVocabulary | None,
    is_pair: bool,
) -> Choice:
    """Return the student's shape and bits: of the family asked for, or else the one that the rule expects most of.

    Raises:
        OverBudget: if no student fits the budgets.
        ValueError: for a vocabulary that is too small.
    """
    least = least_size(tokenizer, kind) if vocabulary is None else 0
    if recipe.vocab.size and recipe.vocab.size < least:
        raise Refused(
            f"--vocab-size {recipe.vocab.size} is less than the {least:,} tokens that keep every character readable. "
            f"Use at least {least:,}, or 0 to keep the teacher's vocabulary."
        )
    bits = sizing.with_blocks(recipe.quantize, info.answers.block_size)
    vocab_size = recipe.vocab.size if vocabulary is None else vocabulary.size
    words, max_ms = words_of(least, [*train.texts, *(train.pairs or [])]), budget.latency and budget.latency.max_ms
    n_bytes = vocabulary.n_bytes if vocabulary else None
    asked = bits, vocab_size, words, positions, kind, budget.max_bytes, max_ms
    segments = is_pair and info.shape.token_types > 1

    def of_family(family: str) -> Choice:
        if family != "transformer":
            student = recipe.student.model_copy(update={"family": family})
            return small_sizing.choose(info.shape, student, *asked, is_pair=segments, n_tokenizer_bytes=n_bytes)
        given = sizing.repeated(pretrained.shape_for(info, positions), recipe.student) if pretrained else None
        certificates = fold_certificates.predicted_bytes(stages, info.config["model_type"], info.shape)
        more = {"given": given, "n_tokenizer_bytes": n_bytes, "certificates": certificates}
        return sizing.choose(info.shape, recipe.student, *asked, **more)  # type: ignore[arg-type]

    if recipe.student.is_small or not is_open(recipe, info.kind, stages, is_pair=is_pair):
        return of_family(recipe.student.family or "transformer")
    choices, over = {}, None
    for name in (each for each in rule()[info.kind] if each not in UNTRAINED):
        try:
            choices[name] = of_family(name)
        except OverBudget as error:
            over = over or error
    if not choices:
        assert over is not None
        raise over
    return _best(info.kind, choices)


def _best(kind: str, choices: dict[str, Choice]) -> Choice:
    """Return the choice that is expected to lose least, with a reason that says how the others compare."""
    ranked = sorted(_ranked(kind, choices), key=lambda each: (round(each[1].points, 1), each[2].n_bytes))
    usual = next((each for each in ranked if each[0] == "transformer"), ranked[0])
    name, lost, best = usual if usual[1].points - ranked[0][1].points < CLEARLY else ranked[0]
    told = f"family {name}: expected {lost.told()}"
    told += "".join(f", {other} {found.points:.1f}" for other, found, _ in ranked if other != name)
    for other in UNTRAINED:
        without = expected(kind, other, best.n_bytes)
        if without is not None and without.points < lost.points:
            told += f"; without training {other} {without.points:.1f} (--family {other})"
    return replace(best, reasons=(told, *best.reasons))


def _ranked(kind: str, choices: dict[str, Choice]) -> Iterator[tuple[str, Expected, Choice]]:
    for name, choice in choices.items():
        found = expected(kind, name, choice.n_bytes)
        assert found is not None
        yield name, found, choice

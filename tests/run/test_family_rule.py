"""Which family a budget buys: the fitted lines, what they choose, and where nothing is left to choose."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fit_families import LEAST_SPREAD, fitted
from compressor.recipe import recipe as recipes
from compressor.run.planning import family
from compressor.run.planning.plan import plan
from exporters.budget import OverBudget
from exporters.small.shape import SMALL, SmallShape
from tests.support.runs import pair_rows, write_table
from tests.support.tiny import TinyRows


def line(at_1mb: float, per_doubling: float = 0.0, spread: float = 1.0) -> dict[str, float]:
    return {"at_1mb": at_1mb, "per_doubling": per_doubling, "spread": spread, "largest_mb": 7.0}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found = {"classification": {"transformer": line(6.0, -2.0), "recurrent": line(3.0, -0.2), "mean": line(9.0)}}
    monkeypatch.setattr(family, "rule", lambda: found)
    return found


def planned(teacher: Path, rows: TinyRows, max_size: str = "90kB", **more: Any) -> Any:  # a Plan
    content = {"teacher": {"path": str(teacher)}, "data": {"train": str(rows.train), "eval": str(rows.dev)}}
    return plan(recipes.from_dict({**content, "budget": {"max_size": max_size}, **more}))


def test_the_family_that_loses_least_is_taken_and_the_plan_says_so(
    lines: dict[str, Any], tiny_teacher_dir: Path, tiny_rows: TinyRows
) -> None:
    found = planned(tiny_teacher_dir, tiny_rows)
    assert isinstance(found.shape, SmallShape) and found.shape.family == "recurrent"
    lost = family.expected("classification", "recurrent", found.choice.n_bytes)
    assert lost is not None and lost.told() in found.choice.reasons[0]
    assert found.choice.reasons[0].startswith("family recurrent: expected ")
    assert found.resolved.student.family == "recurrent"
    assert plan(found.resolved).shape == found.shape  # a resolved recipe chooses nothing again
    lines["classification"] |= {"transformer": line(3.4), "recurrent": line(3.0)}  # better, and not clearly
    assert not isinstance(planned(tiny_teacher_dir, tiny_rows).shape, SmallShape)


@pytest.mark.parametrize(
    "said",
    [
        {"student": {"layers": 1}},
        {"student": {"hidden": 32}},
        {"student": {"repeat": "all"}},
        {"student": {"init": "random"}},
        {"student": {"family": "transformer"}},
        {"stage": [{"method": "weight_squeezing"}]},
    ],
)
def test_what_only_a_transformer_has_leaves_nothing_to_choose(
    said: dict[str, Any], lines: dict[str, Any], tiny_teacher_dir: Path, tiny_rows: TinyRows
) -> None:
    assert not isinstance(planned(tiny_teacher_dir, tiny_rows, "200kB", **said).shape, SmallShape)


def test_pairs_and_tasks_without_a_line_get_a_transformer(
    lines: dict[str, Any], tiny_teacher_dir: Path, tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    assert not isinstance(planned(tiny_encoder_dir, tiny_rows).shape, SmallShape)
    labelled = [(*pair, index % 2) for index, pair in enumerate(pair_rows(40, 1))]
    pairs = write_table(tmp_path / "pairs.tsv", ["sentence1", "sentence2", "label"], labelled)
    assert not isinstance(planned(tiny_teacher_dir, TinyRows(pairs, pairs)).shape, SmallShape)


def test_a_budget_that_only_a_small_encoder_keeps_buys_one(
    lines: dict[str, Any], tiny_teacher_dir: Path, tiny_rows: TinyRows
) -> None:
    lines["classification"]["transformer"] = line(0.0)
    small = planned(tiny_teacher_dir, tiny_rows, "17kB")
    assert isinstance(small.shape, SmallShape)
    with pytest.raises(OverBudget):
        planned(tiny_teacher_dir, tiny_rows, "5kB")


def test_the_shipped_rule_has_lines_that_make_sense() -> None:
    for kind, found in family.rule().items():
        assert "transformer" in found, kind
        for name, numbers in found.items():
            assert name in ("transformer", "static", "tfidf", *SMALL)
            assert numbers["spread"] >= LEAST_SPREAD and numbers["per_doubling"] <= 0 and numbers["packages"] >= 3
            small, large = (family.expected(kind, name, n_bytes) for n_bytes in (500_000, 4_000_000))
            assert small is not None and large is not None and small.points >= large.points
            assert small.low < small.points < small.high


@given(st.floats(0, 20), st.floats(-3, 0))
def test_a_line_is_found_again(at_1mb: float, slope: float) -> None:
    sizes = [0.5, 1.0, 2.0, 4.0, 7.0]
    points = [(math.log2(size), at_1mb + slope * math.log2(size)) for size in sizes]
    found = fitted(points)
    assert found["at_1mb"] == pytest.approx(at_1mb, abs=0.02)
    assert found["per_doubling"] == pytest.approx(slope, abs=0.02)
    assert found["spread"] == LEAST_SPREAD and found["packages"] == 5 and found["largest_mb"] == 7.0


def test_more_bytes_are_never_expected_to_be_worse() -> None:
    assert fitted([(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)])["per_doubling"] == 0.0

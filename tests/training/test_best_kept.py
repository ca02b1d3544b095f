"""The state with the best score on held-out rows is the one that a stage ends with, also where it was killed."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from compressor.training.callbacks import BEST, HELD_OUT
from compressor.training.objective import Objective
from compressor.training.trainer import Optimisation, train_stage
from tests.support.method_cases import context_of, is_same, make_case, state_of


class Judge:
    """Scores epochs as told, and remembers the states that it saw."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.states = list(scores), list[dict[str, Tensor]]()

    def __call__(self, objective: Objective) -> float:
        assert not objective.training
        self.states.append(state_of(objective))
        return self.scores[len(self.states) - 1]


def train(work: Path, keep: Any, stop_at: int = 0, epochs: float = 4.0) -> tuple[Objective, list[dict[str, Any]]]:
    """Train four epochs of three steps."""
    case = make_case("distill", context_of(), {"dropout": 0.2})

    def progress(step: int, _total: int) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    optimisation = Optimisation(epochs, 1e-2, 8, 0.1, 0.01, seed=7)
    log = train_stage(case.objective, case.rows, case.collate, optimisation, work, None, progress, keep=keep)
    return case.objective, log


@pytest.mark.parametrize(
    ("scores", "best"), [((0.1, 0.5, 0.2, 0.3), 1), ((0.4, 0.4, 0.4, 0.3), 2), ((0.1, 0.2, 0.3, 0.4), 3)]
)
def test_a_stage_ends_as_it_was_after_its_best_epoch(tmp_path: Path, scores: tuple[float, ...], best: int) -> None:
    judge = Judge(*scores)
    objective, log = train(tmp_path, judge)
    assert is_same(state_of(objective), judge.states[best])
    assert [entry[HELD_OUT] for entry in log if HELD_OUT in entry] == list(scores)
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line[HELD_OUT] for line in written if HELD_OUT in line] == list(scores)


def test_a_part_of_an_epoch_is_judged_at_its_end(tmp_path: Path) -> None:
    judge = Judge(0.1, 0.3)
    train(tmp_path, judge, epochs=1.5)
    assert len(judge.states) == 2


@pytest.mark.parametrize("stop_at", [4, 8, 11])
def test_a_killed_stage_ends_with_the_same_best_state(
    tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)
    scores = {3: 0.2, 6: 0.5, 9: 0.4, 12: 0.1}  # by step

    def judged(work: Path, stop: int = 0) -> Objective:
        def keep(objective: Objective) -> float:
            key = float(sum(value.double().abs().sum() for value in state_of(objective).values()))
            return scores[steps.setdefault(round(key, 6), 3 * (len(steps) + 1))]

        return train(work, keep, stop)[0]

    steps: dict[float, int] = {}  # the same state is the same step, in whichever run it is met
    whole = judged(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path / "killed", stop_at)
    assert is_same(state_of(whole), state_of(judged(tmp_path / "killed")))


def test_without_a_judge_nothing_is_kept(tmp_path: Path) -> None:
    train(tmp_path, None)
    assert not (tmp_path / BEST).exists()

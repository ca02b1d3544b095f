"""One training stage: order, checkpoints, resuming bit for bit, learning rates by parameter, two processes."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.batches.encoded import LengthSampler
from compressor.training.callbacks import last_checkpoint
from compressor.training.trainer import Optimisation, StageTrainer, train_stage
from tests.support.method_cases import context_of, is_same, make_case
from tests.support.training import STAGES, train


@pytest.mark.parametrize(
    ("stage", "stop_at"),
    [
        *[("distill", 2), ("distill", 5), ("distill", 8), ("mixed", 5), ("dual", 5), ("dual-mlm", 4)],
        *[("parts", 4), ("parts", 5), ("parts", 9), ("dual-parts", 5)],
    ],
)
def test_resume_is_bit_exact(tmp_path: Path, stage: str, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.training.trainer.SAVE_SECONDS", 0.0)  # a checkpoint after every step
    monkeypatch.setattr("compressor.training.trainer.LOG_EVERY", 4)
    undisturbed = train(tmp_path / "whole", stage)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stage, stop_at)
    assert last_checkpoint(tmp_path / "stopped") is not None
    resumed = train(tmp_path / "stopped", stage)
    assert is_same(undisturbed, resumed)
    logs = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8") for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


def test_a_half_written_checkpoint_is_removed(tmp_path: Path) -> None:
    for name in ("checkpoint-5", "checkpoint-9"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-5" / "complete.json").touch()
    found = last_checkpoint(tmp_path)
    assert found is not None and found.name == "checkpoint-5"
    assert not (tmp_path / "checkpoint-9").exists()


def test_a_loss_that_is_not_finite_stops_with_the_term_and_the_step(tmp_path: Path) -> None:
    case = make_case("distill", context_of())
    with torch.no_grad():
        case.objective.student.classifier.weight.fill_(float("nan"))
    optimisation = Optimisation(1, 1e-3, 8, 0, 0, 0)
    with pytest.raises(FloatingPointError, match=r"not finite at step 0 \(logits nan.*Use a lower --learning-rate"):
        train_stage(case.objective, case.rows, case.collate, optimisation, tmp_path, None, lambda *_: None)


def test_the_sampler_visits_every_row_once_and_groups_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=1001)
    sampler = LengthSampler(lengths, 16, seed=3)
    order = list(sampler)
    assert sorted(order) == list(range(1001))
    assert order == list(LengthSampler(lengths, 16, seed=3))
    sampler.set_epoch(1)
    assert list(sampler) != order
    spread = [np.ptp(lengths[order[i : i + 16]]) for i in range(0, 992, 16)]
    assert np.mean(spread) < 10  # random batches: about 90


def test_a_visit_knows_the_epoch_and_how_much_of_it_is_done() -> None:
    sampler = LengthSampler(np.arange(1, 9), 2, seed=0)
    sampler.set_epoch(2)
    visits: list[Any] = list(sampler)
    assert {visit.epoch for visit in visits} == {2}
    assert [visit.done for visit in visits] == [2 + place / 8 for place in range(8)]


def test_every_epoch_of_a_stage_reaches_the_collator(tmp_path: Path) -> None:
    case = make_case("mixed_vocabulary", context_of(), {"objective": "mlm"})
    seen = defaultdict(list)

    def collate(indices: Any) -> dict[str, torch.Tensor]:
        for visit in indices:
            seen[visit.epoch].append(int(visit))
        return case.collate(indices)

    optimisation = Optimisation(2.0, 1e-3, 8, 0, 0, 0)
    train_stage(case.objective, case.rows, collate, optimisation, tmp_path, None, lambda *_: None)
    assert set(seen) == {0, 1}
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(len(case.rows.lengths)))
    assert seen[0] != seen[1]


@pytest.mark.parametrize(("stage", "teacher_rate"), [("mixed", 1e-5), ("dual", 1e-5), ("dual", 3e-4), ("dual", 0.0)])
def test_the_teachers_learning_rate_reaches_its_parameters_and_no_others(
    tmp_path: Path, stage: str, teacher_rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.optim.Optimizer] = []
    create = StageTrainer.create_optimizer

    def remember(self: StageTrainer, *args: Any) -> torch.optim.Optimizer:
        made.append(create(self, *args))
        return made[-1]

    monkeypatch.setattr(StageTrainer, "create_optimizer", remember)
    method, options = STAGES[stage]
    case = make_case(method, context_of(), {**options, "teacher_learning_rate": teacher_rate})
    optimisation = Optimisation(1.0, 2e-3, 8, 0, 0.01, 0)
    train_stage(case.objective, case.rows, case.collate, optimisation, tmp_path, None, lambda *_: None)
    names = {id(value): name for name, value in case.objective.named_parameters() if value.requires_grad}
    found = {
        names[id(value)]: (group["initial_lr"], group["weight_decay"])
        for group in made[0].param_groups
        for value in group["params"]
    }
    assert found.keys() == set(names.values())  # each once, and nothing that is frozen
    for name, (rate, decay) in found.items():
        assert rate == (teacher_rate if name.startswith("teacher.") else 2e-3), name
        assert decay == (0.0 if name.endswith("bias") or "LayerNorm" in name or ".norm." in name else 0.01), name
    assert any(name.startswith("teacher.") for name in found) == (teacher_rate > 0)
    assert made[0].param_groups[0]["initial_lr"] == 2e-3  # the rate that the log shows


def train_in_two_processes(tmp_path: Path, stage: str, work_dir: Path, stop_at: int | None = None) -> str:
    """Train under torchrun and return the digest of what was trained, the same in both; empty for a stopped stage."""
    script = tmp_path / "both.py"
    script.write_text(
        "import hashlib, sys, torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import torch.distributed as dist\n"
        "import compressor.training.trainer\n"
        "compressor.training.trainer.SAVE_SECONDS = 0.0\n"
        "from tests.support.training import train\n"
        "state = train(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]) or None)\n"
        "values = torch.cat([value.flatten().float() for value in state.values()])\n"
        "found = [torch.zeros_like(values) for _ in range(2)]\n"
        "dist.all_gather(found, values)\n"
        "assert torch.equal(*found), 'the two processes ended with different weights'\n"
        "assert (dist.get_backend(), dist.get_world_size()) == ('gloo', 2)\n"
        "dist.get_rank() or print('DIGEST', hashlib.sha256(values.numpy().tobytes()).hexdigest())\n"
        "dist.barrier()\n"
        "dist.destroy_process_group()\n",
        encoding="utf-8",
    )
    root = Path(__file__).parents[2]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, str(script), str(root), str(work_dir), stage, str(stop_at or 0)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=root, check=False)
    assert (done.returncode == 0) == (stop_at is None), done.stderr[-2000:]
    return done.stdout.partition("DIGEST")[2].strip()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["distill", "dual-mlm", "parts"])
def test_two_processes_under_torchrun_train_one_model_and_resume_bit_for_bit(tmp_path: Path, stage: str) -> None:
    """The stop is inside the second epoch of three steps."""
    undisturbed = train_in_two_processes(tmp_path, stage, tmp_path / "whole")
    train_in_two_processes(tmp_path, stage, tmp_path / "stopped", stop_at=5)
    assert last_checkpoint(tmp_path / "stopped") is not None
    assert train_in_two_processes(tmp_path, stage, tmp_path / "stopped") == undisturbed != ""

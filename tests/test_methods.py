"""The contract of a training method, for every file in compressor/methods: a new one is tested before it has tests."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

from compressor.batches import Collator, EncodedRows, LengthSampler
from compressor.cache import ShardOutput, TeacherCache
from compressor.objective import Context, build_options, check_method, load_method, method_names, method_summary
from compressor.tasks import task_spec
from compressor.train import Optimisation, last_checkpoint, train_stage
from exporters.pooling import Pooling

N_ROWS, TEACHER_HIDDEN = 40, 24
KINDS = ("classification", "regression", "embedding")


def make_rows() -> EncodedRows:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, size=N_ROWS)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(5, 30, size=starts[-1]).astype(np.int32)
    words = np.concatenate([np.r_[0, np.arange(1, n - 1), -1] for n in lengths]).astype(np.int32)
    return EncodedRows(ids, np.zeros(len(ids), np.int8), words, starts)


def make_cache(rows: EncodedRows, n_outputs: int) -> TeacherCache:
    rng = np.random.default_rng(1)
    counts = rows.lengths - 1  # every word but the last special token has a state
    starts = np.concatenate([[0], np.cumsum(counts)])
    units = np.concatenate([np.arange(n) for n in counts]).astype(np.int32)
    states = rng.normal(size=(len(units), 2, TEACHER_HIDDEN)).astype(np.float16)
    outputs = rng.normal(size=(N_ROWS, n_outputs)).astype(np.float32)
    return TeacherCache([ShardOutput(outputs, states, units, starts)], (1, 2))


def make_context(kind: str, hidden: int = 16) -> Context:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels={"classification": 3, "regression": 1}.get(kind, 2),
    )  # fmt: skip
    student = (
        BertModel(config, add_pooling_layer=False) if kind == "embedding" else BertForSequenceClassification(config)
    )
    spec = task_spec(kind, ("a", "b", "c") if kind == "classification" else (), pair=False)  # type: ignore[arg-type]
    pooling = Pooling("mean", True) if kind == "embedding" else None
    return Context(student, spec, pooling, TEACHER_HIDDEN, (1, 2), 2)


def make_stage(name: str, kind: str, hidden: int = 16) -> tuple[nn.Module, EncodedRows, Collator]:
    method = load_method(name)
    rows = make_rows()
    objective = method.objective_class(make_context(kind, hidden), method.options_class())
    rng = np.random.default_rng(2)
    labels: Any = rng.integers(0, 3, N_ROWS) if kind == "classification" else rng.random(N_ROWS).astype(np.float32)
    n_outputs = {"classification": 3, "regression": 1}.get(kind, TEACHER_HIDDEN)
    cache = make_cache(rows, n_outputs) if method.objective_class.needs_teacher else None
    return objective, rows, Collator(rows, 0, True, labels if kind != "embedding" else None, cache)


def accepted(name: str, kind: str) -> bool:
    return not (name == "finetune" and kind == "embedding")


CASES = [(name, kind) for name in method_names() for kind in KINDS if accepted(name, kind)]


@pytest.mark.parametrize(("name", "kind"), CASES)
class TestEveryMethod:
    def test_terms_are_finite_and_named(self, name: str, kind: str) -> None:
        objective, _, collate = make_stage(name, kind)
        terms = objective(**collate(range(8)))
        assert terms and all(torch.isfinite(value) and value.dim() == 0 for value in terms.values())

    def test_thirty_steps_lower_the_loss_and_reach_every_part_of_the_student(self, name: str, kind: str) -> None:
        objective, _, collate = make_stage(name, kind)
        optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
        batch = collate(range(N_ROWS))
        losses = []
        for _ in range(30):
            loss = torch.stack(list(objective(**batch).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]
        student: Any = objective.student
        silent = [key for key, value in student.named_parameters() if value.grad is None]
        assert not silent

    def test_the_students_width_may_be_the_teachers(self, name: str, kind: str) -> None:
        objective, _, collate = make_stage(name, kind, hidden=TEACHER_HIDDEN)
        assert all(torch.isfinite(value) for value in objective(**collate(range(8))).values())

    def test_options_round_trip_and_refuse_what_they_do_not_know(self, name: str, kind: str) -> None:
        options = build_options(name, {})
        assert build_options(name, dataclasses.asdict(options)) == options
        field = dataclasses.fields(options)[0].name
        with pytest.raises(ValueError, match=rf"has no option '{field}x'. Did you mean '{field}'"):
            build_options(name, {f"{field}x": 1.0})
        with pytest.raises(ValueError, match=rf"option {field} = 'much', expected a"):
            build_options(name, {field: "much"})

    def test_its_file_says_what_it_does(self, name: str, kind: str) -> None:
        assert len(method_summary(name)) > 100


def test_finetune_refuses_a_sentence_encoder() -> None:
    with pytest.raises(ValueError, match=r"expected a task with labels\. Use --method distill"):
        make_stage("finetune", "embedding")


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'destil' is not known. Did you mean 'distill'"):
        check_method("destil")


def test_a_perfect_student_has_no_hidden_loss() -> None:
    objective, _, collate = make_stage("distill", "classification", hidden=TEACHER_HIDDEN)
    batch = collate(range(6))
    objective.eval()
    student: Any = objective.student
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        hidden = student(**inputs, output_hidden_states=True).hidden_states
        for row in range(6):  # one token per word here: the teacher's states are the student's own
            for unit in range(batch["teacher_states"].shape[1]):
                for index, layer in enumerate((1, 2)):
                    batch["teacher_states"][row, unit, index] = hidden[layer][row, unit]
        terms = objective(**batch)
    assert terms["hidden"].item() == pytest.approx(0.0, abs=1e-5)  # float16 states


def train(tmp_path: Path, stop_at: int | None = None, epochs: float = 3.0) -> dict[str, torch.Tensor]:
    objective, rows, collate = make_stage("distill", "classification")

    def progress(step: int, _total: int) -> None:
        if stop_at is not None and step == stop_at:
            raise KeyboardInterrupt

    train_stage(objective, rows, collate, Optimisation(epochs, 1e-3, 8, 0.1, 0.01, seed=7), tmp_path, None, progress)
    return {name: value.clone() for name, value in objective.state_dict().items()}


@pytest.mark.parametrize("stop_at", [3, 5, 8])
def test_resume_is_bit_exact(tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.train.SAVE_SECONDS", 0.0)  # a checkpoint after every step
    monkeypatch.setattr("compressor.train.LOG_EVERY", 4)
    undisturbed = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stop_at=stop_at)
    assert last_checkpoint(tmp_path / "stopped") is not None
    resumed = train(tmp_path / "stopped")
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
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
    objective, rows, collate = make_stage("distill", "classification")
    with torch.no_grad():
        objective.student.classifier.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(FloatingPointError, match=r"not finite at step 0 \(logits nan.*Use a lower --learning-rate"):
        train_stage(objective, rows, collate, Optimisation(1, 1e-3, 8, 0, 0, 0), tmp_path, None, lambda *_: None)


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


@pytest.mark.slow
def test_two_processes_under_torchrun_train_one_model(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(
        "import sys, torch\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "import torch.distributed as dist\n"
        "from tests.test_methods import train\n"
        "state = train(Path(sys.argv[1]))\n"
        "values = torch.cat([value.flatten() for value in state.values()])\n"
        "found = [torch.zeros_like(values) for _ in range(2)]\n"
        "dist.all_gather(found, values)\n"
        "assert torch.equal(*found), 'the two processes ended with different weights'\n"
        "print('EQUAL', dist.get_backend(), dist.get_world_size())\n",
        encoding="utf-8",
    )
    root = Path(__file__).parent.parent
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        str(script),
        str(tmp_path / "w"),
        str(root),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "EQUAL gloo 2" in done.stdout

"""A run that is killed in the middle of its steps ends with the package of a run that was left alone."""

import pytest

from benchmarks.kill_and_resume import STEPS, left_behind, run_experiment, table

FEW = ("check", "teacher", "train-1-distill", "train-1-distill", "verify", "deliver")


@pytest.mark.slow
def test_kills_in_the_steps_that_keep_work_change_no_byte(tmp_path):
    result = run_experiment(tmp_path, FEW, seed=1, n_rows=1000)
    assert [kill["step"] for kill in result["kills"]] == list(FEW)
    # check and deliver are over in milliseconds: a busy machine may kill too late there.
    missed = {kill["step"] for kill in result["kills"] if not kill["is_inside"]}
    assert missed <= {"check", "deliver"}
    assert any("checkpoint-" in kill["found"] for kill in result["kills"]), "no kill left a checkpoint to go on from"
    assert result["differing_files"] == []
    assert result["compared_files"] > 15
    assert left_behind(tmp_path / "killed") == []
    assert table(result)[-1].endswith("all byte-identical")


def test_the_benchmark_kills_in_every_step():
    steps = "check vocab teacher student train-1-distill train-2-finetune export quantize verify package deliver"
    assert set(STEPS) == set(steps.split()) and len(STEPS) >= 10

"""What the page on inherited weights says about a result of the comparison: claims and curves."""

from typing import Any

from benchmarks.tables.inheritance_tables import comparison_table, curve_table


def arm(name: str, mean: float, logs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"name": name, "mean": mean, "spread": 0.01, "scores": [mean], "train_seconds": 9.0, "logs": [logs or []]}


def result(arms: list[dict[str, Any]]) -> dict[str, Any]:
    one = {
        "set": "SST-2",
        "metric": "accuracy",
        "teacher": 0.9,
        "rows": {"train": 100, "eval": 10},
        "setting": {"epochs": 1.0, "batch_size": 8},
        "arms": arms,
    }
    shape = {"layers": 6, "hidden": 96, "ffn": 384}
    facts = {"seeds": 3, "share": 0.25, "processes": 2, "evaluated_on": "dev", "command": "python -m x"}
    return {"sets": [one], "shape": shape, **facts}


NAMES = {"a  scratch": 0.5, "b  logits": 0.6, "c  states": 0.65, "d  sliced": 0.7, "e  WS": 0.72, "f  WD": 0.61}
NAMES |= {"g  WID": 0.4, "h  pretrained": 0.66, "i  GWS": 0.65}


def test_claims_are_the_differences_of_the_means_in_points_and_count_the_sets_they_hold_on() -> None:
    arms = [arm(name, mean) for name, mean in NAMES.items()]
    arms += [arm(f"{name}, equal time", mean - 0.1) for name, mean in NAMES.items() if name[0] in "efgi"]
    shown = comparison_table(result(arms))
    assert "Weight Squeezing at equal steps against labels alone +22.00 (better on 1 of 1); logits +12.00" in shown
    assert "slicing +2.00 (better on 1 of 1)." in shown
    assert "Weight Squeezing at equal time against labels alone +12.00 (better on 1 of 1); logits +2.00" in shown
    assert "Gated Weight Squeezing at equal steps against the same without -1.00 (better on 0 of 1)." in shown


def test_a_set_without_labels_has_no_arm_that_learns_from_them_and_no_part_in_that_claim() -> None:
    arms = [arm(name, mean) for name, mean in NAMES.items()]
    arms += [arm(f"{name}, equal time", mean) for name, mean in NAMES.items() if name[0] in "efgi"]
    both = result(arms)
    both["sets"].append({**both["sets"][0], "set": "STS-B", "metric": "spearman", "arms": arms[1:]})
    shown = comparison_table(both)
    assert "| a  scratch | 50.00 ± 1.00 | 9 |  |  |" in shown
    assert "| b  logits | 60.00 ± 1.00 | 9 | 60.00 ± 1.00 | 9 |" in shown
    assert "against labels alone +22.00 (better on 1 of 1); logits +12.00, +12.00 (better on 2 of 2)" in shown


def test_a_curve_tells_the_seconds_after_which_distillations_last_score_is_reached_over_all_stages() -> None:
    def log(*scores: float) -> list[dict[str, Any]]:
        return [{"step": 10 * (index + 1), "eval_accuracy": score} for index, score in enumerate(scores)]

    plain = arm("b  logits", 0.6, [{"log": [{"step": 5, "loss": 1.0}, *log(0.1, 0.4, 0.6, 0.5)], "seconds": 40.0}])
    fast = arm("e  WS", 0.8, [{"log": log(0.2, 0.5), "seconds": 40.0}, {"log": log(0.6, 0.8), "seconds": 20.0}])
    slow = arm("g  WID", 0.3, [{"log": log(0.2, 0.3), "seconds": 10.0}])
    table = curve_table(result([plain, fast, slow]))
    rows = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in table.splitlines() if "|" in line
    }
    assert rows["b  logits"][-2:] == ["60.00", "30 s"]
    assert rows["e  WS"][-2:] == ["80.00", "50 s"] and rows["e  WS"][3] == "50.00"
    assert rows["g  WID"][-1] == "never"

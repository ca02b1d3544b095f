"""What is advised where a drop is too large: one example of each curve, and where nothing is known."""

from typing import Any

import pytest

from compressor.report.advice import advice, curve_of

RISING = [0.60, 0.70, 0.76, 0.80, 0.83, 0.85]
FLAT = [0.70, 0.80, 0.85, 0.849, 0.85, 0.85]
STEADY_LOSS = [2.0, 1.0, 0.6, 0.55, 0.52, 0.5]
FALLING_LOSS = [2.0, 1.0, 0.6, 0.3, 0.1, 0.05]


def report_of(
    scores: list[float],
    losses: list[float],
    drop: float = 7.0,
    limit: str | None = "3",
    student: float = 0.85,
    **more: Any,
) -> dict[str, Any]:
    """Return a report of a teacher of 0.92 whose student was scored after each epoch of ten steps."""
    log: list[dict[str, float]] = []
    for epoch, loss in enumerate(losses, start=1):
        log += [{"step": 10 * epoch - 5, "loss": 1.1 * loss}, {"step": 10 * epoch, "loss": 0.9 * loss}]
        if epoch <= len(scores):
            log.append({"step": 10 * epoch, "epoch": epoch, "eval_accuracy": scores[epoch - 1], "eval_f1": 0.5})
    return {
        "task": {"metric": "accuracy"},
        "metrics": {"teacher": {"accuracy": 0.92}, "student": {"accuracy": student},
                    "package": {"accuracy": 0.92 - drop / 100}},
        "budget": {"limits": {"size": "7MB"} | ({"drop": limit} if limit else {}), "measured": {"drop": drop}},
        "quantization": {"scheme": "int4"},
        "training": [{"method": "finetune", "log": [{"step": 10, "eval_accuracy": 0.1}]},
                     {"method": "distill", "log": log}],
        "recipe": {},
        **more,
    }  # fmt: skip


def only(found: list[str]) -> str:
    (sentence,) = found
    return sentence


def test_a_score_that_still_rises_wants_more_epochs() -> None:
    sentence = only(advice(report_of(RISING, STEADY_LOSS)))
    assert sentence == (
        "accuracy still rose, by 6.0 points to the last 2 scores: train longer, --effort 4 or 4 times the --epochs"
    )


def test_more_than_the_run_trained_is_advised() -> None:
    assert "--effort 8 or 4 times the --epochs" in only(advice(report_of(RISING, STEADY_LOSS, recipe={"effort": 2.0})))


def test_a_flat_score_over_a_falling_loss_wants_more_rows() -> None:
    sentence = only(advice(report_of(FLAT, FALLING_LOSS)))
    assert sentence == (
        "accuracy no longer rises while the loss on training rows fell by another 83 %: the student learns them by "
        "heart; give more rows with --train"
    )


def test_a_flat_score_over_a_flat_loss_wants_more_bytes() -> None:
    sentence = only(advice(report_of(FLAT, STEADY_LOSS)))
    assert sentence.endswith("the student has learned what its size can hold; allow more bytes than --max-size 7MB")
    unlimited = report_of(FLAT, STEADY_LOSS)
    del unlimited["budget"]["limits"]["size"]
    assert only(advice(unlimited)).endswith("allow more bytes, or a larger student")


def test_a_float_student_that_would_have_done_wants_more_bits() -> None:
    sentence = only(advice(report_of(FLAT, FALLING_LOSS, student=0.91)))
    assert sentence == (
        "quantising costs 6.0 points, more than the 4.0 that are missing: give more bits, --quantize int8"
    )
    with_int8 = report_of(FLAT, FALLING_LOSS, student=0.91, quantization={"scheme": "int8"})
    assert only(advice(with_int8)).endswith("--quantize none")
    unquantised = report_of(FLAT, FALLING_LOSS, student=0.91, quantization={"scheme": "none"})
    assert "by heart" in only(advice(unquantised))


def test_bits_and_epochs_may_both_help() -> None:
    bits, epochs = advice(report_of(RISING, STEADY_LOSS, student=0.91))
    assert "--quantize int8" in bits and "train longer" in epochs


def test_a_rise_that_would_not_do_in_many_times_the_epochs_is_flat() -> None:
    slow = [0.50, 0.60, 0.640, 0.641, 0.644, 0.645]  # 0.4 points where 25 are missing
    assert "allow more bytes" in only(advice(report_of(slow, STEADY_LOSS, drop=28.0, student=0.65)))
    assert "train longer" in only(advice(report_of(slow, STEADY_LOSS, drop=5.0)))


@pytest.mark.parametrize(("scores", "word"), [([], "never"), ([0.8], "once")])
def test_a_curve_too_short_to_tell_wants_more_epochs(scores: list[float], word: str) -> None:
    assert f"was scored {word} while it was trained" in only(advice(report_of(scores, STEADY_LOSS)))


def test_two_scores_are_a_curve() -> None:
    assert "still rose, by 10.0 points to the last score" in only(advice(report_of([0.7, 0.8], [1.0, 0.9])))
    assert "by heart" in only(advice(report_of([0.8, 0.8], [1.0, 0.2])))


def test_a_drop_that_is_allowed_or_not_asked_for_gets_no_advice() -> None:
    assert advice(report_of(RISING, STEADY_LOSS, drop=3.0)) == []
    assert advice(report_of(RISING, STEADY_LOSS, limit=None)) == []


@pytest.mark.parametrize("block", ["task", "metrics", "budget", "quantization", "training", "recipe"])
def test_a_report_that_lacks_a_block_is_no_error(block: str) -> None:
    report = report_of(FLAT, STEADY_LOSS)
    del report[block]
    assert all(isinstance(sentence, str) for sentence in advice(report))
    assert advice({}) == []


def test_rows_held_out_go_before_evaluation_rows() -> None:
    log: list[dict[str, float]] = [{"step": 1, "eval_f1": 0.1}, {"step": 2, "eval_f1": 0.2}]
    assert curve_of(log, "f1").scores == [0.1, 0.2]
    assert curve_of(log, "accuracy") == ([], [])
    assert curve_of([*log, {"step": 2, "held_out": 0.3}], "f1") == ([2], [0.3])
    assert curve_of([*log, {"step": 2, "held_out": 0.3}, {"step": 2, "held_out_f1": 0.4}], "f1") == ([2], [0.4])


def test_a_log_without_losses_is_read_by_its_scores_alone() -> None:
    report = report_of(FLAT, STEADY_LOSS)
    report["training"][-1]["log"] = [line for line in report["training"][-1]["log"] if "loss" not in line]
    assert "allow more bytes" in only(advice(report))

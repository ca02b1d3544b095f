"""What is said where a baseline wins or rows are too few: which sentence, and that every place says the same."""

import json
from pathlib import Path

import pytest

from compressor.report.report import REPORT_VERSION, html, model_card, write_report
from compressor.report.verdict import BETTER_TEACHER, NO_STUDENT, verdict, verdict_on_teacher
from compressor.run.compress import Outcome

INT8, TFIDF = "teacher as ONNX int8", "TF-IDF + logistic regression"


def said(ours: float, theirs: float, *others: tuple[str, float, int]) -> list[str]:
    baselines = [{"name": name, "metrics": {"f1": value}, "bytes": n_bytes} for name, value, n_bytes in others]
    return verdict("f1", {"teacher": {"f1": theirs}, "package": {"f1": ours}}, baselines, 1000)


@pytest.mark.parametrize(
    ("ours", "theirs", "others", "expected"),
    [
        (0.8, 0.9, [(TFIDF, 0.7, 900), (INT8, 0.9, 9000)], []),
        (0.8, 0.9, [(TFIDF, 0.8, 900)], []),
        (0.8, 0.9, [(TFIDF, 0.85, 1050)], [f"{TFIDF} is better at these bytes: take it, or allow more"]),
        (0.8, 0.9, [(TFIDF, 0.85, 1051)], []),
        (0.8, 0.9, [(INT8, 0.9, 1000)], [f"{INT8} is better at these bytes: take it, or allow more"]),
        (0.8, 0.9, [(TFIDF, 0.91, 9000)], [NO_STUDENT]),
        (0.92, 0.9, [(TFIDF, 0.91, 900)], [BETTER_TEACHER]),
        (0.8, 0.9, [(INT8, 0.91, 9000)], []),
        (0.8, 0.9, [(TFIDF, float("nan"), 900)], []),
    ],
)
def test_the_sentence_names_what_is_better_and_what_to_do(ours, theirs, others, expected):
    assert said(ours, theirs, *others) == expected


def test_a_baseline_without_the_metric_says_nothing():
    baselines = [{"name": TFIDF, "metrics": {"accuracy": 1.0}, "bytes": 1}]
    assert verdict("f1", {"teacher": {"f1": 0.1}, "package": {"f1": 0.1}}, baselines, 1000) == []


def test_a_teacher_is_compared_with_all_terms():
    assert verdict_on_teacher("f1", {"f1": 0.7}, {"f1": 0.71, "accuracy": 0.1}) == [NO_STUDENT]
    assert verdict_on_teacher("f1", {"f1": 0.7}, {"f1": 0.7}) == verdict_on_teacher("f1", {"f1": 0.7}, {}) == []


@pytest.fixture
def report() -> dict:
    scores = {name: {"f1": value} for name, value in (("teacher", 0.8), ("student", 0.7), ("package", 0.7))}
    return {
        "version": REPORT_VERSION, "status": "ok", "student": "2 layers", "metrics": scores,
        "task": {"task": "text-classification", "metric": "f1", "pair": False, "labels": ["a", "b"]},
        "baselines": [{"name": TFIDF, "metrics": {"f1": 0.85}, "bytes": 900, "p50_ms": 0.1, "p95_ms": 0.2}],
        "drop": {"points": 10.0, "low": -0.25, "high": 21.04, "level": 0.95, "rows": 872},
        "advice": ["allow more bytes than --max-size 7MB"], "verdict": [NO_STUDENT],
        "size": {"total": 1000}, "latency": {"p50": 1.0, "p95": 2.0, "threads": 1},
        "vocabulary": {"newly_unknown_words": 0, "identical_words": 1.0, "words": 9, "identical_texts": 1.0},
        "inheritance": [],
    }  # fmt: skip


def test_every_place_says_it(report, tmp_path):
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["verdict"] == [NO_STUDENT]
    assert f"Honestly: {NO_STUDENT}." in html(report)
    assert f"Honestly: {NO_STUDENT}.\n" in model_card(report)
    outcome = Outcome(Path("package"), Path("package.zip"), tmp_path / "report.json", report, [])
    assert f"honestly  {NO_STUDENT}" in outcome.lines()


def test_every_place_says_how_sure_the_drop_is(report, tmp_path):
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["drop"] == report["drop"]
    sentence = "Drop: +10.00 points of f1 below the teacher (95 %: -0.2 to +21.0) on 872 rows."
    assert f"<p>{sentence}</p>" in html(report)
    assert f"\n{sentence}\n" in model_card(report)
    lines = Outcome(Path("package"), Path("package.zip"), tmp_path / "report.json", report, []).lines()
    assert "quality   f1 0.7000, teacher 0.8000: +10.00 points of drop (95 %: -0.2 to +21.0)" in lines


def test_advice_is_the_last_thing_said_of_quality(report, tmp_path):
    report["budget"] = {"limits": {"drop": "1"}, "measured": {"drop": 10.0}, "violations": ["quality: too low"]}
    lines = Outcome(Path("package"), Path("package.zip"), tmp_path / "report.json", report, ["too low"]).lines()
    said = [line.partition(" ")[0] for line in lines]
    assert said[said.index("missed") :] == ["missed", "advice", "report", "try", "verify"]
    assert "advice    allow more bytes than --max-size 7MB" in lines
    assert "<p>Advice: allow more bytes than --max-size 7MB.</p>" in html(report)


def test_reports_from_before_drops_had_intervals_are_still_told(report, tmp_path):
    older = {name: value for name, value in report.items() if name not in ("drop", "advice")}
    lines = Outcome(Path("package"), Path("package.zip"), tmp_path / "report.json", older, []).lines()
    assert "quality   f1 0.7000, teacher 0.8000: +10.00 points of drop" in lines
    assert "Drop:" not in html(older) and "Drop:" not in model_card(older)


def test_too_few_rows_are_told_behind_what_is_better():
    scores = {"teacher": {"f1": 0.9}, "package": {"f1": 0.8}}
    baselines = [{"name": INT8, "metrics": {"f1": 0.9}, "bytes": 1000}]
    drop = {"points": 10.0, "low": 4.0, "high": 16.0, "level": 0.95, "rows": 100}
    better = f"{INT8} is better at these bytes: take it, or allow more"
    few = "the rows are too few to tell: the drop is between 4.00 and 16.00 points (95 %)"
    assert verdict("f1", scores, baselines, 1000, drop) == [better, f"{few}; give more rows with --eval"]
    (within,) = verdict("f1", scores, [], 1000, drop, 9.0)
    assert within == f"{few}, --max-drop 9 lies within; give more rows with --eval"
    assert verdict("f1", scores, [], 1000, drop, 20.0) == verdict("f1", scores, [], 1000, drop, 3.0) == []


def test_a_package_that_holds_says_nothing_of_it(report):
    older = {name: value for name, value in report.items() if name != "verdict"}  # reports written before there was one
    for one in ({**report, "verdict": []}, older):
        assert "Honestly" not in html(one)
        assert "Honestly" not in model_card(one)
    assert model_card({**report, "verdict": []}) == model_card(older), "the card of such a package is what it was"

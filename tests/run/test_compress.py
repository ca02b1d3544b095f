"""Whole runs on tiny teachers: what they leave, that they are done once, and that a seed decides every byte."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from compressor.cli import main
from compressor.recipe import recipe as recipes
from compressor.recipe import sections
from compressor.recipe.recipe import Recipe
from compressor.report.interval import interval
from compressor.report.verdict import verdict
from compressor.run.compress import compress
from edge_demo import runtime
from exporters.budget import OverBudget, parse_size
from tests.support.runs import files_of, make_recipe, pair_rows, write_table
from tests.support.tiny import make_rows


@pytest.fixture(scope="module")
def recipe(tiny_teacher_dir, tiny_rows) -> Recipe:
    return make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev)


@pytest.fixture(scope="module")
def done(recipe, tmp_path_factory):
    """One finished run: its outcome and what it said."""
    said: list[str] = []
    out = tmp_path_factory.mktemp("run") / "out"
    return compress(recipe, out, echo=said.append), said


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return Path(shutil.copytree(done[0].report_path.parent, tmp_path / "out"))


def test_a_run_leaves_a_package_that_opens_and_answers(done):
    outcome, _ = done
    package = runtime.load(outcome.package_dir)
    assert package.predict("a wonderful film").label in ("negative", "positive")
    assert package.n_bytes == outcome.report["size"]["total"] <= 90_000
    assert sum(outcome.report["size"]["measured"].values()) == package.n_bytes
    assert abs(sum(outcome.report["size"]["predicted"].values()) / package.n_bytes - 1) < 0.02
    assert outcome.violations == []
    names = {path.name for path in outcome.report_path.parent.iterdir()}
    assert names == {"package", "package.zip", "recipe.toml", "report.html", "report.json", "run.json", "steps"}


def test_the_report_says_what_was_made_and_how(done):
    report = json.loads(done[0].report_path.read_text(encoding="utf-8"))
    assert report["status"] == "ok" and report["version"] == 1
    assert report["task"]["labels"] == ["negative", "positive"] and report["task"]["metric"] == "accuracy"
    assert set(report["metrics"]) == {"teacher", "student", "package"}
    assert all(0 <= scores["accuracy"] <= 1 for scores in report["metrics"].values())
    assert report["parity"][0]["step"] == "torch to ONNX"
    assert report["budget"]["limits"] == {"size": "90kB"} and report["budget"]["violations"] == []
    assert {"p50", "p95", "p99", "threads", "ep"} <= set(report["latency"])
    (stage,) = report["training"]
    assert stage["method"] == "distill" and any("eval_accuracy" in line for line in stage["log"])
    assert {"model", "teacher", "data_train", "data_eval", "recipe", "code"} == set(report["hashes"])
    assert all(len(digest) == 64 for digest in report["hashes"].values())
    assert set(report["seconds"]) == {
        "check", "teacher", "vocab", "student", "train-1-distill", "export", "quantize", "verify", "package"
    }  # fmt: skip


def test_the_resolved_recipe_leaves_nothing_open_and_reads_back(done):
    out = done[0].report_path.parent
    resolved = recipes.load(out / "recipe.toml")
    assert None not in (resolved.student.layers, resolved.student.hidden, resolved.student.heads, resolved.student.ffn)
    assert resolved.vocab.size and resolved.vocab.kind and resolved.quantize.scheme != "auto"
    assert resolved.stage[0].learning_rate and resolved.stage[0].batch_size and resolved.teacher.max_length


def test_a_second_call_does_nothing_but_the_report(done, recipe, copy):
    before = files_of(copy)
    said: list[str] = []
    outcome = compress(recipe, copy, echo=said.append)
    assert sum(line.endswith(": done before") for line in said) == 9
    changed = {name for name, content in files_of(copy).items() if before.get(name) != content}
    assert changed <= {"report.json", "report.html"}
    assert outcome.report["metrics"] == done[0].report["metrics"]


def test_a_run_reads_the_text_of_its_budget_once_and_shows_it_as_written(recipe, copy, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(sections, "parse_size", lambda text: read.append(text) or parse_size(text))
    said: list[str] = []
    compress(recipe, copy, echo=said.append)
    assert read == ["90kB"]
    assert any(" of 90kB: " in line for line in said)


def test_the_lines_at_the_end_say_what_to_do_next(done):
    text = "\n".join(done[0].lines())
    for word in ("package ", "quality ", "latency ", "python -m edge_demo", "tenmeg verify"):
        assert word in text
    share = 100 * done[0].report["vocabulary"]["identical_words"]
    assert f"words     {share:.1f} % cut as the teacher cuts them, no new unknown" in text


def test_the_report_and_the_card_certify_the_vocabulary(done):
    words = done[0].report["vocabulary"]
    assert words["newly_unknown_words"] == words["student_unknown_rate"] == words["teacher_unknown_rate"] == 0
    assert words["words"] > 60 and 0 < words["identical_words"] <= 1
    assert words["student_size"] <= words["teacher_size"]
    assert all(len(row["student"]) > len(row["teacher"]) for row in words["worst_words"])
    card = (done[0].package_dir / "README.md").read_text(encoding="utf-8")
    assert (
        f"| words | {100 * words['identical_words']:.1f} % cut as the teacher cuts them, none newly unknown |" in card
    )


def test_no_student_fits_and_nothing_is_written(tiny_teacher_dir, tiny_rows, tmp_path):
    small = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, budget={"max_size": "1kB"})
    with pytest.raises(OverBudget, match=r"allowed 1,000 \(--max-size\)"):
        compress(small, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_refused_untouched(recipe, tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match="is not empty and holds no run"):
        compress(recipe, tmp_path)
    assert files_of(tmp_path) == {"thesis.txt": b"years"}


def test_a_run_of_another_recipe_is_refused_untouched_and_replaced_when_told(recipe, copy, tiny_teacher_dir, tiny_rows):
    (copy / "notes.txt").write_text("mine")
    other = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, budget={"max_size": "20kB"})
    before = files_of(copy)
    with pytest.raises(FileExistsError, match="holds a run of another recipe"):
        compress(other, copy)
    with pytest.raises(OverBudget):  # found before anything is removed
        compress(other, copy, overwrite=True)
    assert files_of(copy) == before


def test_the_same_teacher_and_rows_elsewhere_are_the_same_run(done, copy, tiny_teacher_dir, tiny_rows, tmp_path):
    teacher = Path(shutil.copytree(tiny_teacher_dir, tmp_path / "elsewhere" / tiny_teacher_dir.name))
    rows = [Path(shutil.copy(path, tmp_path / "elsewhere" / path.name)) for path in tiny_rows]
    said: list[str] = []
    outcome = compress(make_recipe(teacher, *rows), copy, echo=said.append)
    assert sum(line.endswith(": done before") for line in said) == len(outcome.report["seconds"])
    assert files_of(outcome.package_dir) == files_of(done[0].package_dir)
    other = tmp_path / "other.tsv"
    other.write_text(rows[0].read_text(encoding="utf-8") + "the plot is dull\t0\n", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"holds a run of another recipe\."):
        compress(make_recipe(teacher, other, rows[1]), copy)


@pytest.mark.slow
def test_a_drop_that_is_too_large_rejects_the_package_with_advice(tiny_teacher_dir, tiny_rows, copy, tmp_path):
    shutil.rmtree(copy)
    strict = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, budget={"max_drop": -200})
    outcome = compress(strict, copy)
    assert len(outcome.violations) == 1 and "allowed -200 (--max-drop)" in outcome.violations[0]
    assert outcome.package_dir.name == "package.rejected" and outcome.report["status"] == "not met"
    assert not (copy / "package").exists() and not (copy / "package.zip").exists()
    runtime.load(outcome.package_dir)
    assert json.loads(outcome.report_path.read_text(encoding="utf-8"))["advice"] == outcome.report["advice"] != []
    path = tmp_path / "strict.toml"
    path.write_text(strict.dumps(), encoding="utf-8")
    again = CliRunner().invoke(main, ["run", str(path), "--output", str(copy)])
    assert again.exit_code == 3 and f"advice    {outcome.report['advice'][0]}\n" in again.stdout


def test_the_drop_is_told_with_how_sure_it_is(done):
    report = json.loads(done[0].report_path.read_text(encoding="utf-8"))
    drop, scores = report["drop"], report["metrics"]
    assert drop["points"] == pytest.approx(report["budget"]["measured"]["drop"], abs=1e-6)
    assert drop["points"] == pytest.approx(100 * (scores["teacher"]["accuracy"] - scores["package"]["accuracy"]))
    assert drop["low"] <= drop["points"] <= drop["high"] and drop["rows"] == 60 and drop["level"] == 0.95
    checked = json.loads((done[0].report_path.parent / "steps" / "verify" / "verify.json").read_text(encoding="utf-8"))
    assert checked["drop_interval"] == drop and checked["drop"] == report["budget"]["measured"]["drop"]
    told = f"{drop['points']:+.2f} points of drop{interval(drop)}"
    assert any(line.startswith("quality ") and line.endswith(told) for line in done[0].lines())
    card = (done[0].package_dir / "README.md").read_text(encoding="utf-8")
    sentence = f"Drop: {drop['points']:+.2f} points of accuracy below the teacher{interval(drop)} on 60 rows."
    assert sentence in card and sentence in done[0].report_path.with_suffix(".html").read_text(encoding="utf-8")
    assert report["advice"] == [] and report["verdict"] == verdict("accuracy", scores, [], 0, drop)


@pytest.mark.slow
def test_two_runs_of_one_seed_make_the_same_package(done, recipe, tmp_path):
    again = compress(recipe, tmp_path / "elsewhere" / "deep")
    assert files_of(again.package_dir) == files_of(done[0].package_dir)
    assert again.archive_path.read_bytes() == done[0].archive_path.read_bytes()
    assert again.report["hashes"] == done[0].report["hashes"]


@pytest.mark.slow
def test_runs_share_vocabulary_teacher_and_start_in_a_cache(done, recipe, tmp_path):
    cache, said = tmp_path / "cache", []
    compress(recipe, tmp_path / "one", cache=cache)
    again = compress(recipe, tmp_path / "two", echo=said.append, cache=cache)
    taken = {line.partition(":")[0] for line in said if line.endswith("from the cache")}
    assert taken == {"vocab", "teacher", "student"}
    assert files_of(again.package_dir) == files_of(done[0].package_dir)
    said.clear()
    compress(recipe.model_copy(update={"seed": 1}), tmp_path / "seed", echo=said.append, cache=cache)
    taken = {line.partition(":")[0] for line in said if line.endswith("from the cache")}
    assert taken == {"vocab", "teacher"}  # another seed starts elsewhere


def test_a_cache_that_is_a_file_is_refused_before_anything_is_written(recipe, tmp_path):
    (tmp_path / "cache").write_text("x")
    with pytest.raises(FileExistsError, match=r"--cache .*cache is a file, expected a folder\. Choose another --cache"):
        compress(recipe, tmp_path / "out", cache=tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.slow
def test_another_seed_makes_another_student(done, recipe, tmp_path):
    other = compress(recipe.model_copy(update={"seed": 1}), tmp_path / "out")
    assert other.report["hashes"]["model"] != done[0].report["hashes"]["model"]
    assert other.report["hashes"]["data_train"] == done[0].report["hashes"]["data_train"]


@pytest.mark.slow
def test_the_resolved_recipe_makes_the_same_package(done, tmp_path):
    resolved = recipes.load(done[0].report_path.parent / "recipe.toml")
    again = compress(resolved, tmp_path / "out")
    assert files_of(again.package_dir) == files_of(done[0].package_dir)


@pytest.mark.slow
def test_baselines_stand_beside_the_package(tiny_teacher_dir, tiny_rows, tmp_path):
    outcome = compress(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, baselines=True), tmp_path / "out")
    names = [baseline["name"] for baseline in outcome.report["baselines"]]
    assert len(names) == 2 and names[-1] == "teacher as ONNX int8"
    assert all(0 <= baseline["metrics"]["accuracy"] <= 1 for baseline in outcome.report["baselines"])
    report, card = outcome.report, (outcome.package_dir / "README.md").read_text(encoding="utf-8")
    n_bytes = report["size"]["total"]
    assert report["verdict"] == verdict("accuracy", report["metrics"], report["baselines"], n_bytes, report["drop"])
    assert re.findall(r"^Honestly: (.*)\.$", card, re.MULTILINE) == report["verdict"]


@pytest.mark.slow
def test_stages_follow_one_another(tiny_teacher_dir, tiny_rows, tmp_path):
    stages = [{"method": "distill", "epochs": 1}, {"method": "finetune", "epochs": 1}]
    outcome = compress(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages), tmp_path / "out")
    assert [stage["method"] for stage in outcome.report["training"]] == ["distill", "finetune"]


@pytest.mark.slow
def test_a_pair_task_from_end_to_end(tiny_teacher_dir, tmp_path):
    rows = [(a, b, index % 2) for index, (a, b) in enumerate(pair_rows(200, 3))]
    train = write_table(tmp_path / "train.tsv", ["sentence1", "sentence2", "label"], rows[:150])
    dev = write_table(tmp_path / "dev.tsv", ["sentence1", "sentence2", "label"], rows[150:])
    outcome = compress(make_recipe(tiny_teacher_dir, train, dev, baselines=True), tmp_path / "out")
    assert outcome.report["task"]["pair"] is True
    package = runtime.load(outcome.package_dir)
    assert package.predict("a film", "the film").label in ("negative", "positive")
    with pytest.raises(ValueError, match="takes two texts"):
        package.predict("a film")


@pytest.mark.slow
def test_a_regression_from_end_to_end(tiny_teacher_dir, tmp_path):
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    teacher = tmp_path / "teacher"
    model = BertForSequenceClassification.from_pretrained(
        tiny_teacher_dir, num_labels=1, problem_type="regression", ignore_mismatched_sizes=True
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.classifier.reset_parameters()  # from_pretrained drew the new head without a seed
    model.save_pretrained(teacher)
    AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(teacher)
    rows = [(text, 5 * label + index % 7 / 10) for index, (text, label) in enumerate(make_rows(200, 4))]
    train = write_table(tmp_path / "train.tsv", ["sentence", "score"], rows[:150])
    dev = write_table(tmp_path / "dev.tsv", ["sentence", "score"], rows[150:])
    outcome = compress(make_recipe(teacher, train, dev, baselines=True), tmp_path / "out")
    assert outcome.report["task"]["kind"] == "regression" and outcome.report["task"]["metric"] == "spearman"
    assert isinstance(runtime.load(outcome.package_dir).predict("a wonderful film").value, float)


@pytest.mark.slow
@pytest.mark.parametrize("scored", [True, False])
def test_a_sentence_encoder_from_end_to_end(scored, tiny_encoder_dir, tmp_path):
    if scored:
        rows = [(a, b, index % 6 / 2) for index, (a, b) in enumerate(pair_rows(200, 5))]
        train = write_table(tmp_path / "train.tsv", ["sentence1", "sentence2", "score"], rows[:150])
        dev = write_table(tmp_path / "dev.tsv", ["sentence1", "sentence2", "score"], rows[150:])
    else:
        train, dev = tmp_path / "train.txt", None
        train.write_text("\n".join(text for text, _ in make_rows(200, 6)) + "\n", encoding="utf-8")
    outcome = compress(make_recipe(tiny_encoder_dir, train, dev, baselines=True), tmp_path / "out")
    assert outcome.report["task"]["metric"] == ("spearman" if scored else "similarity_spearman")
    embedding = runtime.load(outcome.package_dir).predict("a wonderful film").embedding
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_holding_out_rows_when_no_evaluation_is_given(tiny_teacher_dir, tiny_rows, tmp_path):
    outcome = compress(make_recipe(tiny_teacher_dir, tiny_rows.train, None), tmp_path / "out")
    assert outcome.report["hashes"]["data_train"] != outcome.report["hashes"]["data_eval"]

"""Counted words under a linear model as a student: sizes, a whole run, other kinds of task, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer

from compressor.batches.outputs import predictor
from compressor.cli import main
from compressor.data.table import Table
from compressor.models.teacher import read_teacher
from compressor.recipe import recipe as recipes
from compressor.recipe.sections import TeacherSection
from compressor.report.verdict import NO_STUDENT, SIMPLE_IS_BETTER, verdict
from compressor.run.compress import compress
from compressor.run.planning import small_sizing
from compressor.run.planning.plan import plan
from compressor.scoring.registry import task_spec
from compressor.student.counted import count_words, round_columns, rounded_idf
from compressor.student.student import load_student
from edge_demo import runtime
from exporters.budget import OverBudget
from exporters.small.shape import TfidfShape
from tests.support.runs import files_of, make_recipe, write_table
from tests.support.tiny import MOODS, TinyRows, make_moods, tiny_config, tiny_tokenizer
from vocab.words import word_bytes, word_statistics, word_tokenizer

BASE = {"teacher": {"path": "t"}, "data": {"train": "f"}}
TFIDF = {"student": {"family": "tfidf"}, "stage": ()}


def table_of(texts: list[str]) -> Table:
    return Table(texts=texts, pairs=None, labels=None, columns={}, sha256="", source="rows")


def many_rows(n_rows: int) -> Table:
    """Rows of random words, few of them frequent."""
    rng = np.random.default_rng(0)
    numbers = (rng.zipf(1.3, size=(n_rows, 8)) % 3000).tolist()
    return table_of([" ".join(f"w{number}" for number in row) for row in numbers])


def chosen(
    max_bytes: int | None, *, columns: int = 1, size: int | None = None, hidden: int | None = None
) -> TfidfShape:
    content = {
        "student": {"family": "tfidf", "hidden": hidden},
        "vocab": {"size": size},
        "budget": {"max_size": str(max_bytes) if max_bytes else None},
    }
    spec = task_spec("classification", [f"label {number}" for number in range(max(2, columns))], pair=False)
    shape = small_sizing.choose_counted(
        recipes.from_dict({**BASE, **content}), spec, many_rows(2000), "right", 64, 64
    ).shape
    assert isinstance(shape, TfidfShape)
    return shape


def test_words_come_before_pairs_and_more_bytes_buy_more_of_both() -> None:
    shapes = [chosen(n_bytes) for n_bytes in (15_000, 25_000, 50_000, 200_000)]
    for name in ("vocab_size", "n_pairs"):
        sizes = [getattr(shape, name) for shape in shapes]
        assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    counted = count_words(many_rows(2000), 64, is_left=False)
    n_words = len(counted.words)
    assert (shapes[-1].vocab_size, shapes[-1].n_pairs) == (n_words + 2, 2 * counted.n_pairs(n_words))
    assert chosen(None) == shapes[-1]  # two megabytes hold it all
    assert shapes[0].vocab_size - 2 <= (counted.n_rows > 1).sum()
    assert chosen(50_000, columns=20).n_pairs < shapes[2].n_pairs
    assert (chosen(None, size=102, hidden=500).vocab_size, chosen(None, size=102, hidden=500).n_pairs) == (102, 500)
    with pytest.raises(OverBudget, match=r"predicted at .* bytes \(tfidf, 20 words, 1 hashed pairs\)"):
        chosen(5_000)


def test_words_are_those_of_most_rows_and_ties_go_by_the_alphabet() -> None:
    counted = count_words(table_of(["The cat, the cat", "a cat sat", "", "a Bat"]), 5, is_left=False)
    assert counted.words == ["a", "cat", ",", "bat", "sat", "the"]
    assert counted.n_rows.tolist() == [2, 2, 1, 1, 1, 1]
    assert counted.n_pairs(6) == 6 and counted.n_pairs(2) == 1  # "the cat" twice; "a cat" alone
    assert count_words(table_of(["a b c"]), 2, is_left=True).words == ["b", "c"]
    with pytest.raises(ValueError, match=r"rows: holds no words, expected texts to count them in\. Use --family mean"):
        count_words(table_of([" ", ""]), 5, is_left=False)


def test_a_tokenizer_of_words_costs_what_was_said() -> None:
    words = ["film", 'é"\\', "日", *(f"w{number}" for number in range(200))]
    sizes = [small_sizing.tokenizer_bytes(word_tokenizer(words[:n])) for n in (0, len(words))]
    assert sizes[1] - sizes[0] == word_bytes(words).sum()


def test_words_are_counted_beside_the_teachers_honestly() -> None:
    teacher = tiny_tokenizer().backend_tokenizer
    found = word_statistics(word_tokenizer(["the", "film"]), teacher, ["The film", "the 日 filmscript"])
    assert (found["words"], found["newly_unknown_words"], found["newly_unknown_texts"]) == (5, 1, 1)
    assert found["identical_words"] == 3 / 5 and found["identical_texts"] == 1 / 2
    assert found["teacher_unknown_rate"] > 0 and found["student_unknown_rate"] == 2 / 5


def test_rounding_keeps_zero_for_what_is_no_feature() -> None:
    idf = rounded_idf(np.array([0, 1, 10, 100]), 100)
    assert idf.tolist() == [0, round(16 * (1 + np.log(101 / 2))), round(16 * (1 + np.log(101 / 11))), 16]
    values, scale = round_columns(np.array([[0.0, 0.0], [-2.0, 0.0], [1.0, 0.0]]))
    assert values[:, 0].tolist() == [0, -127, 64] and not values[:, 1].any() and scale[1] == 1.0


def test_a_whole_run_makes_the_same_package_twice_that_answers_like_its_checkpoint(
    tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    recipe = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, baselines=True, **TFIDF)
    planned = plan(recipe)
    assert planned.held_out is None and len(planned.train) == 300  # there is no epoch to choose
    assert planned.resolved == recipes.parse(planned.resolved.dumps())
    assert plan(planned.resolved).shape == planned.shape
    assert any(line.startswith("student  tfidf, ") and " hashed pairs" in line for line in planned.lines())
    outcome = compress(recipe, tmp_path / "out")
    report = outcome.report
    assert not outcome.violations and report["metrics"]["package"]["accuracy"] > 0.9
    assert report["training"] == [] and not any("take TF-IDF" in sentence for sentence in report["verdict"])
    assert report["size"]["total"] == pytest.approx(sum(report["size"]["predicted"].values()), rel=0.01, abs=800)
    measured = report["size"]["measured"]
    assert measured["embeddings"] == report["size"]["predicted"]["embeddings"]
    step = tmp_path / "out/steps/vocab/tokenizer"
    assert report["size"]["predicted"]["tokenizer"] == (step / "tokenizer.json").stat().st_size
    origin = json.loads((tmp_path / "out/steps/student/model/inherit.json").read_text(encoding="utf-8"))["tensors"]
    assert origin["coefficients"]["how"].startswith("fitted on the rows")
    card = (outcome.package_dir / "README.md").read_text(encoding="utf-8")
    assert "| shape | tfidf, " in card and "A student of" not in card
    package = runtime.load(outcome.package_dir)
    info = read_teacher(TeacherSection(path=str(tiny_teacher_dir)))
    student = load_student(info, tmp_path / "out/steps/student/model")
    tokenizer = Tokenizer.from_file(str(step / "tokenizer.json"))
    texts = ["The film was wonderful.", "a dull DULL plot", "nothing here is known xyzzy", ""]
    logits = predictor(student, tokenizer, planned.max_length, None)(texts, None)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(package.outputs(texts, None) - chances).max() < 1e-5
    again = compress(recipe, tmp_path / "again")
    assert files_of(again.package_dir) == files_of(outcome.package_dir)


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_other_kinds_of_task_are_fitted_too(kind: str, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    tokenizer, names = tiny_tokenizer(), sorted(MOODS)
    several: dict[str, Any] = {"id2label": dict(enumerate(names)), "problem_type": "multi_label_classification"}
    more = several if kind == "multi_label" else {"num_labels": 1, "problem_type": "regression"}
    BertForSequenceClassification(tiny_config(len(tokenizer), **more)).eval().save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    files = []
    for name, n_rows, seed in (("train", 400, 0), ("dev", 80, 1)):
        rows = make_moods(n_rows, seed)
        labels = [("|".join(moods) if kind == "multi_label" else len(moods) / 2) for _, moods in rows]
        table = [(text, label) for (text, _), label in zip(rows, labels, strict=True)]
        files.append(write_table(tmp_path / f"{name}.tsv", ["text", "label"], table))
    data = {"data": {"train": str(files[0]), "eval": str(files[1]), "label_column": "label"}}
    outcome = compress(make_recipe(tmp_path / "teacher", *files, **data, **TFIDF), tmp_path / "out")
    assert not outcome.violations
    package = runtime.load(outcome.package_dir)
    assert package.manifest["kind"] == kind
    metric = outcome.report["task"]["metric"]
    assert outcome.report["metrics"]["package"][metric] > 0.8
    assert outcome.report["verdict"][0] == SIMPLE_IS_BETTER  # its teacher has learned nothing
    if kind == "multi_label":
        held_out = "held out 40 training rows, to choose thresholds on"
        assert held_out in plan(recipes.load(tmp_path / "out/recipe.toml")).lines()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"stage": [{"method": "distill"}]}, r"family='tfidf' is made without training\. Leave out \[\[stage\]\]"),
        ({"effort": 2.0}, r"Leave out --effort"),
        ({"vocab": {"path": "x"}}, r"family='tfidf' chooses the words that it counts, got path of \[vocab\] beside"),
        ({"vocab": {"kind": "bpe"}}, r"got kind of \[vocab\] beside it, expected at most a size"),
        ({"vocab": {"rule": "frequency"}}, r"got rule of \[vocab\]"),
        ({"vocab": {"size": 0}}, r"got size=0 of \[vocab\]"),
        ({"quantize": {"scheme": "int4"}}, r"family='tfidf' stores coefficients of 8 bits, got int4"),
        ({"student": {"family": "tfidf", "embedding": 8}}, r"counts words and has no embedding\. Leave out embedding"),
        ({"student": {"family": "tfidf", "ffn": 8}}, r"counts words and has no ffn"),
        ({"student": {"family": "tfidf", "layers": 2}}, r"is no transformer and has no layers"),
    ],
)
def test_a_recipe_refuses_what_counted_words_have_not(content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipes.from_dict({**BASE, "student": {"family": "tfidf"}, **content})


def test_a_plan_refuses_vectors_pairs_and_rows_without_labels(
    tiny_teacher_dir: Path, tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    pairs = write_table(
        tmp_path / "pairs.tsv", ["sentence1", "sentence2", "label"], [("a b", "c", n % 2) for n in range(40)]
    )
    plain = tmp_path / "plain.txt"
    plain.write_text("a film\nno film\n" * 20, encoding="utf-8")
    for teacher, train, sentence in (
        (tiny_encoder_dir, tiny_rows.train, "answers in classes, labels or scores, and teacher"),
        (tiny_teacher_dir, pairs, "counts the words of one text, and the rows hold two"),
        (tiny_teacher_dir, plain, "label"),
    ):
        files = ["--train", str(train), "--eval", str(train), "--output", str(tmp_path / "out")]
        flags = ["--teacher", str(teacher), *files]
        done = CliRunner().invoke(main, ["compress", *flags, "--family", "tfidf", "--dry-run"])
        assert done.exit_code == 1 and sentence in done.output, done.output


def test_a_verdict_on_counted_words_does_not_send_to_counted_words() -> None:
    scores = {"teacher": {"accuracy": 0.7}, "package": {"accuracy": 0.75}}
    other = [{"name": "TF-IDF + logistic regression", "metrics": {"accuracy": 0.8}, "bytes": 10}]
    assert verdict("accuracy", scores, other, 10) == [NO_STUDENT]
    assert verdict("accuracy", scores, other, 10, is_simple=True) == [SIMPLE_IS_BETTER]
    scores["teacher"]["accuracy"] = 0.9
    assert verdict("accuracy", scores, other, 10, is_simple=True) == []

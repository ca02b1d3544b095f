"""Labels: matched to the teacher's as a whole, collected for a new teacher, refused with their row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.data.labels import check_classes, collect_labels, is_regression, label_ids, label_numbers, number
from compressor.scoring.registry import task_spec

SENTIMENT = {0: "NEGATIVE", 1: "POSITIVE"}
GENERIC = {0: "LABEL_0", 1: "LABEL_1"}
STARS = {0: "1 star", 1: "2 stars", 2: "3 stars", 3: "4 stars", 4: "5 stars"}


@pytest.mark.parametrize(
    ("labels", "known", "expected"),
    [
        (["positive", "Negative "], SENTIMENT, [1, 0]),
        (["0", "1", "1"], SENTIMENT, [0, 1, 1]),
        (["0.0", "1.0"], SENTIMENT, [0, 1]),
        (["neg", "pos"], SENTIMENT, [0, 1]),
        (["true", "False"], SENTIMENT, [1, 0]),
        (["LABEL_1", "label_0"], GENERIC, [1, 0]),
        (["0", "1"], GENERIC, [0, 1]),
        (["LABEL_1", "LABEL_0"], {0: "0", 1: "1"}, [1, 0]),
        (["1", "5"], STARS, [0, 4]),
        (["0", "4"], STARS, [0, 4]),
        (["5 Stars", "1-star"], STARS, [4, 0]),
        (["not_entailment", "Entailment"], {0: "entailment", 1: "not entailment"}, [1, 0]),
        (["-1", "1"], {0: "-1", 1: "0", 2: "1"}, [0, 2]),
        (["1", "0"], {0: "1", 1: "0"}, [0, 1]),
        (["B", "a"], {0: "a", 1: "b"}, [1, 0]),
        (["A", "a"], {0: "a", 1: "A"}, [1, 0]),
        (["-", "+"], {0: "+", 1: "-"}, [1, 0]),
    ],
)
def test_labels_meet_the_teachers(labels: list[str], known: dict[int, str], expected: list[int]) -> None:
    assert label_ids(labels, known, "dev.tsv") == expected


@pytest.mark.parametrize(
    ("labels", "known", "message"),
    [
        (["positive", "neutral"], SENTIMENT, r"dev.tsv: the label 'neutral' of row 2 is unknown .* NEGATIVE, POSITIVE"),
        (["positive", "positve"], SENTIMENT, r"'positve' of row 2.*--label-column"),
        (["0", "2"], SENTIMENT, r"'2' of row 2"),
        (["1", "4"], {0: "World", 1: "Sports", 2: "Business", 3: "Tech"}, r"'4' of row 2"),
        (["pos", "neg"], GENERIC, r"labels carry no names, so the column must hold ids from 0 to 1"),
        (["0", "positive"], SENTIMENT, r"'\w+' of row \d is unknown"),
        (["n", "p"], SENTIMENT, r"'n' of row 1"),
        (["neut", "posi"], {0: "neutral", 1: "neutrals"}, r"row 1"),
        (["-", "entailment"], {0: "entailment", 1: "neutral"}, r"'-' of row 1"),
        (["x" * 500], SENTIMENT, r"'x{60}\.\.\.' of row 1"),
    ],
)
def test_unknown_labels_are_refused_with_their_row(labels: list[str], known: dict[int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_ids(labels, known, "dev.tsv")


def test_a_typing_error_is_answered_with_the_near_label() -> None:
    with pytest.raises(ValueError, match="Did you mean 'translate'"):
        label_ids(["translte"], {0: "translate", 1: "timer"}, "dev.tsv")


def test_the_data_sets_own_names_are_used_only_for_a_teacher_without_names() -> None:
    assert label_ids(["pos", "neg"], GENERIC, "hub", names=["neg", "pos"]) == [1, 0]
    with pytest.raises(ValueError, match="'good' of row 1"):
        label_ids(["good", "bad"], SENTIMENT, "hub", names=["good", "bad"])


def test_collected_labels_are_sorted_by_value_or_name() -> None:
    assert collect_labels(["10", "9", "2", "9"]) == ("2", "9", "10")
    assert collect_labels(["1.0", "0.0"]) == ("0", "1")
    assert collect_labels(["b", "a", "b"]) == ("a", "b")


@given(st.lists(st.sampled_from(["a", "b", "c c", "é"]), min_size=2, max_size=20).filter(lambda x: len(set(x)) > 1))
def test_collected_labels_match_themselves(labels: list[str]) -> None:
    names = collect_labels(labels)
    assert [names[index] for index in label_ids(labels, dict(enumerate(names)), "x")] == labels


@given(st.lists(st.integers(-5, 200), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1))
def test_collected_integers_match_themselves_in_any_spelling(values: list[int]) -> None:
    names = collect_labels([str(value) for value in values[:20]] * 3 if len(set(values[:20])) > 1 else ["0", "1"])
    known = dict(enumerate(names))
    for spelling in (str, lambda value: f"{value}.0"):
        spelled = [spelling(int(name)) for name in names]
        assert label_ids(spelled, known, "x") == list(range(len(names)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1", "1"], "train.tsv: only one class, '1'; at least two classes are needed.*--train"),
        ([], "no labelled row"),
        (["0.5", "0.25"], "are real numbers .for example 0.5., not classes"),
        ([f"text {i}" for i in range(50)], "50 different labels in 50 rows are not classes.*--label-column"),
    ],
)
def test_columns_without_classes_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collect_labels(labels, "train.tsv")


def test_two_classes_pass_the_check() -> None:
    check_classes(["a", "b"])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["5.000", "3.800"], True),
        (["0", "1", "1"], False),
        (["0.0", "1.0"], False),
        (["0", "0.5", "1"], True),
        ([str(i) for i in range(150)] * 2, False),
        ([str(i) for i in range(1000)], True),
        (["yes", "0.5"], False),
        ([3.8, 1.0], True),
        ([], False),
        (["nan", "0.5"], False),
    ],
)
def test_a_quantity_is_told_from_classes(labels: list[str], expected: bool) -> None:
    assert is_regression(labels) is expected


def test_numbers_are_plain_and_finite() -> None:
    assert [number(text) for text in (" 5.000 ", "-1", ".5", "1e3", "2.")] == [5.0, -1.0, 0.5, 1000.0, 2.0]
    assert [number(text) for text in ("", "nan", "inf", "1_0", "1e999", "١", "5 stars")] == [None] * 7


def test_a_label_that_is_no_number_is_refused_with_its_row() -> None:
    assert label_numbers(["1", "2.5"], "dev.tsv") == [1.0, 2.5]
    with pytest.raises(ValueError, match=r"dev.tsv: the label 'n/a' of row 2 is not a finite number"):
        label_numbers(["1", "n/a"], "dev.tsv")


def test_each_kind_of_task_has_its_metric() -> None:
    assert task_spec("classification", ("a", "b"), pair=False).metric == "accuracy"
    assert task_spec("regression", pair=True).head().task == "text-classification"
    assert task_spec("embedding", pair=True).metric == "spearman"
    assert task_spec("embedding", pair=True, scored=False).metric == "similarity_spearman"
    assert task_spec("embedding", pair=False).metric == "similarity_spearman"

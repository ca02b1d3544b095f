"""The contract of a kind of task, for every file in compressor/tasks: a new one is tested before it has tests."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data.table import Table
from compressor.scoring import registry
from compressor.scoring.contract import TaskSpec, Weights
from compressor.scoring.evaluate import evaluate, score
from compressor.scoring.registry import kind_names, kind_of, load_kind, task_spec
from edge_demo import runtime
from exporters import head
from exporters.head import head_names, load_head
from exporters.measuring.parity import Limits

KINDS = kind_names()
NAMES = ("a", "b", "c")
TEXTS = ["one", "two", "three", "four", "five", "six"]


def labels_of(kind: type[TaskSpec]) -> list:
    """Return labels of six rows as a table of this kind holds them."""
    if kind.several_labels:
        return [("a",), ("b", "c"), (), ("c",), ("a", "b", "c"), ("b",)]
    return ["a", "b", "c", "a", "b", "c"] if kind.has_classes else [0.0, 0.5, 1.0, 2.0, 2.5, 4.0]


def rows(kind: type[TaskSpec]) -> Table:
    pairs = None if kind.needs_labels else [text[::-1] for text in TEXTS]
    return Table(TEXTS, pairs, labels_of(kind), {}, "", "dev.tsv")


def spec_of(kind: type[TaskSpec]) -> TaskSpec:
    return kind.of(NAMES, pair=not kind.needs_labels)


def outputs_of(spec: TaskSpec, n_rows: int, seed: int = 0) -> np.ndarray:
    width = len(spec.labels) or spec.head().n_values or 5
    return np.random.default_rng(seed).normal(size=(n_rows, width)).astype(np.float32)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[TaskSpec]:
    return load_kind(request.param)


def test_a_kind_and_its_head_and_its_answer_have_one_name(kind: type[TaskSpec]) -> None:
    assert set(KINDS) == set(head_names())
    assert kind.kind in KINDS and (kind.head().read_as or kind.kind) in runtime.ANSWERS
    assert kind.head().answer in kind.head().names and kind.head().compared in kind.head().names
    assert kind.head().has_layer == kind.has_head
    assert (kind.head().fewest_labels > 0) == kind.has_classes


def test_a_kind_says_what_it_is_for(kind: type[TaskSpec]) -> None:
    for folder, module in ((registry.KINDS_DIR, kind.kind), (head.HEADS_DIR, kind.kind)):
        assert ast.get_docstring(ast.parse((folder / f"{module}.py").read_text(encoding="utf-8")))


def test_its_usual_metric_is_one_that_it_has_and_others_are_refused(kind: type[TaskSpec]) -> None:
    for metric in (None, *kind.metrics):
        assert kind.of(NAMES, pair=True, metric=metric).metric in kind.metrics
    with pytest.raises(
        ValueError, match=rf"--metric bleu is none of a {kind.kind} task\. Use one of {kind.metrics[0]}"
    ):
        kind.of(NAMES, pair=True, metric="bleu")


def test_each_metric_that_rows_can_be_judged_by_comes_out_as_a_share(kind: type[TaskSpec]) -> None:
    table = rows(kind)
    for metric in kind.metrics:
        spec = kind.of(NAMES, pair=table.pairs is not None, metric=metric)
        n_asked = len(TEXTS) * (1 if kind.reads_pairs else 2)
        teacher = outputs_of(spec, n_asked, 1)
        found = evaluate(lambda texts, _pairs, made=spec: outputs_of(made, len(texts)), table, spec, teacher)
        assert -1 <= found.metrics[metric] <= 1
        assert found.outputs.shape[0] == n_asked


def test_a_perfect_predictor_has_the_best_score(kind: type[TaskSpec]) -> None:
    spec, table = spec_of(kind), rows(kind)
    targets = spec.targets(table)
    assert targets is not None and len(targets) == len(table)
    if kind.has_one_class:
        outputs = np.eye(3)[targets]
    elif kind.several_labels:
        outputs = 20 * np.stack(targets) - 10
    elif kind.has_head:
        outputs = np.asarray(targets)[:, None]
    else:
        angles = np.arccos(np.linspace(-1, 1, len(targets)))  # cosines in the order of the scores
        outputs = np.concatenate(
            [np.tile([1.0, 0.0], (len(targets), 1)), np.stack([np.cos(angles), np.sin(angles)], 1)]
        )
    assert score(outputs, targets, spec)[spec.metric] == pytest.approx(1.0)


def test_broken_outputs_are_refused(kind: type[TaskSpec]) -> None:
    spec, table = spec_of(kind), rows(kind)
    targets = spec.targets(table)
    assert targets is not None
    outputs = outputs_of(spec, len(table) * (1 if kind.reads_pairs else 2))
    outputs[0, 0] = np.nan
    with pytest.raises(ValueError, match="output of row 1 is not finite"):
        score(outputs, targets, spec)


def test_it_agrees_with_itself(kind: type[TaskSpec]) -> None:
    spec = spec_of(kind)
    outputs = outputs_of(spec, 12).astype(np.float64)
    assert all(value == pytest.approx(1.0) for value in spec.agreement(outputs, outputs).values())


def test_the_limits_of_parity_are_those_that_a_comparison_knows(kind: type[TaskSpec]) -> None:
    outputs = outputs_of(spec_of(kind), 12)
    assert Limits("step", **spec_of(kind).limits(outputs)) != Limits("step")
    assert len(spec_of(kind).compared(outputs)) == len(outputs)


def test_an_answer_far_from_another_has_the_larger_margin(kind: type[TaskSpec]) -> None:
    spec = spec_of(kind)
    if not kind.has_classes:
        assert spec.margin([0.3]) == 0.0
        return
    assert spec.margin([0.98, 0.01, 0.01]) > spec.margin([0.5, 0.48, 0.02]) >= 0


def test_imitating_a_teacher_ends_where_it_is(kind: type[TaskSpec]) -> None:
    spec = spec_of(kind)
    theirs = torch.from_numpy(outputs_of(spec, 4, 1))
    weights = Weights(logits=1.0, embedding=1.0, similarity=1.0)
    for start, is_zero in ((theirs, True), (torch.from_numpy(outputs_of(spec, 4, 2)), False)):
        ours = start.clone().requires_grad_()
        terms = spec.imitation_terms(ours, {"teacher_output": theirs}, weights, None)
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        assert ours.grad is not None
        assert (float(total.detach()) == pytest.approx(0.0, abs=1e-5)) == is_zero
        assert (float(ours.grad.abs().max()) < 1e-5) == is_zero


def test_labels_are_learned_by_following_their_loss(kind: type[TaskSpec]) -> None:
    spec, table = spec_of(kind), rows(kind)
    if not kind.needs_labels:
        return
    targets = spec.target_array(table)
    assert targets is not None
    logits = torch.zeros(len(table), spec.head().n_values or 3, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        spec.label_loss(logits, torch.from_numpy(targets)).backward()
        optimizer.step()
    assert score(logits.detach().numpy(), spec.targets(table) or [], spec)[spec.metric] == pytest.approx(1.0)


def test_a_linear_model_learns_rows_that_say_their_label(kind: type[TaskSpec]) -> None:
    spec, table = spec_of(kind), rows(kind)
    if not spec.n_linear():
        assert spec.baseline
        return
    targets = spec.targets(table)
    assert targets is not None
    features = 10 * np.eye(len(table), dtype=np.float32)
    weights, bias = spec.fit_linear(features, targets, 0)
    assert weights.shape[0] == len(table) and len(bias) == weights.shape[1]
    assert score(features @ weights + bias, targets, spec)[spec.metric] > 0.9


def test_what_is_tuned_comes_back_from_the_manifest(kind: type[TaskSpec]) -> None:
    spec, table = spec_of(kind), rows(kind)
    outputs = outputs_of(spec, len(table) * (1 if kind.reads_pairs else 2))
    tuned = spec.tuned(outputs, table)
    assert (tuned != spec) == kind.tunes
    assert spec.restored(json.loads(json.dumps(tuned.manifest()))) == tuned


def test_every_problem_type_of_transformers_has_its_kind() -> None:
    two, one = {"id2label": {"0": "x", "1": "y"}}, {"id2label": {"0": "x"}}
    assert kind_of("text-classification", two).kind == "classification"
    assert kind_of("text-classification", one).kind == "regression"
    assert kind_of("feature-extraction", two).kind == "embedding"
    for config in (one, two):
        several = {**config, "problem_type": "multi_label_classification"}
        assert kind_of("text-classification", several).kind == "multi_label"
    with pytest.raises(ValueError, match="problem_type 'regression' with 2 labels, expected one of single_label_cla"):
        kind_of("text-classification", {**two, "problem_type": "regression"})
    for config in (one, two):
        with pytest.raises(ValueError, match=r"'multi_label_clasification' .* Did you mean 'multi_label_classificatio"):
            kind_of("text-classification", {**config, "problem_type": "multi_label_clasification"})


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="the kind 'poetry' is not known, expected one of classification, embedding"):
        task_spec("poetry", pair=False)
    with pytest.raises(ValueError, match="the kind of task 'poetry' is not known"):
        load_head("poetry")


def test_a_name_that_leaves_the_folder_is_no_kind(tmp_path: Path) -> None:
    for name in ("../cli", "__init__", ""):
        with pytest.raises(ValueError, match="is not known"):
            load_kind(name)


def test_a_spec_keeps_its_kind_when_it_is_changed(kind: type[TaskSpec]) -> None:
    assert type(replace(spec_of(kind), pair=False)) is kind

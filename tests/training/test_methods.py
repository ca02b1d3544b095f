"""The contract of a training method, for every file in compressor/methods: a new one is tested before it has tests."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from compressor.scoring.registry import kind_names
from compressor.training.registry import (
    build_options,
    check_method,
    load_method,
    method_names,
    method_summary,
)
from tests.support.method_cases import (
    N_ROWS,
    TEACHER_HIDDEN,
    Case,
    context_of,
    descend,
    finish,
    is_same,
    make_case,
    options_of,
    state_of,
    tiny_config,
    tiny_model,
)

KINDS = kind_names()
# What else a method can be asked for, beside its defaults on every kind of task.
VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "mixed_vocabulary": [
        ("classification", {"objective": "mlm"}),
        ("embedding", {"objective": "mlm", "start": "principal"}),
    ],
    "dual_training": [
        ("classification", {"projection": "up", "attention": 1.0}),
        ("classification", {"projection": "none", "every": 3}),
        ("classification", {"objective": "mlm", "every": 2}),
        ("embedding", {"objective": "mlm", "projection": "up", "attention": 1.0}),
        ("embedding", {"objective": "mlm", "projection": "none", "hidden": 0.0}),
    ],
    "weight_squeezing": [
        ("classification", {"gated": True, "depth": "mixture", "loss": "dual_training"}),
        ("embedding", {"tied": True, "map_biases": True, "map_layernorm": True, "start": "principal"}),
    ],
    "weight_distillation": [
        ("regression", {"start": "xavier", "layer_start": "xavier", "match": False}),
        ("embedding", {"squash": "identity", "tied_bias": True, "basis": "singular"}),
    ],
}
REFUSED = {("finetune", "embedding"), ("teacher_predictions", "embedding"), ("teacher_predictions", "multi_label")}
DEFAULTS = [(name, kind, {}) for name in method_names() for kind in KINDS if (name, kind) not in REFUSED]
CASES = DEFAULTS + [(name, kind, options) for name, more in VARIANTS.items() for kind, options in more]


def described(case: tuple[str, str, dict[str, Any]]) -> str:
    name, kind, options = case
    return "-".join([name, kind, *(f"{key}={value}" for key, value in options.items())])


@pytest.fixture(scope="module", params=CASES, ids=described)
def trained(request: pytest.FixtureRequest) -> tuple[Case, dict[str, Any], list[float]]:
    """A case after some steps on one batch, the teacher as it was before, and the losses."""
    name, kind, options = request.param
    context = context_of(kind)
    case = make_case(name, context, options)
    assert context.teacher is not None
    before = state_of(context.teacher)
    return case, before, descend(case, 18, rate=1e-2)


def heads_of(case: Case) -> tuple[str, ...]:
    """Return what of a model an objective without the task cannot reach: its head."""
    is_task = getattr(case.options, "objective", "task") == "task"
    return () if is_task else ("classifier", "pooler", "bert.pooler")


def test_terms_are_finite_scalars_with_names(trained: tuple[Case, dict[str, Any], list[float]]) -> None:
    case, _, _ = trained
    terms = case.objective(**case.collate(range(8)))
    assert terms and all(torch.isfinite(value) and value.dim() == 0 for value in terms.values())


def test_steps_lower_the_loss(trained: tuple[Case, dict[str, Any], list[float]]) -> None:
    _, _, losses = trained
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < 0.9 * losses[0]


def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(
    trained: tuple[Case, dict[str, Any], list[float]],
) -> None:
    case, _, _ = trained
    exempt = heads_of(case)
    named = dict(case.objective.named_parameters())
    silent = [
        name
        for name, value in named.items()
        if value.requires_grad and value.grad is None and not inside(name).startswith(exempt or "-")
    ]
    assert not silent
    assert not [name for name, value in named.items() if not value.requires_grad and value.grad is not None]
    # Where all of the student is computed, what it is computed from is trained.
    assert any(name.startswith(("student.", "maps.")) and value.requires_grad for name, value in named.items())


def inside(name: str) -> str:
    """Return a parameter's name inside the model that it belongs to."""
    for model in ("inner.", "student.", "teacher.model."):
        name = name.removeprefix(model)
    return name


def test_the_stage_ends_in_a_plain_finite_student_of_its_own_shape(
    trained: tuple[Case, dict[str, Any], list[float]],
) -> None:
    case, _, _ = trained
    finish(case)
    ours, kind = case.objective.student, case.context.spec.kind
    n_labels = 1 if kind == "embedding" else ours.config.num_labels
    plain = tiny_model(tiny_config("bert", ours.config.vocab_size, 16, 2, n_labels), kind)
    shapes = [{name: each.shape for name, each in state_of(model).items()} for model in (ours, plain)]
    assert shapes[0] == shapes[1]
    assert all(torch.isfinite(each).all() for each in state_of(ours).values())


def test_the_teacher_is_unchanged_unless_it_is_declared_trained(
    trained: tuple[Case, dict[str, Any], list[float]],
) -> None:
    case, before, _ = trained
    assert case.context.teacher is not None
    assert is_same(before, state_of(case.context.teacher)) != case.objective.trains_teacher


@pytest.mark.parametrize("name", [name for name in method_names() if load_method(name).objective_class.trains_teacher])
@pytest.mark.parametrize("objective", ["task", "mlm"])
def test_a_teacher_without_a_learning_rate_stays_bit_for_bit(name: str, objective: str) -> None:
    case = make_case(name, context_of(), {"teacher_learning_rate": 0.0, "objective": objective})
    assert case.context.teacher is not None
    before = state_of(case.context.teacher)
    descend(case, 3)
    assert is_same(before, state_of(case.context.teacher))


@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=map(described, CASES))
def test_the_students_width_may_be_the_teachers(name: str, kind: str, options: dict[str, Any]) -> None:
    case = make_case(name, context_of(kind, hidden=TEACHER_HIDDEN), options)
    terms = case.objective(**case.collate(range(4)))
    assert all(torch.isfinite(value) for value in terms.values())


@pytest.mark.parametrize("name", method_names())
class TestEveryMethod:
    def test_options_round_trip_and_refuse_what_they_do_not_know(self, name: str) -> None:
        options = build_options(name, {})
        assert build_options(name, options_of(options)) == options
        field = dataclasses.fields(options)[0].name
        with pytest.raises(ValueError, match=rf"has no option '{field}x'. Did you mean '{field}'"):
            build_options(name, {f"{field}x": 1.0})

    def test_an_option_of_another_type_is_refused(self, name: str) -> None:
        for field in dataclasses.fields(load_method(name).options_class):
            with pytest.raises(ValueError, match=rf"{name}' option {field.name} = \[\], expected a .*The default is"):
                build_options(name, {field.name: []})

    def test_the_layers_it_reads_come_from_a_cache_that_it_needs(self, name: str) -> None:
        options = build_options(name, {})
        assert options.wants().word_layers == 0 or options.wants().cache

    def test_one_row_is_a_batch(self, name: str) -> None:
        case = make_case(name, context_of())
        assert all(torch.isfinite(value) for value in case.objective(**case.collate([N_ROWS - 1])).values())

    def test_its_file_says_what_it_does(self, name: str) -> None:
        assert len(method_summary(name)) > 100


def test_finetune_refuses_a_sentence_encoder() -> None:
    with pytest.raises(ValueError, match=r"expected a task with labels\. Use --method distill"):
        make_case("finetune", context_of("embedding"))


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'destil' is not known. Did you mean 'distill'"):
        check_method("destil")


def test_a_perfect_student_has_no_hidden_loss() -> None:
    case = make_case("distill", context_of(hidden=TEACHER_HIDDEN))
    batch = case.collate(range(6))
    case.objective.eval()
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        hidden = case.objective.student(**inputs, output_hidden_states=True).hidden_states
        batch["teacher_units"] = torch.arange(int(batch["words"].max()) + 1).expand(6, -1)
        batch["teacher_states"] = torch.zeros(6, batch["teacher_units"].shape[1], 2, TEACHER_HIDDEN)
        for index, layer in enumerate(case.objective.imitation.layers):
            for row in range(6):
                for word in range(batch["teacher_units"].shape[1]):
                    members = hidden[layer][row][batch["words"][row] == word]
                    batch["teacher_states"][row, word, index] = members.mean(0) if len(members) else 0.0
        terms = case.objective(**batch)
    assert terms["hidden"].item() == pytest.approx(0.0, abs=1e-6)

"""Where weights cannot be inherited, and where there is nothing to inherit: refusals, and parts that are new."""

import dataclasses
from typing import Any

import pytest
import torch

from compressor.recipe.recipe import from_dict
from compressor.recipe.sections import StageSection
from compressor.run.planning.refusals import check_stages
from compressor.training.registry import build_options, load_method, resolve
from exporters.shape import Shape
from tests.support.inheriting_cases import inputs_of, shapes_in
from tests.support.method_cases import context_of, descend, make_case

METHODS = ("weight_squeezing", "weight_distillation", "weight_inheritance")
BAD_OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    *((method, {"student_rate": -0.1}, "student_rate = -0.1, expected 0 or more") for method in METHODS),
    *(
        (method, {"loss": "teacher_predictions"}, "ends with a fresh head, expected one that stays")
        for method in METHODS
    ),
    ("weight_squeezing", {"gated": True, "gate": float("nan")}, "gate = nan, expected a finite number"),
    ("weight_squeezing", {"gate": 2.0}, "gate or gate_by without gated = true"),
    ("weight_inheritance", {"compactors_only": True, "source_rate": 1e-4}, "which compactors_only keeps as they are"),
]


@pytest.mark.parametrize(("method", "options", "told"), BAD_OPTIONS)
def test_options_that_make_no_sense_are_refused(method: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build_options(method, options)


@pytest.mark.parametrize("method", METHODS)
def test_tables_of_another_make_than_the_teachers_are_refused_in_the_plan(method: str) -> None:
    teacher = shapes_in(context_of())[0]
    check = load_method(method).objective_class.check_shapes
    check(teacher, teacher, build_options(method, {}))
    for change in ({"token_types": 3}, {"embedding_size": 8}):
        with pytest.raises(ValueError, match=f"--pretrained has {next(iter(change))} .* the teacher"):
            check(teacher, dataclasses.replace(teacher, **change), build_options(method, {}))


def test_other_numbers_of_heads_are_refused_in_the_plan_where_they_cannot_be_reached() -> None:
    teacher = Shape(vocab_size=100, hidden=384, layers=6, heads=12, ffn=1536, positions=64)
    student = dataclasses.replace(teacher, hidden=96, heads=2)
    squeezing, inheritance = (resolve(StageSection(method=f"weight_{name}")) for name in ("squeezing", "inheritance"))
    squeezing.method.objective_class.check_shapes(teacher, student, squeezing.options)
    with pytest.raises(ValueError, match=r"2 heads of 48 and a teacher of 12 heads of 32.* Use --heads 3 or 12"):
        inheritance.method.objective_class.check_shapes(teacher, student, inheritance.options)


def test_a_stage_asks_for_what_its_inner_loss_needs() -> None:
    inner = {"loss": "dual_training", "loss_options": {"objective": "mlm"}}
    stage = resolve(StageSection(method="weight_squeezing", options=inner))
    assert stage.trains_teacher and not resolve(StageSection(method="weight_squeezing")).trains_teacher
    assert stage.wants.mask_token and stage.loss.name == "dual_training"
    kept = from_dict({"teacher": {"path": "t"}, "data": {"train": "x.tsv"}, "vocab": {"size": 0}})
    with pytest.raises(ValueError, match="--vocab-size 0 keeps the teacher's vocabulary"):
        check_stages(kept, [stage])


@pytest.mark.parametrize("method", ["weight_squeezing", "weight_distillation"])
@pytest.mark.parametrize("heads", [1, 4])
def test_parts_of_heads_that_the_teacher_has_not_start_silent_and_learn(method: str, heads: int) -> None:
    context = context_of()
    context.student.config.num_attention_heads = heads
    student = type(context.student)(context.student.config).train()
    context = dataclasses.replace(context, student=student)
    case = make_case(method, context, {"loss": "finetune"})
    objective, layer = case.objective, "bert.encoder.layer.0.attention"
    names = [f"{layer}.{part}.weight" for part in ("self.query", "self.key", "self.value", "output.dense")]
    start = objective.values()
    new = start[names[1]].abs().sum(dim=1) == 0
    assert new.any() and not (start[names[2]][new] == 0).all(dim=1).any()
    assert (start[names[3]][:, new] == 0).all()
    descend(case, 5, rate=1e-2)
    after = objective.values()
    assert all((after[name][new] != 0).any(dim=1).all() for name in names[:3])
    assert (after[names[3]][:, new] != 0).any(dim=0).all()


def test_a_bias_that_is_nothing_but_rounding_does_not_fail_the_certificate() -> None:
    context = context_of()
    with torch.no_grad():
        for name, parameter in context.student.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()  # as transformers draws them
    case = make_case("weight_distillation", context, {})
    descend(case, 1, rate=3e-4)
    assert case.objective.finish([inputs_of(context)])["outputs"]["float64"] < 1e-9

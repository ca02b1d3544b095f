"""Training with a teacher that reads two vocabularies: what the student keeps of it, and what reaches it."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from compressor.training.registry import build_options
from tests.support.method_cases import (
    MODEL_TYPES,
    TEACHER_HIDDEN,
    TEACHER_LAYERS,
    Case,
    context_of,
    descend,
    is_same,
    make_case,
    state_of,
    tiny_config,
    tiny_model,
    tokenizers,
)

METHODS = ("mixed_vocabulary", "dual_training")
PAPER = {"objective": "mlm", "hidden": 0.0}  # 1909.11687: hidden words and projections, no imitation of states


def logits_of(student: Any, batch: dict[str, Tensor]) -> Tensor:
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    with torch.no_grad():
        return student.eval()(**inputs).logits


def total_of(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def student_gradients(case: Case, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    case.objective.zero_grad()
    total_of(terms).backward()
    return {
        name: value.grad.clone() for name, value in case.objective.student.named_parameters() if value.grad is not None
    }


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("options", [{}, {"objective": "mlm"}], ids=["task", "mlm"])
def test_the_saved_student_holds_nothing_of_the_teacher_and_answers_without_it(
    model_type: str, options: dict[str, Any], tmp_path: Path
) -> None:
    context = context_of(model_type=model_type)
    names = set(context.student.state_dict())
    case = make_case("dual_training", context, {**options, "attention": 1.0})
    descend(case, 2)
    batch = case.collate(range(6))
    before = logits_of(case.objective.student, batch)
    case.objective.student.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == names
    for helper in ("teacher", "table", "heads", "projections", "imitation", "anchor"):
        setattr(case.objective, helper, None)
    assert torch.equal(logits_of(case.objective.student, batch), before)
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, attn_implementation="eager")
    assert torch.equal(logits_of(reloaded, batch), before)


def test_no_gradient_of_the_teachers_terms_reaches_the_student() -> None:
    for options in ({"projection": "none"}, {"objective": "mlm", "projection": "none"}):
        case = make_case("dual_training", context_of(), options)
        terms = case.objective(**case.collate(range(8)))
        theirs = {name: value for name, value in terms.items() if name.startswith("teacher_")}
        assert theirs and not student_gradients(case, theirs)


def test_no_gradient_of_the_students_terms_reaches_the_teacher() -> None:
    """Not even of the projection, unless it is let: a free teacher could lower the loss by shrinking."""
    for options, is_reached in (({}, False), ({"teacher_gradient": True}, True)):
        case = make_case("dual_training", context_of(), {**options, "attention": 1.0})
        terms = case.objective(**case.collate(range(8)))
        ours = {name: value for name, value in terms.items() if not name.startswith("teacher_")}
        assert {"logits", "hidden", "attention", "projection"} == set(ours)
        total_of(ours).backward()
        assert any(value.grad is not None for value in case.objective.teacher.parameters()) == is_reached
        assert (case.objective.table.grad is not None) == is_reached


@pytest.mark.parametrize("projection", ["down", "up"])
def test_with_factor_0_the_student_learns_from_its_own_words_alone(projection: str) -> None:
    whole = make_case("dual_training", context_of("embedding"), {**PAPER, "projection": projection, "eps": 0.0})
    batch = whole.collate(range(8))
    ours = student_gradients(whole, whole.objective(**batch))
    student, head = copy.deepcopy(whole.objective.student), copy.deepcopy(whole.objective.heads.student)
    student.zero_grad()
    states = student(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    table = student.get_input_embeddings().weight
    head.loss(states.last_hidden_state, batch["masked_labels"], table).backward()
    alone = {name: value.grad for name, value in student.named_parameters()}
    assert ours.keys() == alone.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, alone[name], rtol=0, atol=1e-6)


def test_the_loss_of_the_paper_is_its_three_terms() -> None:
    case = make_case("dual_training", context_of(), {**PAPER, "eps": 2.0})
    batch = case.collate(range(8))
    terms = case.objective(**batch)
    assert set(terms) == {"mlm", "teacher_mlm", "projection"}
    half = make_case("dual_training", context_of(), {**PAPER, "eps": 1.0}).objective(**batch)
    torch.testing.assert_close(terms["projection"], 2 * half["projection"])
    assert torch.equal(terms["mlm"], half["mlm"]) and torch.equal(terms["teacher_mlm"], half["teacher_mlm"])


@pytest.mark.parametrize("options", [{}, {"objective": "mlm"}], ids=["task", "mlm"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_family_can_be_trained(method: str, model_type: str, options: dict[str, Any]) -> None:
    case = make_case(method, context_of(model_type=model_type), options)
    losses = descend(case, 4, rate=1e-3)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_that_reads_its_own_words_only_says_what_it_said(method: str) -> None:
    case = make_case(method, context_of(), {"mix": 0.0})
    terms = case.objective(**case.collate(range(8)))
    # Cached on processors with fast bfloat16 in that precision; states in float16 anywhere.
    assert terms["teacher_logits"].item() == pytest.approx(0.0, abs=1e-3)
    assert terms["teacher_hidden"].item() == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"objective": "mlm"}, {"start": "principal"}], ids=["task", "mlm", "principal"]
)
def test_only_the_word_embeddings_of_the_student_are_learned_in_the_first_stage(options: dict[str, Any]) -> None:
    case = make_case("mixed_vocabulary", context_of(), options)
    table = case.objective.student.get_input_embeddings().weight
    before, start = state_of(case.objective.student), table.detach().clone()
    descend(case, 3)
    changed = [
        name for name, value in case.objective.student.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert changed == ["bert.embeddings.word_embeddings.weight"]
    assert not torch.equal(start, table)


def test_the_next_stage_starts_from_the_embeddings_that_the_teacher_read_bit_for_bit(tmp_path: Path) -> None:
    case = make_case("mixed_vocabulary", context_of("embedding"))
    descend(case, 3)
    read = case.objective.student.get_input_embeddings().weight.detach().clone()
    case.objective.student.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.float32, add_pooling_layer=False)
    assert torch.equal(loaded.get_input_embeddings().weight, read)
    batch = case.collate(range(4))
    rows = case.objective.teacher.forward(batch, read, case.objective.up).last_hidden_state
    assert torch.equal(rows, case.objective.teacher(batch, loaded.get_input_embeddings().weight, case.objective.up)[0])


@pytest.mark.parametrize("start", ["student", "principal"])
def test_the_first_map_up_is_the_best_there_is_for_the_embeddings(start: str) -> None:
    case = make_case("mixed_vocabulary", context_of(), {"start": start})
    table = case.objective.student.get_input_embeddings().weight.detach()
    from compressor.student.copied import mapped_table

    assert case.context.vocab_map is not None and case.context.teacher is not None
    mapped = mapped_table(case.context.vocab_map, case.context.teacher.get_input_embeddings().weight)
    missing = table.double() @ case.objective.up.detach().double() - mapped.double()
    assert (table.double().T @ missing).abs().max() < 1e-3  # nothing is left that the table could say
    assert missing.norm() < mapped.norm()


def test_a_student_as_wide_as_its_teacher_needs_no_map_up() -> None:
    assert make_case("mixed_vocabulary", context_of(hidden=TEACHER_HIDDEN)).objective.up is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("has_head", [True, False])
def test_a_missing_masked_language_head_is_said(
    method: str, has_head: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = tiny_config("bert", tokenizers()[0].get_vocab_size(), TEACHER_HIDDEN, TEACHER_LAYERS)
    tiny_model(theirs, "mlm" if has_head else "classification").save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        case = make_case(method, context_of(teacher_dir=tmp_path), {"objective": "mlm"})
    said = [record.getMessage() for record in caplog.records if record.name.startswith("compressor")]
    sentence = f"{method}: the teacher has no masked-language head; a fresh one is trained"
    assert said == ([] if has_head else [sentence])
    head = case.objective.head if method == "mixed_vocabulary" else case.objective.heads.teacher
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        if has_head:
            assert torch.equal(head.dense.weight, file.get_tensor("cls.predictions.transform.dense.weight"))


def test_the_teacher_on_disk_is_unchanged(tmp_path: Path) -> None:
    context = context_of(teacher_dir=tmp_path)
    assert context.teacher is not None
    context.teacher.save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    descend(make_case("dual_training", context, {"teacher_learning_rate": 1e-3}), 2)
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_cache_is_unchanged_by_training() -> None:
    case = make_case("dual_training", context_of())
    cache = case.collate.plain.teacher  # type: ignore[attr-defined]
    before = copy.deepcopy(cache)
    descend(case, 2)
    for ours, theirs in zip(cache.shards, before.shards, strict=True):
        assert all((one == other).all() for one, other in zip(ours, theirs, strict=True))


def test_the_norms_of_the_projections_are_observed() -> None:
    case = make_case("dual_training", context_of())
    before = case.objective.observe()
    assert set(before) == {f"norm_{side}_{sizes}" for side in ("left", "right") for sizes in ("24_16", "48_32")}
    descend(case, 2)
    assert case.objective.observe() != before
    assert make_case("dual_training", context_of(), {"projection": "none"}).objective.observe() == {}


def test_a_teacher_that_reads_some_rows_leaves_the_others_their_cached_states() -> None:
    """The student compares with the live teacher on every so-many-th row and with the cache on the others."""
    options = {"projection": "none", "teacher_learning_rate": 0.0, "mix": 0.0}
    some, none = (make_case("dual_training", context_of(), {**options, "every": every}) for every in (4, 1))
    rows = range(8)
    sparse, dense = some.objective(**some.collate(rows)), none.objective(**none.collate(rows))
    assert sparse.keys() == dense.keys()
    assert torch.equal(sparse["logits"], dense["logits"])  # all rows, from the cache
    # Without mixing the live teacher says what is cached, so that it does not matter who reads a row.
    assert sparse["hidden"].item() == pytest.approx(dense["hidden"].item(), rel=0.1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("objective", "nlm", r"option objective = 'nlm', expected one of task, mlm\. Did you mean 'mlm'\?"),
        ("mix", 1.5, r"option mix = 1\.5, expected between 0 and 1\."),
        ("mix_ramp", -0.1, r"option mix_ramp = -0\.1, expected between 0 and 1\."),
        ("masked", 2.0, r"option masked = 2, expected between 0 and 1\."),
    ],
)
def test_a_wrong_value_is_one_sentence(method: str, option: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^recipe: \[\[stage\]\] '{method}' {sentence}$"):
        build_options(method, {option: value})


@pytest.mark.parametrize("method", METHODS)
def test_hidden_words_that_are_none_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"option masked = 0, expected more, for objective = 'mlm' learns from hidden"):
        build_options(method, {"objective": "mlm", "masked": 0.0})
    assert build_options(method, {"masked": 0.0}).objective == "task"


def test_a_wrong_projection_start_or_number_of_rows_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"option projection = 'dwon', expected one of up, down, none\. Did you mean"):
        build_options("dual_training", {"projection": "dwon"})
    with pytest.raises(ValueError, match=r"option every = 0, expected 1 or more\.$"):
        build_options("dual_training", {"every": 0})
    with pytest.raises(ValueError, match=r"option start = 'teacher', expected one of student, principal\."):
        build_options("mixed_vocabulary", {"start": "teacher"})


@pytest.mark.parametrize("method", METHODS)
def test_a_student_with_the_teachers_vocabulary_is_refused(method: str) -> None:
    from dataclasses import replace

    sentence = rf"^method '{method}' got a student with the teacher's own vocabulary.*Give --vocab-size above 0"
    with pytest.raises(ValueError, match=sentence):
        make_case(method, replace(context_of(), vocab_map=None))


def test_equal_seeds_make_equal_objectives() -> None:
    first, second = (make_case("dual_training", context_of(), {"objective": "mlm"}).objective for _ in range(2))
    assert is_same(state_of(first), state_of(second))

"""The fold: a plain student that is the trained network, with a certificate, or none at all."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from compressor.inherit.fold import FOLD_VERSION, TOLERANCES, certify
from compressor.inherit.learned import MapSet
from compressor.student.student import save_student
from compressor.training.contract import FoldError, model_inputs
from tests.support.inheriting_cases import FAMILIES, SMALL, difference, inheriting_context, inputs_of, outputs_of
from tests.support.method_cases import Case, descend, finish, is_same, make_case, state_of, tiny_config, tiny_model

METHODS = ("weight_squeezing", "weight_distillation")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("weight_squeezing", {}),
    ("weight_squeezing", {"tied": True, "map_biases": True, "map_layernorm": True, "start": "principal"}),
    ("weight_squeezing", {"gated": True, "gate": 0.5, "depth": "mixture", "gate_by": "element"}),
    ("weight_squeezing", {"basis": "singular", "start": "orthonormal"}),
    ("weight_distillation", {}),
    ("weight_distillation", {"start": "xavier", "layer_start": "xavier", "match": False, "tied_bias": True}),
]


def trained_case(method: str, options: dict[str, Any], **shape: Any) -> Case:
    case = make_case(method, inheriting_context(**{**SMALL, **shape}), options)
    descend(case, 4)
    return case


def described(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={each}" for key, each in value.items()) or "defaults"
    return str(value)


@pytest.mark.parametrize(
    ("model_type", "method", "options"),
    [("bert", *variant) for variant in VARIANTS]
    + [(other, *VARIANTS[number]) for other in (*FAMILIES[1:], "electra") for number in (1, 4)],
    ids=described,
)
def test_the_folded_student_gives_the_outputs_of_the_trained_network(
    model_type: str, method: str, options: dict[str, Any]
) -> None:
    case = trained_case(method, options, model_type=model_type)
    batch = inputs_of(case.context)
    before = outputs_of(case.objective.student, batch, case.objective.values())
    finish(case)
    assert difference(outputs_of(case.objective.student, batch), before) < 1e-5


@pytest.mark.parametrize("kind", ["regression", "embedding"])
@pytest.mark.parametrize("method", METHODS)
def test_scores_and_sentence_embeddings_fold_too(method: str, kind: str) -> None:
    case = trained_case(method, {}, kind=kind)
    batch = inputs_of(case.context)
    before = outputs_of(case.objective.student, batch, case.objective.values())
    found = finish(case)
    assert difference(outputs_of(case.objective.student, batch), before) < 1e-5
    assert found["outputs"]["float64"] < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_a_folded_student_is_saved_as_a_plain_one_of_the_same_keys_shapes_and_bytes(
    method: str, tmp_path: Path
) -> None:
    """So the reported size counts no map, and no tensor of the teacher is there (invariants 3, 5 and 10)."""
    case = trained_case(method, {})
    finish(case)
    student = case.objective.student
    plain = tiny_model(tiny_config("bert", student.config.vocab_size, SMALL["hidden"], SMALL["layers"]))
    info: Any = type("Info", (), {"pooling": None, "name": "tiny"})
    for name, model in (("ours", student), ("theirs", plain)):
        save_student(model, None, info, tmp_path / name, 48, info.pooling)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert {name: each.shape for name, each in ours.items()} == {name: each.shape for name, each in theirs.items()}
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("ours", "theirs")]
    assert sizes[0] == sizes[1]
    assert sum(each.numel() for each in ours.values()) == sum(each.numel() for each in plain.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())  # the next stage may train it


@pytest.mark.parametrize("method", METHODS)
def test_the_certificate_lists_every_mapped_tensor_and_is_plain_json(method: str) -> None:
    case = trained_case(method, {})
    mapped = {each.slot.name for each in case.objective.maps.maps}
    found = finish(case, n_rows=5)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["tensors"]) == mapped and found["version"] == FOLD_VERSION
    assert found["tolerances"] == dict(TOLERANCES) and found["outputs"]["rows"] == 5
    largest = found["largest"]
    assert found["tensors"][largest["tensor"]] == largest["difference"] <= 1e-4 * largest["scale"]
    assert found["outputs"]["float64"] < 1e-12 * found["outputs"]["scale"]  # rounding alone: the algebra is right


@pytest.mark.parametrize("method", METHODS)
def test_a_fold_changes_neither_what_is_not_mapped_nor_the_maps(method: str) -> None:
    case = trained_case(method, {"tables": "student"})
    mapped = {each.slot.name for each in case.objective.maps.maps}
    before, maps = state_of(case.objective.student), state_of(case.objective.maps)
    finish(case)
    after = state_of(case.objective.student)
    assert 0 < len(mapped) < len(after)
    assert all(torch.equal(after[name], before[name]) == (name not in mapped) for name in after)
    assert is_same(maps, state_of(case.objective.maps))


TAMPERED = "bert.encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_was_folded_wrongly_is_refused_by_name(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = trained_case(method, {})
    honest = MapSet.fold

    def tampered(self: MapSet, own: dict[str, Tensor]) -> dict[str, Tensor]:
        found = honest(self, own)
        return {**found, TAMPERED: found[TAMPERED] + 1e-3}

    monkeypatch.setattr(MapSet, "fold", tampered)
    with pytest.raises(FoldError, match=rf"fold: tensor {TAMPERED} differ by 0.001 .*allowed .*--learning-rate"):
        finish(case)


def certified(change: Any, batches: list[dict[str, Tensor]] | None = None) -> dict[str, Any]:
    """Certify a student that is its own carrier, after ``change`` of what is folded."""
    context = inheriting_context(**SMALL)
    student = context.student.eval()
    live = {name: each.clone() for name, each in student.state_dict().items() if name.endswith("dense.weight")}
    folded = {name: each.double() for name, each in live.items()}
    change(folded)
    return certify(
        carrier=copy.deepcopy(student),
        live=live,
        exact={name: each.double() for name, each in live.items()},
        tensors=live,
        folded=folded,
        student=student,
        batches=batches or [model_inputs(inputs_of(context))],
    )


def test_tensors_that_are_folded_as_they_are_have_no_difference() -> None:
    found = certified(lambda _folded: None)
    assert set(found["tensors"].values()) == {0.0}
    assert found["outputs"]["float64"] == found["outputs"]["stored"] == 0.0


def test_outputs_are_compared_more_sharply_than_tensors() -> None:
    """Five millionths of a tensor pass as its rounding, but not in the outputs, where only float64's rounding does."""
    with pytest.raises(FoldError, match="outputs in float64 differ by"):
        certified(lambda folded: folded[TAMPERED].mul_(1 + 5e-6))


def test_a_tensor_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(FoldError, match="differ by nan"):
        certified(lambda folded: folded[TAMPERED].fill_(float("nan")))


def test_a_fold_that_fails_is_a_wrong_value_for_whoever_shows_errors() -> None:
    assert issubclass(FoldError, ValueError)

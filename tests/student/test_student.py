"""The student starts as a part of its teacher: exact where it is a copy, accounted for everywhere."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from compressor.batches.encoded import EncodedRows
from compressor.models.families import family_of, shape_of
from compressor.models.teacher import TeacherInfo
from compressor.student.activations import Activations, load_activations, measure_activations, save_activations
from compressor.student.copied import NEW, TensorMap
from compressor.student.student import build_student, choose_parts
from vocab.mapping import VocabMap

VOCABULARY, HIDDEN, LAYERS, HEADS, FFN, POSITIONS = 60, 32, 3, 4, 64, 40
NUMBERS = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": FFN, "max_position_embeddings": POSITIONS, "initializer_range": 0.2,
}  # fmt: skip


def make_teacher(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "bert":
        model: PreTrainedModel = BertForSequenceClassification(BertConfig(**NUMBERS, num_labels=3))
    elif kind == "roberta":
        model = RobertaForSequenceClassification(
            RobertaConfig(**NUMBERS, num_labels=3, type_vocab_size=1, pad_token_id=1)
        )
    elif kind == "electra":
        model = ElectraForSequenceClassification(ElectraConfig(**NUMBERS, num_labels=3, embedding_size=16))
    else:
        config = DistilBertConfig(
            vocab_size=VOCABULARY, dim=HIDDEN, n_layers=LAYERS, n_heads=HEADS, hidden_dim=FFN,
            max_position_embeddings=POSITIONS, initializer_range=0.2, num_labels=3,
        )  # fmt: skip
        model = DistilBertForSequenceClassification(config)
    with torch.no_grad():  # fresh biases and gains are 0 and 1: trained ones are not
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def make_info(model: PreTrainedModel) -> TeacherInfo:
    config = model.config.to_dict()
    return TeacherInfo(
        folder=Path(), name="tiny", revision=None, config=config, task="text-classification", kind="classification",
        labels=("a", "b", "c"), pooling=None, max_length=32, shape=shape_of(config, 3), hashes={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def sample() -> EncodedRows:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 20, size=24)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    n_tokens = int(starts[-1])
    ids = rng.integers(5, VOCABULARY, size=n_tokens).astype(np.int32)
    return EncodedRows(ids, np.zeros(n_tokens, np.int8), np.zeros(n_tokens, np.int32), starts)


def outputs(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def measured(teacher: PreTrainedModel, sample: EncodedRows) -> Activations:
    return measure_activations(teacher, family_of(teacher.config.model_type), sample)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
class TestEveryFamily:
    def test_the_same_shape_and_vocabulary_is_the_teacher_itself(self, kind: str, sample: EncodedRows) -> None:
        teacher = make_teacher(kind)
        info = make_info(teacher)
        student, origin = build_student(info, teacher, info.shape, None, measured(teacher, sample), seed=1)
        ids = torch.randint(5, VOCABULARY, (4, 12))
        assert torch.equal(outputs(student, ids), outputs(teacher, ids))
        assert set(origin) == set(student.state_dict())

    def test_a_permuted_vocabulary_changes_nothing_but_the_ids(self, kind: str, sample: EncodedRows) -> None:
        teacher = make_teacher(kind)
        info = make_info(teacher)
        order = np.random.default_rng(3).permutation(VOCABULARY)
        ones = np.ones(VOCABULARY, np.float32)
        mixture = VocabMap(np.arange(VOCABULARY + 1), order, ones, {})
        student, _ = build_student(info, teacher, info.shape, mixture, measured(teacher, sample), seed=1)
        ids = torch.randint(5, VOCABULARY, (4, 12))
        if kind == "roberta":  # positions are counted by the id of the padding token, which must not appear
            ids[ids == int(order[1])] = int(order[2])
        renamed = torch.from_numpy(np.argsort(order))[ids]
        torch.testing.assert_close(outputs(student, renamed), outputs(teacher, ids), atol=1e-6, rtol=0)

    def test_a_smaller_student_has_the_asked_shape_and_an_origin_for_every_tensor(
        self, kind: str, sample: EncodedRows
    ) -> None:
        teacher = make_teacher(kind)
        info = make_info(teacher)
        small = replace(info.shape, hidden=24, heads=3, layers=2, ffn=40, positions=POSITIONS - 8)
        student, origin = build_student(info, teacher, small, None, measured(teacher, sample), seed=1)
        assert shape_of(student.config.to_dict(), 3) == small
        assert set(origin) == set(student.state_dict())
        n_parameters = sum(parameter.numel() for parameter in student.parameters())
        assert n_parameters == small.n_parameters
        assert torch.isfinite(outputs(student, torch.randint(5, VOCABULARY, (2, 9)))).all()

    def test_a_narrower_start_is_nearer_to_the_teacher_than_a_fresh_model(self, kind: str, sample: EncodedRows) -> None:
        teacher = make_teacher(kind)
        info = make_info(teacher)
        slightly = replace(info.shape, ffn=FFN - 8, heads=HEADS, hidden=HIDDEN)
        student, _ = build_student(info, teacher, slightly, None, measured(teacher, sample), seed=1)
        ids = torch.randint(5, VOCABULARY, (16, 12))
        theirs = outputs(teacher, ids)
        fresh = make_teacher(kind).apply(lambda module: getattr(module, "reset_parameters", lambda: None)())
        ours_error = (outputs(student, ids) - theirs).square().mean()
        fresh_error = (outputs(fresh.eval(), ids) - theirs).square().mean()
        assert ours_error < 0.5 * fresh_error

    @pytest.mark.parametrize("init", ["embeddings", "random"])
    def test_a_start_from_less_is_new_where_it_says_so_and_drawn_from_the_seed(
        self, kind: str, init: Literal["embeddings", "random"], sample: EncodedRows
    ) -> None:
        teacher = make_teacher(kind)
        info = make_info(teacher)
        small = replace(info.shape, hidden=24, heads=3, layers=2, ffn=40)
        whole, _ = build_student(info, teacher, small, None, measured(teacher, sample), seed=1)
        student, origin = build_student(info, teacher, small, None, measured(teacher, sample), 1, init)
        again, _ = build_student(info, teacher, small, None, measured(teacher, sample), 1, init)
        other, _ = build_student(info, teacher, small, None, measured(teacher, sample), 2, init)
        states = [model.state_dict() for model in (student, again, other, whole)]
        assert set(origin) == set(states[0])
        is_new = {name for name, line in origin.items() if line == {"how": "new"}}
        kept = set() if init == "random" else {name for name in states[0] if "embeddings." in name}
        assert is_new == set(states[0]) - kept
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name])
            assert name not in kept or torch.equal(value, states[3][name])
        layer = next(name for name in states[0] if name.endswith(("query.weight", "q_lin.weight")))
        assert not torch.equal(states[0][layer], states[2][layer]) and not torch.equal(
            states[0][layer], states[3][layer]
        )


def test_layers_are_spread_over_the_depth(sample: EncodedRows) -> None:
    teacher = make_teacher("bert")
    shape = make_info(teacher).shape
    activations = measure_activations(teacher, family_of("bert"), sample)
    assert choose_parts(shape, replace(shape, layers=2), activations).layers.tolist() == [1, 2]
    assert choose_parts(shape, replace(shape, layers=1), activations).layers.tolist() == [2]


def test_activations_kept_in_a_file_are_those_measured_but_for_the_tokens(tmp_path: Path, sample: EncodedRows) -> None:
    found = measured(make_teacher("bert"), sample)
    save_activations(found, tmp_path / "activations.npz")
    kept = load_activations(tmp_path / "activations.npz")
    assert kept.norm_inputs == {} and len(found.norm_inputs) == 2 * LAYERS + 1
    assert np.array_equal(kept.coordinates, found.coordinates)
    for name in ("inner", "units"):
        ours, theirs = getattr(kept, name), getattr(found, name)
        assert len(ours) == LAYERS and all(np.array_equal(*both) for both in zip(ours, theirs, strict=True))
    for name in ("means", "moments"):
        ours, theirs = getattr(kept, name), getattr(found, name)
        assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in theirs)


def test_a_dead_unit_is_the_first_to_go(sample: EncodedRows) -> None:
    teacher = make_teacher("bert")
    with torch.no_grad():
        teacher.bert.encoder.layer[1].output.dense.weight[:, 7] = 0.0  # type: ignore[union-attr, operator]
    shape = make_info(teacher).shape
    activations = measure_activations(teacher, family_of("bert"), sample)
    kept = choose_parts(shape, replace(shape, ffn=FFN - 1), activations)
    assert 7 not in kept.units[1] and len(kept.units[1]) == FFN - 1


def test_dropping_constant_units_changes_nothing(sample: EncodedRows) -> None:
    """What a dropped unit gives on average goes into the bias: for a constant unit that is all it gives."""
    teacher = make_teacher("bert")
    with torch.no_grad():
        for layer in teacher.bert.encoder.layer:  # type: ignore[union-attr]
            layer.intermediate.dense.weight[:8] = 0.0  # type: ignore[union-attr, index, operator]
            layer.intermediate.dense.bias[:8] = 0.5  # type: ignore[union-attr, index, operator]
            layer.output.dense.weight[:, :8] *= 0.01  # type: ignore[union-attr, index, operator]
    info = make_info(teacher)
    student, _ = build_student(info, teacher, replace(info.shape, ffn=FFN - 8), None, measured(teacher, sample), seed=1)
    ids = torch.randint(5, VOCABULARY, (4, 12))
    torch.testing.assert_close(outputs(student, ids), outputs(teacher, ids), atol=1e-5, rtol=0)


def test_more_width_than_the_teacher_is_refused(sample: EncodedRows) -> None:
    teacher = make_teacher("bert")
    info = make_info(teacher)
    with pytest.raises(ValueError, match=r"hidden=64 is more than the teacher's 32. Use --hidden 32 or less"):
        build_student(info, teacher, replace(info.shape, hidden=64), None, measured(teacher, sample), seed=1)


def test_a_map_folds_rows_columns_and_factors_in_float64() -> None:
    source = {"w": torch.arange(12, dtype=torch.float32).view(4, 3)}
    rows, columns = np.array([3, NEW, 0]), np.array([2, 0])
    initial = torch.full((3, 2), -1.0)
    folded = TensorMap("w", rows=rows, columns=columns, scale=np.array([2.0, 2.0, 2.0])).fold(source, initial)
    assert folded.tolist() == [[22.0, 18.0], [-1.0, -1.0], [4.0, 0.0]]
    assert folded.dtype == torch.float32

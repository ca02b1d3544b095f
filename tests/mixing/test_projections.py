"""Shared projections: every tensor has its pair, the matrices are few, and equal models have no loss at all."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.mixing.projections import Direction, SharedProjections, find_pairs
from compressor.models.families import family_of
from exporters.shape import Shape
from tests.support.method_cases import MODEL_TYPES, TEACHER_HIDDEN, TEACHER_LAYERS, tiny_config, tiny_model

STUDENT_HIDDEN, VOCABULARY = 16, 40
KINDS = ("classification", "regression", "embedding")
DIRECTIONS: tuple[Direction, ...] = ("down", "up")


def tiny_pair(model_type: str, kind: str = "classification", hidden: int = STUDENT_HIDDEN, layers: int = 2) -> Any:
    """Return a student and a teacher, which has more layers, tokens and positions."""
    n_labels = 1 if kind == "regression" else 3
    teacher = tiny_config(model_type, VOCABULARY + 20, TEACHER_HIDDEN, TEACHER_LAYERS, n_labels)
    student = tiny_config(model_type, VOCABULARY, hidden, layers, n_labels, max_position_embeddings=50)
    return tiny_model(student, kind, seed=1), tiny_model(teacher, kind)


def projections_of(model_type: str, student: Any, teacher: Any, direction: Direction) -> SharedProjections:
    torch.manual_seed(2)
    layers = [0, 2][: student.config.num_hidden_layers]
    return SharedProjections(family_of(model_type), student, teacher, layers, direction)


def word_table(student: Any) -> str:
    weight = student.get_input_embeddings().weight
    return next(name for name, value in student.named_parameters() if value is weight)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_tensor_of_the_student_has_a_pair_and_its_projection_the_others_shape(
    model_type: str, kind: str, direction: Direction
) -> None:
    student, teacher = tiny_pair(model_type, kind)
    projections = projections_of(model_type, student, teacher, direction)
    ours, theirs = (dict(model.named_parameters()) for model in (student, teacher))
    assert [pair.student for pair in projections.pairs] == list(ours)
    for pair in projections.pairs:
        source, target = ours[pair.student], theirs[pair.teacher]
        if direction == "down":
            source, target = target, source
        projected, wanted = projections.project(source, pair).shape, list(target.shape)
        if not pair.left:  # tokens, positions, segments and classes are left alone
            wanted[0] = source.shape[0]
        assert list(projected) == wanted, pair
    is_layer = [pair for pair in projections.pairs if ".layer." in pair.student]
    assert {pair.teacher.partition(".layer.")[2].partition(".")[0] for pair in is_layer} == {"0", "2"}
    roles = [(pair.student.split(".layer.")[1][2:], pair.teacher.split(".layer.")[1][2:]) for pair in is_layer]
    assert all(mine == other for mine, other in roles)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_there_is_one_matrix_per_pair_of_sizes_and_side_however_many_layers(
    model_type: str, direction: Direction, layers: int
) -> None:
    student, teacher = tiny_pair(model_type, layers=layers)
    sizes = {f"{side}_{TEACHER_HIDDEN * n}_{STUDENT_HIDDEN * n}" for side in ("left", "right") for n in (1, 2)}
    if model_type == "electra":
        sizes |= {"left_12_12", "right_12_12"}  # the width of its tables
    matrices = projections_of(model_type, student, teacher, direction).matrices
    assert set(matrices) == sizes
    for name, matrix in matrices.items():
        side, *numbers = name.split("_")
        n_theirs, n_ours = map(int, numbers)
        assert matrix.shape == ((n_ours, n_theirs) if (side == "left") == (direction == "down") else (n_theirs, n_ours))


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_equal_models_have_no_loss_and_no_gradient_at_all(
    model_type: str, direction: Direction, precision: torch.dtype
) -> None:
    config = tiny_config(model_type, VOCABULARY, TEACHER_HIDDEN, TEACHER_LAYERS)
    student, teacher = (tiny_model(config).to(precision) for _ in range(2))  # of one seed
    projections = SharedProjections(family_of(model_type), student, teacher, [0, 1, 2], direction).to(precision)
    ours, theirs = (dict(model.named_parameters()) for model in (student, teacher))
    tables = (word_table(student), teacher.get_input_embeddings().weight)
    loss = projections(ours, theirs, tables, is_teacher_trained=True)
    assert loss.dtype == precision and loss.item() == 0.0
    loss.backward()
    for model in (student, teacher, projections):
        assert all(value.grad is not None and not value.grad.any() for value in model.parameters())


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_loss_is_the_formula(direction: Direction) -> None:
    student, teacher = tiny_pair("bert")
    projections = projections_of("bert", student, teacher, direction)
    ours, theirs = (dict(model.named_parameters()) for model in (student, teacher))
    name, table = word_table(student), torch.randn(VOCABULARY, TEACHER_HIDDEN)
    losses = []
    for pair in projections.pairs:
        theta_s = ours[pair.student].double()
        theta_t = (table if pair.student == name else theirs[pair.teacher]).double()
        if "position_embeddings" in pair.student:
            theta_t = theta_t[:50]
        source, target = (theta_t, theta_s) if direction == "down" else (theta_s, theta_t)
        left = projections.matrices[pair.left].double() if pair.left else torch.eye(len(source), dtype=torch.double)
        value = left @ source
        if pair.right:
            value = value @ projections.matrices[pair.right].double()
        losses.append((value - target).square().mean())
    loss = projections(ours, theirs, (name, table), is_teacher_trained=False)
    torch.testing.assert_close(loss.double(), torch.stack(losses).mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("is_teacher_trained", [True, False])
def test_the_gradient_reaches_the_teacher_only_when_it_is_let(is_teacher_trained: bool) -> None:
    student, teacher = tiny_pair("bert")
    projections = projections_of("bert", student, teacher, "down")
    table = torch.randn(VOCABULARY, TEACHER_HIDDEN, requires_grad=True)
    ours, theirs = (dict(model.named_parameters()) for model in (student, teacher))
    projections(ours, theirs, (word_table(student), table), is_teacher_trained).backward()
    assert all(value.grad is not None for value in (*ours.values(), *projections.parameters()))
    paired = {pair.teacher for pair in projections.pairs} - {word_table(teacher)}
    for name, value in theirs.items():
        assert (value.grad is not None) == (is_teacher_trained and name in paired), name
    assert (table.grad is not None) == is_teacher_trained


def test_the_word_table_is_tied_to_the_students_table_inside_the_teacher() -> None:
    student, teacher = tiny_pair("bert")
    projections = projections_of("bert", student, teacher, "down")
    ours, theirs = (dict(model.named_parameters()) for model in (student, teacher))
    name, table = word_table(student), torch.randn(VOCABULARY, TEACHER_HIDDEN)

    def loss(table: Tensor, theirs: dict[str, Tensor]) -> float:
        return float(projections(ours, theirs, (name, table), is_teacher_trained=False).detach())

    before = loss(table, theirs)
    own = teacher.get_input_embeddings().weight
    assert loss(table, {**theirs, word_table(teacher): own + 1}) == before
    assert loss(table + 1, theirs) != before


def test_the_start_is_the_identity_where_widths_agree_and_orthonormal_elsewhere() -> None:
    student, teacher = tiny_pair("electra")
    matrices = projections_of("electra", student, teacher, "down").matrices
    assert torch.equal(matrices["right_12_12"], torch.eye(12))
    for name in ("left_24_16", "right_24_16"):
        matrix = matrices[name] if name.startswith("left") else matrices[name].T
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(16), rtol=0, atol=1e-5)


def test_norms_have_the_names_of_the_matrices() -> None:
    student, teacher = tiny_pair("bert")
    norms = projections_of("bert", student, teacher, "down").norms()
    assert norms.keys() == {f"norm_{side}_{sizes}" for side in ("left", "right") for sizes in ("24_16", "48_32")}
    assert norms["norm_left_24_16"] == pytest.approx(16**0.5)


def test_a_tensor_without_a_counterpart_is_refused() -> None:
    student, _ = tiny_pair("bert")
    _, bare = tiny_pair("bert", "embedding")
    sentence = r"its tensor bert\.pooler\.dense\.weight .* has no counterpart pooler\.dense\.weight in the teacher"
    with pytest.raises(ValueError, match=sentence):
        find_pairs(family_of("bert"), student, bare, [0, 2])


def test_a_counterpart_of_another_number_of_axes_is_refused() -> None:
    student, teacher = tiny_pair("bert")
    teacher.classifier.weight = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match=r"its tensor classifier\.weight .* has no counterpart classifier\.weight"):
        find_pairs(family_of("bert"), student, teacher, [0, 2])


@pytest.mark.parametrize(
    ("hidden", "positions", "wanted"), [(48, 128, 591_970), (96, 512, 1_888_642), (192, 128, 6_389_698)]
)
def test_the_papers_students_have_a_third_of_the_parameters_it_prints(hidden: int, positions: int, wanted: int) -> None:
    """N = 146 h^2 + (V + P + 166) h + V + 2 for 12 layers, FFN 4 h, pooler, tied head and next-sentence head."""
    from transformers import BertConfig, BertForPreTraining

    tokens = 4928
    config = BertConfig(
        vocab_size=tokens, hidden_size=hidden, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=4 * hidden, max_position_embeddings=positions,
    )  # fmt: skip
    with torch.device("meta"):
        model = BertForPreTraining(config)
    assert sum(value.numel() for value in model.parameters()) == wanted
    assert 146 * hidden**2 + (tokens + positions + 166) * hidden + tokens + 2 == wanted
    # What is deployed is without the heads of pretraining: transform and norm, bias of the softmax, two classes.
    deployed = Shape(tokens, hidden, 12, 12, 4 * hidden, positions, head_layers=1)
    heads = hidden**2 + hidden + 2 * hidden + tokens + 2 * hidden + 2
    assert deployed.n_parameters == wanted - heads
    assert deployed.n_parameters == sum(value.numel() for value in model.bert.parameters())

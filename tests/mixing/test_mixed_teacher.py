"""A teacher that reads two vocabularies: itself as long as it reads its own, and two softmaxes that do not mix."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from compressor.batches.encoded import Collator, encode_rows
from compressor.batches.outputs import takes_segments
from compressor.mixing.teacher import IGNORE, MaskedHead, MixedTeacher, masked_head
from compressor.models.families import family_of
from compressor.student.copied import mapped_table, principal_rows
from compressor.training.contract import Mixing
from compressor.training.imitation import without_dropout
from tests.support.method_cases import (
    MAX_LENGTH,
    MODEL_TYPES,
    TEACHER_HIDDEN,
    collator_of,
    context_of,
    encoded,
    table,
    tiny_config,
    tiny_model,
    tokenizers,
    vocab_map,
)
from vocab.mapping import apply

N_TEACHER, N_STUDENT = tokenizers()[0].get_vocab_size(), 150
ROWS = range(8)


def mixed_batch(probability: float, masked: float = 0.0) -> dict[str, Tensor]:
    return collator_of(Mixing(probability, masked=masked), Collator(encoded()[1], 0, True, has_words=True))(ROWS)


def own_batch(model_type: str) -> dict[str, Tensor]:
    """Return the rows as the teacher alone reads them."""
    rows = encode_rows(tokenizers()[0], table(), MAX_LENGTH)
    return Collator(rows, 1 if model_type == "roberta" else 0, takes_segments(model_type))(ROWS)


def student_table(width: int = TEACHER_HIDDEN) -> Tensor:
    return torch.randn(N_STUDENT, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("kind", ["classification", "embedding"])
def test_with_no_word_of_the_students_it_is_the_teacher_bit_for_bit(model_type: str, kind: str, attention: str) -> None:
    teacher = context_of(kind, model_type=model_type).teacher
    assert teacher is not None
    teacher.set_attn_implementation(attention)
    own = own_batch(model_type)
    theirs = teacher(**own)
    table_ = student_table(teacher.get_input_embeddings().weight.shape[1])
    ours = MixedTeacher(teacher, N_STUDENT)(mixed_batch(0.0), table_)
    if kind == "classification":
        assert torch.equal(ours.logits, theirs.logits)
    else:
        real = own["attention_mask"] == 1
        assert torch.equal(ours.last_hidden_state[real], theirs.last_hidden_state[real])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_student_that_has_the_teachers_rows_is_read_as_the_teacher(model_type: str) -> None:
    """The student's ids in the student's own table, the same ids in the teacher's: nothing else tells them apart."""
    teacher = context_of(model_type=model_type).teacher
    assert teacher is not None
    own = teacher.get_input_embeddings().weight
    batch = mixed_batch(0.0)
    ids = (batch["mixed_ids"] - N_STUDENT).clamp(min=0)
    as_student = {**batch, "mixed_ids": ids}
    ours = MixedTeacher(teacher, N_TEACHER)(as_student, own).logits
    up = torch.eye(own.shape[1])
    assert torch.equal(ours, MixedTeacher(teacher, N_STUDENT)(batch, student_table(own.shape[1])).logits)
    assert torch.equal(ours, MixedTeacher(teacher, N_TEACHER)(as_student, own, up).logits)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_without_dropout_training_gives_the_teachers_answers(model_type: str) -> None:
    teacher = context_of(model_type=model_type).teacher
    assert teacher is not None
    batch = own_batch(model_type)
    wanted = teacher(**batch).logits
    without_dropout(teacher)
    assert torch.equal(teacher.train()(**batch).logits, wanted)


def test_only_the_rows_that_are_read_get_a_gradient() -> None:
    teacher = context_of().teacher
    assert teacher is not None
    teacher.requires_grad_(True)
    batch, table_ = mixed_batch(0.5), student_table(12).requires_grad_()
    up = torch.randn(12, TEACHER_HIDDEN, requires_grad=True)
    MixedTeacher(teacher, N_STUDENT)(batch, table_, up).logits.square().sum().backward()
    read = batch["mixed_ids"][batch["mixed_mask"] == 1].unique()
    own = teacher.get_input_embeddings().weight.grad
    assert own is not None and table_.grad is not None and up.grad is not None and up.grad.abs().sum() > 0
    assert torch.equal(table_.grad.abs().sum(1).nonzero().squeeze(1), read[read < N_STUDENT])
    assert torch.equal(own.abs().sum(1).nonzero().squeeze(1), read[read >= N_STUDENT] - N_STUDENT)


def fresh_head(*sizes: int) -> MaskedHead:
    torch.manual_seed(0)
    return MaskedHead(10, 6, "gelu", 1e-12, *sizes)


@pytest.mark.parametrize("which", [0, 1])
def test_a_hidden_word_moves_the_softmax_of_its_own_vocabulary_only(which: int) -> None:
    head, tables = fresh_head(4, 7), [torch.randn(size, 6, requires_grad=True) for size in (4, 7)]
    labels = torch.tensor([[IGNORE, 2, 0], [3, IGNORE, IGNORE]]) if which == 0 else torch.tensor([[4, 10, IGNORE]] * 2)
    head.loss(torch.randn(2, 3, 10), labels, *tables).backward()
    assert tables[which].grad is not None and head.biases[which].grad.abs().sum() > 0
    assert tables[1 - which].grad is None and head.biases[1 - which].grad is None


def test_the_loss_is_the_mean_over_all_hidden_words_of_both_vocabularies() -> None:
    head, tables, states = fresh_head(4, 7), [torch.randn(size, 6) for size in (4, 7)], torch.randn(2, 3, 10)
    labels = torch.tensor([[3, IGNORE, 4], [IGNORE, 10, 0]])
    theirs = []
    for row, column in (labels != IGNORE).nonzero().tolist():
        label = int(labels[row, column])
        which, target = (0, label) if label < 4 else (1, label - 4)
        hidden = head.norm(torch.nn.functional.gelu(head.dense(states[row, column])))
        theirs.append(-(tables[which] @ hidden + head.biases[which]).log_softmax(0)[target])
    torch.testing.assert_close(head.loss(states, labels, *tables), torch.stack(theirs).mean())


def test_a_batch_with_nothing_to_hide_has_loss_0_and_can_be_stepped_over() -> None:
    head, states = fresh_head(4), torch.randn(1, 3, 10, requires_grad=True)
    loss = head.loss(states, torch.full((1, 3), IGNORE), torch.randn(4, 6))
    loss.backward()
    assert loss.item() == 0.0 and states.grad is not None and not states.grad.any()


def checkpoint(model_type: str, folder: Path) -> tuple[Any, Any]:
    """Save a masked language model; return it and the bare encoder that a run would load."""
    whole = tiny_model(tiny_config(model_type, N_TEACHER, TEACHER_HIDDEN, 1), "mlm")
    whole.save_pretrained(folder)
    return whole, AutoModel.from_pretrained(folder, dtype=torch.float32, **family_of(model_type).without_pooler)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_checkpoints_masked_language_head_is_found_and_used(model_type: str, tmp_path: Path) -> None:
    whole, bare = checkpoint(model_type, tmp_path)
    head, is_found = masked_head(bare, tmp_path, N_STUDENT)
    assert is_found
    batch = own_batch(model_type)
    with torch.no_grad():
        theirs = whole(**batch).logits
        states = bare(**batch).last_hidden_state
        ours = head.logits(states, bare.get_input_embeddings().weight, which=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    assert head.logits(states[:1], student_table(head.dense.out_features)).shape[-1] == N_STUDENT


def test_a_head_is_found_in_a_checkpoint_of_several_files(tmp_path: Path) -> None:
    whole, bare = checkpoint("bert", tmp_path / "one")
    whole.save_pretrained(tmp_path / "many", max_shard_size="20kB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (masked_head(bare, tmp_path / name, N_STUDENT) for name in ("one", "many"))
    assert many[1]
    assert torch.equal(one[0].dense.weight, many[0].dense.weight) and torch.equal(one[0].biases[1], many[0].biases[1])


def test_a_head_that_is_not_there_whole_is_made_fresh(tmp_path: Path) -> None:
    _, bare = checkpoint("bert", tmp_path)
    assert not masked_head(bare, None, N_STUDENT)[1]
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["cls.predictions.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    head, is_found = masked_head(bare, tmp_path, N_STUDENT)
    assert not is_found
    assert not torch.equal(head.dense.weight, tensors["cls.predictions.transform.dense.weight"])
    assert [len(bias) for bias in head.biases] == [N_STUDENT, N_TEACHER]


def test_the_mapped_table_is_the_one_that_the_vocabulary_map_says() -> None:
    own = torch.randn(N_TEACHER, 8)
    ours = mapped_table(vocab_map(), own)
    assert ours.dtype == torch.float32 and not ours.requires_grad
    torch.testing.assert_close(ours, torch.from_numpy(apply(vocab_map(), own.numpy())), rtol=0, atol=1e-6)


def test_principal_rows_are_the_best_of_their_width() -> None:
    whole = torch.randn(40, 10, dtype=torch.float64)
    values = torch.linalg.svdvals(whole)
    for width in (1, 4, 9):
        rows = principal_rows(whole, width)
        up = torch.linalg.lstsq(rows, whole).solution
        error = (rows @ up - whole).square().sum()
        torch.testing.assert_close(error, values[width:].square().sum())  # Eckart and Young: no rank does better


def test_principal_rows_of_fewer_tokens_than_columns_are_filled_up_with_zeros() -> None:
    whole = torch.randn(5, 12)
    rows = principal_rows(whole, 8)
    assert rows.shape == (5, 8) and not rows[:, 5:].any()
    up = torch.linalg.lstsq(rows.double(), whole.double(), driver="gelsd").solution
    torch.testing.assert_close(rows.double() @ up, whole.double(), rtol=0, atol=1e-5)

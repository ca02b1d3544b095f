"""Batches with two views: what is drawn, what is hidden, and that both depend on seed, epoch and batch alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor

from compressor.batches.encoded import Collator, Visit, encode_rows
from compressor.mixing.batches import MixedCollator, encode_mixed, tokens_of
from compressor.training.contract import Mixing
from tests.support.method_cases import MAX_LENGTH, N_ROWS, collator_of, encoded, table_of, tokenizers, tokens
from tests.support.tiny import make_rows
from tests.support.vocab_teachers import AWKWARD, AWKWARD_TEXTS
from vocab.mixing import masking

N_STUDENT = 150
ROWS = list(range(N_ROWS))
VIEW = {"mixed_ids", "mixed_mask", "mixed_segments", "mixed_words"}
HIDDEN = {"input_ids", "masked_labels", "mixed_ids", "mixed_labels"}


def collator(mixing: Mixing, **more: int) -> MixedCollator:
    made = collator_of(mixing, Collator(encoded()[1], 0, True, has_words=True), **more)
    assert isinstance(made, MixedCollator)
    return made


def visits(rows: list[int], epoch: int, done: float) -> list[int]:
    return [Visit.at(row, epoch, done) for row in rows]


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@settings(deadline=None, max_examples=40)
@given(st.lists(AWKWARD, min_size=1, max_size=4), st.integers(6, 40), st.booleans())
def test_the_students_view_is_the_plain_one_for_any_text(texts: list[str], max_length: int, is_pair: bool) -> None:
    teacher, student = tokenizers()
    table = table_of(texts, texts[::-1] if is_pair else None)
    _, ours = encode_mixed(teacher, student, table, max_length)
    for name, theirs in encode_rows(student, table, max_length)._asdict().items():
        assert np.array_equal(getattr(ours, name), theirs), name


def test_long_pairs_have_the_same_words_at_every_maximum_length() -> None:
    """Texts are cut by characters before they are encoded, but words are counted in the whole text."""
    teacher, student = tokenizers()
    table = table_of(["word " * 400, "a film"], ["another film", "word " * 400])
    _, mixed = encode_mixed(teacher, student, table, 8)
    short, long = (encode_rows(student, table, n) for n in (8, 60))
    assert np.array_equal(mixed.words, short.words)
    assert short.words[: short.starts[1]][-3] == long.words[: long.starts[1]][-3] == 401


def test_at_probability_0_the_teacher_reads_its_own_ids_and_at_1_the_students() -> None:
    teacher, student = tokenizers()
    table = table_of([*AWKWARD_TEXTS[:40]])
    rows, plain = encode_mixed(teacher, student, table, MAX_LENGTH)
    everything = list(range(len(table.texts)))
    ours = Collator(plain, 0, True, has_words=True)
    theirs = Collator(encode_rows(teacher, table, MAX_LENGTH), 0, True)(everything)
    none = MixedCollator(rows, ours, tokens(), Mixing(0.0), 0, 1.0)(everything)
    assert torch.equal(none["mixed_ids"], (theirs["input_ids"] + N_STUDENT) * theirs["attention_mask"])
    assert torch.equal(none["mixed_mask"], theirs["attention_mask"])
    assert torch.equal(none["mixed_segments"], theirs["token_type_ids"])


def test_at_probability_1_every_piece_of_text_is_the_students() -> None:
    batch = collator(Mixing(1.0))(ROWS)
    special = {N_STUDENT + id_ for id_ in (tokenizers()[0].token_to_id(name) for name in ("[CLS]", "[SEP]", "[UNK]"))}
    for row in ROWS:
        ids = batch["mixed_ids"][row][batch["mixed_mask"][row] == 1].tolist()
        plain = batch["input_ids"][row][batch["attention_mask"][row] == 1].tolist()
        assert ids[1:-1] == plain[1:-1]
        assert {ids[0], ids[-1]} <= special


def test_the_same_batch_is_drawn_the_same_twice_and_differently_in_another_epoch() -> None:
    collate = collator(Mixing(0.5, masked=0.15))
    rows = ROWS[:8]
    first = collate(visits(rows, 1, 1.2))
    collate(visits(ROWS[8:], 1, 1.5))  # whatever comes between
    assert same(first, collate(visits(rows, 1, 1.2)))
    other = collate(visits(rows, 2, 2.2))
    assert not same(first, other)
    assert torch.equal(first["words"], other["words"])  # the student's cut is the same
    assert not same(first, collator(Mixing(0.5, masked=0.15), seed=6)(visits(rows, 1, 1.2)))


@pytest.mark.parametrize(("done", "wanted"), [(0.0, 0.0), (0.5, 0.2), (1.0, 0.4), (2.0, 0.8), (2.9, 0.8)])
def test_the_probability_rises_over_its_share_of_the_stage(done: float, wanted: float) -> None:
    assert collator(Mixing(0.8, ramp=2 / 3), epochs=3.0).probability(done) == pytest.approx(wanted)


def test_without_a_ramp_the_probability_is_there_from_the_start() -> None:
    assert collator(Mixing(0.8)).probability(0.0) == 0.8


def test_a_ramp_starts_with_the_teachers_own_ids_and_only_adds_the_students() -> None:
    collate = collator(Mixing(1.0, ramp=1.0), epochs=2.0)
    before = None
    for done in (0.0, 0.5, 1.0, 1.5, 2.0):
        batch = collate(visits(ROWS, 0, done))
        share = ((batch["mixed_ids"] < N_STUDENT) & (batch["mixed_mask"] == 1)).sum().item()
        assert share == 0 if done == 0 else share > before
        before = share


def test_the_share_of_words_that_the_student_cuts_is_near_the_probability() -> None:
    rows, _ = encoded()
    n_cut = n_words = 0
    for epoch in range(20):
        batch = collator(Mixing(0.3))(visits(ROWS, epoch, 0.0))
        for row in ROWS:
            is_student = batch["mixed_ids"][row] < N_STUDENT
            words = batch["mixed_words"][row]
            real = [word for word in words.unique().tolist() if word > 0]
            n_cut += sum(bool(is_student[words == word].any()) for word in real)
            n_words += len(real)
    assert abs(n_cut / n_words - 0.3) < 4 * (0.3 * 0.7 / n_words) ** 0.5
    assert rows.is_drawable.any()


def hidden_words(labels: Tensor, words: Tensor) -> list[set[int]]:
    return [set(words[row][labels[row] != masking.IGNORE].tolist()) for row in range(len(labels))]


@pytest.mark.parametrize("every", [1, 3])
def test_both_streams_hide_the_same_words(every: int) -> None:
    batch = collator(Mixing(0.5, masked=0.3, every=every))(ROWS)
    ours = hidden_words(batch["masked_labels"], batch["words"])
    theirs = hidden_words(batch["mixed_labels"], batch["mixed_words"])
    assert all(ours)
    assert ours[::every] == theirs


def test_a_label_is_a_token_of_the_vocabulary_that_cut_the_word() -> None:
    mixing = Mixing(0.5, masked=0.5)
    plain = collator(Mixing(0.5))(ROWS)  # the same draw, nothing hidden
    batch = collator(mixing)(ROWS)
    chosen = batch["mixed_labels"] != masking.IGNORE
    assert torch.equal(batch["mixed_labels"][chosen], plain["mixed_ids"][chosen])
    assert torch.equal(batch["mixed_ids"][~chosen], plain["mixed_ids"][~chosen])
    chosen = batch["masked_labels"] != masking.IGNORE
    assert torch.equal(batch["masked_labels"][chosen], plain["input_ids"][chosen])
    assert torch.equal(batch["input_ids"][~chosen], plain["input_ids"][~chosen])
    assert batch["masked_labels"].max() < N_STUDENT


def test_hidden_pieces_are_the_mask_of_each_vocabulary() -> None:
    teacher, student = tokenizers()
    batch = collator(Mixing(0.5, masked=1.0))(ROWS)
    for ids, labels, mask in (
        ("input_ids", "masked_labels", student.token_to_id("[MASK]")),
        ("mixed_ids", "mixed_labels", N_STUDENT + teacher.token_to_id("[MASK]")),
    ):
        share = (batch[ids][batch[labels] != masking.IGNORE] == mask).float().mean()
        assert 0.65 < share < 0.95  # eight of ten words


def test_the_students_unknown_token_is_read_in_the_teachers_row() -> None:
    teacher, student = tokenizers()
    table = table_of(["a film \u96fb\u5f71 , wonderful", "\u6620\u753b"])
    rows, plain = encode_mixed(teacher, student, table, MAX_LENGTH)
    batch = MixedCollator(rows, Collator(plain, 0, True, has_words=True), tokens(), Mixing(1.0), 0, 1.0)([0, 1])
    ours, theirs = (tokenizer.token_to_id("[UNK]") for tokenizer in (student, teacher))
    assert (batch["input_ids"] == ours).any()
    assert not ((batch["mixed_ids"] == ours) & (batch["mixed_mask"] == 1)).any()
    assert (batch["mixed_ids"] == N_STUDENT + theirs).sum() == (batch["input_ids"] == ours).sum()


def test_the_teacher_reads_every_so_many_rows() -> None:
    whole, third = (collator(Mixing(0.0, every=every))(ROWS) for every in (1, 3))
    assert len(third["input_ids"]) == N_ROWS and len(third["mixed_ids"]) == N_ROWS // 3
    width = third["mixed_ids"].shape[1]
    assert torch.equal(third["mixed_ids"], whole["mixed_ids"][::3, :width])


def test_views_have_one_shape_each_and_padding_lies_behind_the_mask() -> None:
    batch = collator(Mixing(0.5, masked=0.15))(ROWS)
    assert {batch[name].shape for name in VIEW | {"mixed_labels"}} == {batch["mixed_ids"].shape}
    assert {batch[name].shape for name in ("words", "attention_mask", "masked_labels")} == {batch["input_ids"].shape}
    padding = batch["mixed_mask"] == 0
    assert padding.any() and (batch["mixed_words"][padding] == -1).all()
    assert (batch["mixed_labels"][padding] == masking.IGNORE).all()
    assert (batch["mixed_words"][:, 0] == 0).all() and (batch["words"][:, 0] == 0).all()
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    assert collator(Mixing(0.5))(ROWS).keys() == batch.keys() - {"masked_labels", "mixed_labels"}
    assert batch.keys() >= VIEW | HIDDEN


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(8, 30))
def test_a_mixture_is_never_longer_than_the_teacher_can_read(seed: int, probability: float, max_length: int) -> None:
    """Where each vocabulary cuts other words finely, a mixture is longer than both of its cuts."""
    teacher, student = tokenizers()
    words = [word for text, _ in make_rows(30, 0) for word in text.split()]
    rng = np.random.default_rng(seed)
    table = table_of([" ".join(rng.choice([*words, "zq", "xylophone"], 40)) for _ in range(3)])
    rows, plain = encode_mixed(teacher, student, table, max_length)
    mixing = Mixing(probability, masked=0.15)
    collate = MixedCollator(rows, Collator(plain, 0, True, has_words=True), tokens(), mixing, seed, 1.0, max_length)
    batch = collate([0, 1, 2])
    assert batch["mixed_ids"].shape[1] <= max_length
    last = batch["mixed_mask"].sum(1) - 1
    ends = batch["mixed_ids"].gather(1, last.unsqueeze(1)).squeeze(1)
    assert (ends == N_STUDENT + teacher.token_to_id("[SEP]")).all()


def test_tokens_of_a_mixture_count_the_teachers_behind_the_students() -> None:
    teacher, student = tokenizers()
    found = tokens()
    assert found.n_student == student.get_vocab_size() == N_STUDENT
    assert found.mask == (student.token_to_id("[MASK]"), teacher.token_to_id("[MASK]"))
    ours, theirs = (set(pool.tolist()) for pool in found.pools)
    special = {student.token_to_id(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    assert ours == set(range(N_STUDENT)) - special
    assert min(theirs) >= N_STUDENT and len(theirs) == teacher.get_vocab_size() - 5


def without_mask(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer.from_str(tokenizer.to_str().replace("[MASK]", "[HIDE]"))


def test_words_cannot_be_hidden_without_a_mask_token() -> None:
    teacher, student = (without_mask(tokenizer) for tokenizer in tokenizers())
    with pytest.raises(ValueError, match=r"^objective = 'mlm' needs a mask token.*neither \[MASK\] nor <mask>"):
        tokens_of(teacher, student, masked=0.15)
    assert tokens_of(teacher, student, masked=0.0).mask == (-1, -1)

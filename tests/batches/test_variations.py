"""Variations of rows: made of their own words, the same whenever they are made, and visited instead of some rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.batches.encoded import Collator, EncodedRows, LengthSampler, encode_rows
from compressor.batches.teacher_cache import NONE, ShardOutput, TeacherCache, VariedCache
from compressor.batches.variations import vary, with_variations
from compressor.data.table import Table
from tests.support.method_cases import tokenizers

WORDS = st.lists(st.text("abcäß", min_size=1, max_size=5), min_size=1, max_size=9).map(" ".join)


def table_of(texts: list[str], pairs: list[str] | None = None) -> Table:
    return Table(texts, pairs, ["x"] * len(texts), {}, "", "rows")


@given(texts=st.lists(WORDS, min_size=1, max_size=12), number=st.integers(0, 3), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_variation_is_a_text_of_the_corpus_own_words(texts: list[str], number: int, seed: int) -> None:
    table = table_of(texts)
    made = vary(table, number, seed)
    assert made == vary(table, number, seed)
    assert len(made) == len(table) and made.labels is None
    known = {word for text in texts for word in text.split()}
    for text in made.texts:
        assert text.strip() and set(text.split()) <= known


def test_rounds_differ_and_most_rows_change() -> None:
    texts = [f"row {number} of words that {number % 7} say some things" for number in range(200)]
    first, second = (vary(table_of(texts), number, 0).texts for number in (0, 1))
    assert sum(ours != theirs for ours, theirs in zip(first, second, strict=True)) > 180
    assert sum(ours != theirs for ours, theirs in zip(first, texts, strict=True)) > 120


def test_a_script_without_spaces_varies_by_character() -> None:
    texts = ["深度学习模型可以在手机上运行并且不需要网络连接就可以回答问题非常方便"] * 40
    made = vary(table_of(texts), 0, 0).texts
    assert len(set(made)) > 20
    assert all(set(text) <= set(texts[0]) for text in made)


def test_a_pair_stays_a_pair_of_its_own_two_texts() -> None:
    texts, pairs = ["the cat sat on a mat"] * 60, ["dogs bark at night in town"] * 60
    made = vary(table_of(texts, pairs), 0, 0)
    assert made.pairs is not None
    known = {*texts[0].split(), *pairs[0].split()}
    unchanged = [text == texts[0] and other == pairs[0] for text, other in zip(made.texts, made.pairs, strict=True)]
    assert sum(unchanged) < 20
    for text, other in zip(made.texts, made.pairs, strict=True):
        assert set(text.split()) <= {*texts[0].split()} and set(other.split()) <= {*pairs[0].split()} <= known


def encoded(n_rows: int, n_variations: int) -> tuple[Table, list[Table], EncodedRows]:
    table = table_of([f"text {number} {'more ' * (number % 5)}words" for number in range(n_rows)])
    rounds = [vary(table, number, 0) for number in range(n_variations)]
    _, student = tokenizers()
    rows = encode_rows(student, table, 32)
    varied = encode_rows(student, replace(table, texts=[text for each in rounds for text in each.texts]), 32)
    return table, rounds, with_variations(rows, varied)


def test_rows_are_followed_by_their_variations() -> None:
    table, rounds, rows = encoded(10, 2)
    assert (rows.n_rows, rows.n_variations) == (10, 2)
    for number, text in enumerate(text for each in (table, *rounds) for text in each.texts):
        alone = encode_rows(tokenizers()[1], table_of([text]), 32)
        assert np.array_equal(rows.ids[rows.starts[number] : rows.starts[number + 1]], alone.ids)
        assert np.array_equal(rows.words[rows.starts[number] : rows.starts[number + 1]], alone.words)


def test_every_epoch_visits_every_row_once_as_itself_or_as_a_variation() -> None:
    sampler = LengthSampler(np.ones(4 * 500, dtype=np.int64), 16, seed=3, n_variations=3)
    assert len(sampler) == 500
    shares, seen = [], set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        visits = [int(visit) for visit in sampler]
        assert sorted(visit % 500 for visit in visits) == list(range(500))
        assert visits == [int(visit) for visit in sampler]
        shares.append(np.mean([visit >= 500 for visit in visits]))
        seen.update(visits)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert len(seen) > 0.9 * 4 * 500  # all variations have their turn


def test_rows_without_variations_come_in_the_order_that_they_always_had() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, size=300)
    assert list(LengthSampler(lengths, 8, 1)) == list(LengthSampler(lengths, 8, 1, n_variations=0))


def test_a_batch_of_both_has_the_teachers_outputs_of_all_and_states_of_the_rows() -> None:
    table, _, rows = encoded(6, 2)
    rng = np.random.default_rng(0)
    counts = [len(text.split()) for text in table.texts]
    units = np.concatenate([np.arange(1, count + 1) for count in counts]).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    states = rng.normal(size=(len(units), 2, 4)).astype(np.float16)
    own = TeacherCache([ShardOutput(rng.normal(size=(6, 3)).astype(np.float32), states, units, starts)], (1, 2))
    outputs = rng.normal(size=(12, 3)).astype(np.float32)
    varied = TeacherCache([ShardOutput(outputs, NONE, np.zeros(0, np.int32), np.zeros(13, np.int64))], ())
    collate = Collator(rows, 0, has_segments=True, teacher=VariedCache(own, varied, 6))
    batch = collate([2, 6 + 1, 12 + 5])
    assert np.array_equal(batch["teacher_output"].numpy(), np.stack([own.outputs([2])[0], outputs[1], outputs[11]]))
    assert (batch["teacher_units"][1:] == -1).all()
    assert np.array_equal(batch["teacher_states"][0, : counts[2]].numpy(), states[starts[2] : starts[3]])
    only = collate([6, 7])
    assert (only["teacher_units"] == -1).all() and only["teacher_states"].shape == (2, 1, 2, 4)

"""Masks of a network that is narrowed: groups, counts over time, choice, and how what goes is brought to zero."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.inherit.masks import (
    LATEST,
    Group,
    Masks,
    choose_strategy,
    clear,
    find_groups,
    hold,
    plan_schedule,
    redirect,
    removed,
    select,
    shrink,
)
from compressor.models.families import family_of
from compressor.models.slots import find_slots
from exporters.shape import Shape

BASE = Shape(vocab_size=100, hidden=768, layers=2, heads=12, ffn=3072, positions=64)
COUNTS = st.integers(min_value=0, max_value=5000)


def shape(hidden: int, heads: int, ffn: int = 768) -> Shape:
    return dataclasses.replace(BASE, hidden=hidden, heads=heads, ffn=ffn)


def groups_of(student: Shape, strategy: str) -> dict[str, Group]:
    names = ["bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight"]
    roles = ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
    names += [f"bert.encoder.layer.{layer}.{role}.weight" for layer in range(BASE.layers) for role in roles]
    shapes = dict.fromkeys(names, (1, 1))
    slots = find_slots(family_of("bert"), shapes, shapes, [(0,), (1,)])
    return {group.name: group for group in find_groups(slots, BASE, student, strategy)}


@pytest.mark.parametrize("choice", range(1, 25))
@pytest.mark.parametrize("hidden", [192, 384])
def test_counts_are_those_of_the_published_table(choice: int, hidden: int) -> None:
    by_dims, by_heads = (
        groups_of(shape(hidden, heads, 4 * hidden), strategy)
        for heads, strategy in ((12, "dim"), (hidden // 64, "head"))
    )

    def n_removed(group: Group) -> int:
        return removed(choice, group.total, group.n_choices)

    lost = 768 - hidden
    assert n_removed(by_dims["ffn.0"]) == min(choice * lost // 16, lost) * 4
    assert n_removed(by_dims["head"]) == min(choice * lost // 16, lost)
    assert n_removed(by_dims["inner.1"]) == min(choice * (lost // 12 // 8), lost // 12)
    assert n_removed(by_heads["inner.1"]) == min(choice // 2, lost // 64)
    assert n_removed(by_heads["ffn.1"]) == n_removed(by_dims["ffn.1"])
    # Of the stream single coordinates go, not blocks of 64: as many by every second choice.
    assert n_removed(by_dims["residual"]) == min(choice * lost // 8, lost)
    whole = min(choice // 2, lost // 64) * 64
    assert n_removed(by_heads["residual"]) == (whole if choice % 2 == 0 else min(whole + 32, lost))


def test_a_number_that_does_not_divide_is_reached_at_the_last_choice() -> None:
    group = groups_of(shape(516, 12, 2064), "dim")["inner.0"]
    assert [removed(choice, group.total, group.n_choices) for choice in range(10)] == [
        0, 2, 5, 7, 10, 13, 15, 18, 21, 21
    ]  # fmt: skip


@given(total=COUNTS, n_choices=st.integers(min_value=1, max_value=30), choice=st.integers(min_value=0, max_value=40))
def test_counts_never_fall_and_end_at_the_target(total: int, n_choices: int, choice: int) -> None:
    now, then = (removed(each, total, n_choices) for each in (choice, choice + 1))
    assert 0 <= now <= then <= total
    assert removed(n_choices, total, n_choices) == total


@given(n_steps=st.integers(min_value=0, max_value=3000), interval=st.integers(min_value=0, max_value=2000))
@settings(deadline=None)
def test_everything_is_chosen_by_sixty_per_cent_of_a_stage(n_steps: int, interval: int) -> None:
    for groups in (groups_of(shape(192, 12), "dim"), groups_of(shape(64, 1), "head")):
        schedule = plan_schedule(list(groups.values()), n_steps, interval)
        last = schedule.interval * max(schedule.n_choices.values())
        assert last <= max(1, LATEST * n_steps)
        assert all(schedule.n_choices[name] <= group.n_choices for name, group in groups.items())


def test_a_stage_chooses_every_fortieth_of_it_unless_told() -> None:
    groups = list(groups_of(shape(192, 12), "dim").values())
    assert plan_schedule(groups, 400_000, 500).interval == 500
    assert plan_schedule(groups, 4000).interval == 100
    assert plan_schedule(groups, 4000, 1000).interval == 150  # 16 choices in 2,400 steps
    assert plan_schedule(groups, 10).n_choices["ffn.0"] == 6


@given(data=st.data(), is_blockwise=st.booleans())
@settings(deadline=None)
def test_the_highest_scores_are_kept_in_every_block(data: st.DataObject, is_blockwise: bool) -> None:
    blocks, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    scores = data.draw(st.lists(st.integers(0, 3), min_size=blocks * width, max_size=blocks * width))
    n_units = blocks if is_blockwise else width
    n_removed = data.draw(st.integers(0, n_units))
    group = Group("inner.0", blocks * width, 0, 1, blocks, is_blockwise)
    kept = select(group, torch.tensor(scores, dtype=torch.float32), n_removed).view(blocks, width)
    if is_blockwise:
        assert (kept.all(1) | ~kept.any(1)).all()
        units = [([sum(scores[n * width : (n + 1) * width]) for n in range(blocks)], kept[:, 0].tolist())]
    else:
        units = [(scores[n * width : (n + 1) * width], kept[n].tolist()) for n in range(blocks)]
    for values, flags in units:
        best = sorted(range(len(values)), key=lambda index: (-values[index], index))[: n_units - n_removed]
        assert [index for index, flag in enumerate(flags) if flag] == sorted(best)


def test_equal_scores_do_not_take_everything() -> None:
    kept = select(Group("residual", 8, 5, 8), torch.ones(8), 3)
    assert kept.tolist() == [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    ("student", "wanted", "expected"),
    [
        (shape(192, 12), "auto", "dim"),
        (shape(192, 3), "auto", "head"),
        (shape(768, 12), "auto", "dim"),
        (shape(768, 12), "head", "head"),
    ],
)
def test_the_strategy_follows_from_the_shapes(student: Shape, wanted: str, expected: str) -> None:
    assert choose_strategy(BASE, student, wanted) == expected


@pytest.mark.parametrize(
    ("student", "wanted", "text"),
    [
        (shape(192, 6), "auto", r"got a student of 6 heads of 32 .* Use --heads 3 or 12\."),
        (shape(192, 12), "head", r"strategy = 'head'\. Use --heads 3\."),
        (shape(192, 3), "dim", r"strategy = 'dim'\. Use --heads 12\."),
        (shape(200, 4), "auto", r"Use a --hidden that is a multiple of 64\."),
        (shape(204, 6), "auto", r"Use --heads 12\."),
    ],
)
def test_other_heads_are_refused_with_what_works(student: Shape, wanted: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        choose_strategy(BASE, student, wanted)


def test_a_wider_student_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ffn=4096, expected at most the teacher's 3072\. Use --ffn 3072 or less"):
        groups_of(shape(192, 12, 4096), "dim")


def test_masks_reach_the_students_sizes_and_count_what_is_gone() -> None:
    groups = groups_of(shape(192, 3, 768), "head")
    masks = Masks(list(groups.values()))
    scores = {
        name: torch.rand(group.size, generator=torch.Generator().manual_seed(0)) for name, group in groups.items()
    }
    n_choices = {name: group.n_choices for name, group in groups.items()}
    shares = []
    for choice in range(20):
        masks.choose(scores, choice, n_choices)
        shares.append(masks.share)
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] == 1.0
    assert masks.is_done and masks.has_targets
    assert {name: int(masks.kept(name).sum()) for name in groups} == {
        "residual": 192, "head": 192, "inner.0": 192, "ffn.0": 768, "inner.1": 192, "ffn.1": 768
    }  # fmt: skip
    assert set(masks.state_dict()) == {f"kept_{name.replace('.', '_')}" for name in groups}


KEPT = torch.tensor([True, False, True, False, True])


def steps_of(resetting: str, seed: int, n_steps: int = 6, decay: float = 1.0, rate: float = 1e-2) -> dict[str, Tensor]:
    """Take Adam's steps on random gradients and return the parameters."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 3), (5,))]
    entries = [(each, KEPT) for each in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    draws = torch.Generator().manual_seed(seed)
    for _ in range(n_steps):
        for each in parameters:
            each.grad = torch.randn(each.shape, generator=draws)
        held = hold(entries) if resetting == "shrink" else []
        if resetting == "momentum":
            redirect(entries, optimizer, decay)
        optimizer.step()
        if resetting == "shrink":
            shrink(entries, held, 1 - rate * decay)
    return {f"{number}": each.detach() for number, each in enumerate(parameters)}


@pytest.mark.parametrize("resetting", ["shrink", "momentum"])
def test_masked_rows_do_not_depend_on_the_gradients_and_kept_ones_follow_adam(resetting: str) -> None:
    ours, other, plain = steps_of(resetting, 1), steps_of(resetting, 2), steps_of("none", 1)
    for name in ours:
        assert torch.equal(ours[name][~KEPT], other[name][~KEPT])
        assert torch.equal(ours[name][KEPT], plain[name][KEPT])
        assert not torch.equal(ours[name][~KEPT], plain[name][~KEPT])


def test_shrinking_takes_the_same_share_at_every_step() -> None:
    start, after = steps_of("shrink", 1, 0), steps_of("shrink", 1, 6, decay=20.0)
    for name in start:
        torch.testing.assert_close(after[name][~KEPT], start[name][~KEPT] * 0.8**6)


def test_the_published_edit_brings_masked_rows_to_zero() -> None:
    """It may pass through zero on the way, so only the end is looked at."""
    after = steps_of("momentum", 1, 4000, decay=20.0, rate=1e-3)
    assert all(values[~KEPT].abs().max() < 1e-3 for values in after.values())


def test_cleared_rows_are_zero_and_the_others_untouched() -> None:
    parameter = nn.Parameter(torch.randn(5, 2))
    before = parameter.detach().clone()
    clear([(parameter, KEPT)])
    assert torch.equal(parameter.detach(), before * KEPT.view(-1, 1))


def test_a_held_row_without_gradients_keeps_none() -> None:
    parameter: Any = nn.Parameter(torch.ones(5))
    assert hold([(parameter, KEPT)])[0].tolist() == [1.0, 1.0]
    assert parameter.grad is None

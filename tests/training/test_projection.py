"""Maps onto the teacher's width start by least squares, go on from stage to stage, and say the same everywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.batches.encoded import LengthSampler
from compressor.batches.pooling import UnitMeans, word_means
from compressor.scoring.losses import unit_distance
from compressor.training import projection
from compressor.training.projection import Projection

N_ROWS, WIDTH, TEACHER = 400, 12, 20


class Imitating(nn.Module):
    """An objective whose rows are states, some given and some of the teacher."""

    def __init__(self, *keys: str, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.maps = nn.ModuleList(Projection(key, WIDTH, TEACHER, bias=bias) for key in keys or ("words/1-1",))
        self.noise = nn.Dropout(0.5)

    def forward(self, ours: Tensor, theirs: Tensor) -> dict[str, Tensor]:
        return {each.key: unit_distance(each.beside(self.noise(ours), theirs), theirs) for each in self.maps}


def rows(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return states, and those of a teacher that is linear in them but for some noise and its lengths."""
    generator = torch.Generator().manual_seed(seed)
    ours = torch.randn(N_ROWS, WIDTH, generator=generator)
    theirs = ours @ torch.randn(WIDTH, TEACHER, generator=generator) + 1.5
    lengths = torch.rand(N_ROWS, 1, generator=generator) + 0.5
    return ours, torch.nn.functional.normalize(theirs, dim=-1) * lengths


def fitted(objective: nn.Module, batch_size: int = 16, **given: Any) -> tuple[nn.Module, list[int]]:
    """Fit on batches of the rows, and return how many rows were read."""
    ours, theirs = rows()
    read: list[int] = []

    def collate(indices: Any) -> dict[str, Tensor]:
        read.extend(map(int, indices))
        return {"ours": ours[list(indices)], "theirs": theirs[list(indices)]}

    projection.fit(objective, LengthSampler(np.arange(N_ROWS), batch_size, 0), collate, **given)
    return objective, read


@pytest.mark.parametrize("bias", [True, False])
def test_it_starts_at_the_least_squares_map_onto_unit_vectors(bias: bool) -> None:
    objective, read = fitted(Imitating(bias=bias))
    ours, theirs = (each[read].double() for each in rows())
    if bias:
        ours = torch.nn.functional.pad(ours, (0, 1), value=1.0)
    best = torch.linalg.lstsq(ours, torch.nn.functional.normalize(theirs, dim=-1)).solution
    found = objective.maps[0].weight.double()
    assert (found - best[:WIDTH].T).abs().max() < 0.01 * best.abs().max()  # but for the ridge


def test_it_beats_random_maps_on_rows_that_it_has_not_seen() -> None:
    unseen = dict(zip(("ours", "theirs"), rows(0), strict=True))
    before, after = Imitating().eval(), fitted(Imitating())[0].eval()
    assert after(**unseen)["words/1-1"] < 0.5 * before(**unseen)["words/1-1"]


def test_it_reads_no_more_rows_than_it_needs_and_changes_no_other_state() -> None:
    objective = Imitating()
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    _, read = fitted(objective)
    assert projection.POSITIONS_PER_FEATURE * WIDTH <= len(read) < N_ROWS
    assert objective.training
    assert torch.equal(torch.rand(3), drawn)  # neither a row nor a dropout is another for it


def test_parts_of_a_batch_say_what_the_whole_says() -> None:
    whole, in_parts = fitted(Imitating())[0], fitted(Imitating(), n_at_once=4)[0]
    torch.testing.assert_close(whole.maps[0].weight, in_parts.maps[0].weight)


def test_maps_without_positions_stay_as_they_are() -> None:
    objective = Imitating()
    before = objective.maps[0].weight.clone()
    nothing = {"ours": torch.zeros(0, WIDTH), "theirs": torch.zeros(0, TEACHER)}
    projection.fit(objective, LengthSampler(np.arange(8), 4, 0), lambda _rows: nothing)
    assert torch.equal(objective.maps[0].weight, before)


def test_fewer_positions_than_features_still_have_a_map() -> None:
    objective = Imitating()
    ours, theirs = (each[:4] for each in rows())
    projection.fit(objective, LengthSampler(np.arange(4), 4, 0), lambda _rows: {"ours": ours, "theirs": theirs})
    assert objective.eval()(ours, theirs)["words/1-1"] < 0.05


def test_a_later_stage_goes_on_with_the_maps_of_the_one_before(tmp_path: Path) -> None:
    first, _ = fitted(Imitating("words/1-1", "words/2-3"))
    with torch.no_grad():
        first.maps[0].weight += 1.0  # what training made of it
    projection.save(first, tmp_path)
    second = Imitating("words/1-1", "words/2-4")
    carried = projection.carry(second, tmp_path)
    assert carried == {"words/1-1"}  # the other compares other states
    random_start = second.maps[1].weight.clone()
    fitted(second, carried=carried)
    assert torch.equal(second.maps[0].weight, first.maps[0].weight)
    assert not torch.equal(second.maps[1].weight, random_start)


def test_maps_of_another_width_are_not_carried(tmp_path: Path) -> None:
    projection.save(fitted(Imitating())[0], tmp_path)
    wider = nn.Module()
    wider.map = Projection("words/1-1", WIDTH + 1, TEACHER)
    assert projection.carry(wider, tmp_path) == frozenset()


def test_nothing_is_written_or_found_where_there_are_no_maps(tmp_path: Path) -> None:
    projection.save(nn.Linear(2, 2), tmp_path)
    assert not list(tmp_path.iterdir())
    assert projection.carry(Imitating(), tmp_path) == frozenset()


def test_unit_means_are_the_word_means_of_those_units_that_both_models_have() -> None:
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(-1, 6, (5, 9), generator=generator)
    units = torch.tensor([[0, 1, 2, -1], [5, 3, 1, 0], [2, -1, -1, -1], [0, 1, 2, 3], [6, 7, -1, -1]])
    hidden = torch.randn(5, 9, 4, generator=generator)
    means, present = word_means(hidden, words, 8)
    found = UnitMeans(words, units)
    expected, is_found = [], torch.zeros_like(found.found)
    for row, line in enumerate(units.tolist()):
        for place, word in enumerate(line):
            if word >= 0 and present[row, word]:
                is_found[row, place] = True
                expected.append(means[row, word])
    assert torch.equal(found.found, is_found)
    torch.testing.assert_close(found(hidden), torch.stack(expected))

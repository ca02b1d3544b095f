"""The teacher's outputs on disk: computed once per training row, read by memory map in every epoch.

One shard holds ``SHARD_ROWS`` rows in ``.npy`` files: ``output`` (rows, classes or width) float32, ``states``
(units, layers, width) float16, ``units`` (units) int32 (which word a state belongs to, see
``compressor.batches.encoded``), ``starts`` (rows + 1) int64 and ``first`` (rows, first layers, width) float16, the
states of each row's first token. ``states`` and ``units`` are left out when no layer is asked for, ``first`` when none
of its own layers is; ``layers.json`` says which are there. Shards are renamed into place when they are whole, so a
killed run computes only what is missing.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.files import read_json
from compressor.refused import Refused

SHARD_ROWS = 4096
LAYERS = "layers.json"
NONE = np.zeros((0, 0, 0), dtype=np.float16)


class ShardOutput(NamedTuple):
    """What the teacher says about the rows of one shard."""

    output: npt.NDArray[np.float32]  # (rows, classes or width)
    states: npt.NDArray[np.float16]  # (units, layers, width)
    units: npt.NDArray[np.int32]  # (units,)
    starts: npt.NDArray[np.int64]  # (rows + 1,)
    first: npt.NDArray[np.float16] = NONE  # (rows, first layers, width)


@dataclass(frozen=True)
class TeacherCache:
    """Cached outputs, by row number."""

    shards: list[ShardOutput]
    layers: tuple[int, ...]  # which hidden states of the teacher are here; 0 is the embedding output
    first_layers: tuple[int, ...] = ()  # of which the first token's alone is read
    first_places: tuple[int, ...] = ()  # where these are in ``ShardOutput.first``

    def outputs(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return (rows, classes or width)."""
        return np.stack([self.output(row) for row in rows])

    def output(self, row: int) -> npt.NDArray[np.float32]:
        """Return one row's (classes or width,)."""
        found: npt.NDArray[np.float32] = self.shards[row // SHARD_ROWS].output[row % SHARD_ROWS]
        return found

    def states(self, rows: Sequence[int]) -> tuple[Tensor, list[npt.NDArray[np.int32]]]:
        """Return the states padded to (rows, units, layers, width) and the units of each row."""
        spans, units = [], []
        for row in rows:
            shard = self.shards[row // SHARD_ROWS]
            start, stop = shard.starts[row % SHARD_ROWS : row % SHARD_ROWS + 2]
            spans.append(shard.states[start:stop])
            units.append(np.asarray(shard.units[start:stop]))
        padded = np.zeros((len(rows), max(len(span) for span in spans), *spans[0].shape[1:]), dtype=np.float16)
        for index, span in enumerate(spans):
            padded[index, : len(span)] = span
        return torch.from_numpy(padded), units

    def first(self, rows: Sequence[int]) -> Tensor:
        """Return the states of the first token (rows, first layers, width), float16."""
        places = list(self.first_places)
        found = [self.shards[row // SHARD_ROWS].first[row % SHARD_ROWS][places] for row in rows]
        return torch.from_numpy(np.stack(found))


@dataclass(frozen=True)
class VariedCache:
    """The cached outputs of rows, and of the variations that stand behind them: of these the outputs alone."""

    own: TeacherCache
    varied: TeacherCache
    n_rows: int  # variations aside

    @property
    def layers(self) -> tuple[int, ...]:
        """Which hidden states are here."""
        return self.own.layers

    @property
    def first_layers(self) -> tuple[int, ...]:
        """Of which the first token's alone is read: none, for variations have no states."""
        return ()

    def outputs(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return (rows, classes or width)."""
        n_rows = self.n_rows
        return np.stack([self.own.output(row) if row < n_rows else self.varied.output(row - n_rows) for row in rows])

    def first(self, rows: Sequence[int]) -> Tensor:
        """Return nothing: variations have no states."""
        raise AssertionError("first_layers is empty")

    def states(self, rows: Sequence[int]) -> tuple[Tensor, list[npt.NDArray[np.int32]]]:
        """Return states and units as ``TeacherCache`` does; a variation has one unit, which is none."""
        places = [place for place, row in enumerate(rows) if row < self.n_rows]
        units = [np.full(1, -1, dtype=np.int32) for _ in rows]
        if not places:
            width = self.own.shards[0].states.shape[1:]
            return torch.zeros(len(rows), 1, *width, dtype=torch.float16), units
        found, own_units = self.own.states([rows[place] for place in places])
        for place, own in zip(places, own_units, strict=True):
            units[place] = own
        states = found.new_zeros(len(rows), *found.shape[1:])
        states[places] = found
        return states, units


def spread_layers(n_layers: int, n_wanted: int) -> tuple[int, ...]:
    """Return ``n_wanted`` layers of ``n_layers``, evenly spaced, the last among them: (6, 2) -> (3, 6)."""
    n_wanted = min(n_wanted, n_layers)
    return tuple(round(n_layers * (index + 1) / n_wanted) for index in range(n_wanted))


def fill_cache(
    folder: Path,
    n_rows: int,
    layers: tuple[int, ...],
    compute: Callable[[range], ShardOutput],
    progress: Callable[[int], None],
    first_layers: tuple[int, ...] = (),
) -> None:
    """Compute the shards that are missing in ``folder``; ``progress`` is told the rows done."""
    is_kept = {"states": bool(layers), "units": bool(layers), "first": bool(first_layers)}
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"words": list(layers), "first": list(first_layers)}
    (folder / LAYERS).write_text(json.dumps(kept) + "\n", encoding="utf-8")
    for number, start in enumerate(range(0, n_rows, SHARD_ROWS)):
        rows = range(start, min(start + SHARD_ROWS, n_rows))
        shard_dir = folder / f"{number:05d}"
        if not shard_dir.is_dir():
            unfinished = folder / f"{number:05d}.tmp"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name, array in compute(rows)._asdict().items():
                if is_kept.get(name, True):
                    np.save(unfinished / f"{name}.npy", array)
            unfinished.rename(shard_dir)
        progress(len(rows))


def open_cache(folder: Path, layers: tuple[int, ...], first_layers: tuple[int, ...] = ()) -> TeacherCache:
    """Return the cache in ``folder``, mapped into memory; what is not asked for is not opened.

    Raises:
        ValueError: if layers that are asked for are not there.
    """
    kept = read_json(folder / LAYERS)
    if (layers and kept["words"] != list(layers)) or not set(first_layers) <= set(kept["first"]):
        raise Refused(
            f"teacher: the cache in {folder} has word states of layers {kept['words']} and first states of "
            f"{kept['first']}, expected {list(layers)} and {list(first_layers)}. Delete it to compute it again."
        )
    no_units = np.zeros(0, dtype=np.int32)
    shards = []
    for shard_dir in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.endswith(".tmp")):
        output, starts = np.load(shard_dir / "output.npy"), np.load(shard_dir / "starts.npy")
        states, units, first = NONE, no_units, NONE
        if layers:
            states = np.load(shard_dir / "states.npy", mmap_mode="r")
            units = np.load(shard_dir / "units.npy")
        if first_layers:
            first = np.load(shard_dir / "first.npy", mmap_mode="r")
        shards.append(ShardOutput(output, states, units, starts, first))
    return TeacherCache(shards, layers, first_layers, tuple(kept["first"].index(layer) for layer in first_layers))

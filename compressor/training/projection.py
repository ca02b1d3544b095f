"""Linear maps from a student's width to its teacher's, which start by least squares and go on from stage to stage.

A map that starts at random pulls the student away from its start until the map is learned. So each is solved for on the
first batches of a stage, before its first step: P = argmin |S P - T|^2 + ridge |P|^2 over all positions that the loss
compares, where S are the student's states and T the teacher's, at unit length as the loss sees them. A stage leaves its
maps beside its model, and the next one with the same states goes on with them.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.batches.encoded import Collate, LengthSampler

FILE = "projections.safetensors"
RIDGE = 1e-3  # of the mean square of the student's features
POSITIONS_PER_FEATURE = 8  # that are enough to solve for a map
MOST_BATCHES = 32


class Projection(nn.Linear):
    """A map that can be solved for: while it is fitted, ``beside`` adds up what the least squares need."""

    def __init__(self, key: str, width: int, teacher_width: int, *, bias: bool = True) -> None:
        """Start at random, as any linear layer.

        Args:
            key: which states it maps onto which; the same in every stage.
            width: of the student's states.
            teacher_width: of the teacher's.
            bias: whether the map has one.
        """
        super().__init__(width, teacher_width, bias=bias)
        self.key = key
        self.sums: tuple[Tensor, Tensor] | None = None  # S'S and S'T in float64, while it is fitted
        self.n_positions = 0

    @property
    def is_settled(self) -> bool:
        """Return whether it has seen enough positions."""
        return self.n_positions >= POSITIONS_PER_FEATURE * self.in_features

    def beside(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Return ``ours`` (positions, width) in the teacher's width; ``theirs`` (positions, teacher width) is there."""
        if self.sums is not None and not self.is_settled:
            states = ours.detach().double()
            if self.bias is not None:
                states = F.pad(states, (0, 1), value=1.0)
            targets = F.normalize(theirs.double(), dim=-1)
            self.sums = (self.sums[0] + states.T @ states, self.sums[1] + states.T @ targets)
            self.n_positions += len(states)
        mapped: Tensor = self(ours)
        return mapped

    def begin(self) -> None:
        """Collect positions from now on."""
        n_features = self.in_features + (self.bias is not None)
        empty = self.weight.new_zeros(n_features, n_features, dtype=torch.float64)
        self.sums, self.n_positions = (empty, empty.new_zeros(n_features, self.out_features)), 0

    def solve(self) -> None:
        """Become the least squares map of what was collected; nothing is changed where nothing was."""
        assert self.sums is not None
        squares, products = self.sums
        self.sums = None
        if self.n_positions == 0:
            return
        # The last feature, of the bias, is not shrunk.
        ridge = torch.full((len(squares),), RIDGE, dtype=torch.float64, device=squares.device)
        ridge *= squares.diagonal()[: self.in_features].mean()
        if self.bias is not None:
            ridge[-1] *= 1e-6
        found = torch.linalg.lstsq((squares + ridge.diag()).cpu(), products.cpu()).solution.to(self.weight)
        with torch.no_grad():
            self.weight.copy_(found[: self.in_features].T)
            if self.bias is not None:
                self.bias.copy_(found[-1])


def brought(projection: nn.Module, ours: Tensor, theirs: Tensor) -> Tensor:
    """Return states in the teacher's width: through their map, or as they are where there is none."""
    return projection.beside(ours, theirs) if isinstance(projection, Projection) else ours


def projections_of(model: nn.Module) -> list[Projection]:
    """Return the maps inside a model."""
    return [each for each in model.modules() if isinstance(each, Projection)]


def fit(
    objective: nn.Module,
    sampler: LengthSampler,
    collate: Collate,
    carried: frozenset[str] = frozenset(),
    n_at_once: int | None = None,
) -> None:
    """Solve for the objective's maps on the first batches of a stage.

    Every process reads the same rows, so that all find what one alone would.

    Args:
        objective: whose ``forward(**batch)`` shows its maps what they map.
        sampler: of the stage; the first rows are those of its first epoch.
        collate: of the stage.
        carried: keys of the maps that an earlier stage has trained, which stay as they are.
        n_at_once: rows per forward pass, where memory asks for fewer than a batch.
    """
    wanted = [each for each in projections_of(objective) if each.key not in carried]
    if not wanted:
        return
    for projection in wanted:
        projection.begin()
    was_training, place = objective.training, next(objective.parameters()).device
    objective.eval()
    with torch.no_grad(), torch.random.fork_rng():
        n_read = 0
        for rows in sampler.batches(n_at_once):
            objective(**{name: tensor.to(place) for name, tensor in collate(rows).items()})
            n_read += len(rows)
            if n_read >= MOST_BATCHES * sampler.batch_size or all(each.is_settled for each in wanted):
                break
    for projection in wanted:
        projection.solve()
    objective.train(was_training)


def save(objective: nn.Module, folder: Path) -> None:
    """Write the maps into a stage's folder, where there are any."""
    from safetensors.torch import save_file

    tensors = {
        f"{each.key}/{name}": value.detach().float().cpu().contiguous()
        for each in projections_of(objective)
        for name, value in each.named_parameters()
    }
    if tensors:
        save_file(tensors, folder / FILE)


def carry(objective: nn.Module, folder: Path) -> frozenset[str]:
    """Take over the maps that the stage in ``folder`` left, of the same states and sizes, and return their keys."""
    from safetensors.torch import load_file

    path = folder / FILE
    found = load_file(path) if path.is_file() else {}
    carried = set()
    for each in projections_of(objective):
        values = {name: found.get(f"{each.key}/{name}") for name, _ in each.named_parameters()}
        shapes = {name: parameter.shape for name, parameter in each.named_parameters()}
        known = {name: value for name, value in values.items() if value is not None and value.shape == shapes[name]}
        if known.keys() == shapes.keys():
            each.load_state_dict(known)
            carried.add(each.key)
    return frozenset(carried)

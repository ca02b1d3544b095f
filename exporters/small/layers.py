"""The bodies of small encoders, and the operator of the recurrent one as torch runs it and as ONNX writes it.

Importing this module registers ``torch.ops.tenmeg.recurrent``: what torch.export meets in the place of a loop over
tokens, so that an exported graph has one GRU node, which stops at a row's last token (``sequence_lens``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.small.shape import KERNELS


class Recurrent(nn.Module):
    """Gated recurrent units in both directions over rows that end where their mask does."""

    def __init__(self, n_inputs: int, n_units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, 3 * n_units, n_inputs))  # (directions, gates z r h, inputs)
        self.recurrence = nn.Parameter(torch.empty(2, 3 * n_units, n_units))
        self.bias = nn.Parameter(torch.zeros(2, 6 * n_units))  # of the inputs, then of the recurrence

    def draw(self) -> None:
        """Fill the weights: inputs scaled by their number, the recurrence orthogonal, no bias."""
        bound = self.weight.shape[2] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        for direction in self.recurrence:
            for gate in direction.chunk(3):
                nn.init.orthogonal_(gate)
        nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the states (batch, tokens, 2 units), zero behind the end, of (batch, tokens, inputs)."""
        if torch.compiler.is_exporting():
            return torch.ops.tenmeg.recurrent(inputs, lengths, self.weight, self.recurrence, self.bias)
        return run_recurrent(inputs, lengths, self.weight, self.recurrence, self.bias)


def run_recurrent(inputs: Tensor, lengths: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> Tensor:
    """Return what the ONNX operator GRU gives (``linear_before_reset`` = 1), by torch's own kernel."""
    parameters = []
    with torch.autocast(
        inputs.device.type, enabled=False
    ):  # the kernel of a step is slower in bfloat16, and less exact
        for direction in range(2):
            of_inputs, of_recurrence = bias[direction].chunk(2)
            for each in (weight[direction], recurrence[direction], of_inputs, of_recurrence):
                update, reset, new = each.float().chunk(3)
                parameters.append(torch.cat([reset, update, new]))  # torch's order of the gates
        pack = nn.utils.rnn.pack_padded_sequence
        packed = pack(inputs.float(), lengths.cpu(), batch_first=True, enforce_sorted=False)
        n_units = recurrence.shape[2]
        first = inputs.new_zeros(2, len(inputs), n_units, dtype=torch.float32)
        data, _ = torch.gru(packed.data, packed.batch_sizes, first, parameters, True, 1, 0.0, False, True)
        states, _ = nn.utils.rnn.pad_packed_sequence(
            packed._replace(data=data), batch_first=True, total_length=inputs.shape[1]
        )
    return states


@torch.library.custom_op("tenmeg::recurrent", mutates_args=())
def _recurrent(inputs: Tensor, lengths: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> Tensor:
    return run_recurrent(inputs, lengths, weight, recurrence, bias)


@_recurrent.register_fake
def _shape_of_recurrent(inputs: Tensor, lengths: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> Tensor:
    return inputs.new_empty(inputs.shape[0], inputs.shape[1], 2 * recurrence.shape[2])


def recurrent_to_onnx(inputs: Any, lengths: Any, weight: Any, recurrence: Any, bias: Any) -> Any:  # onnxscript's values
    """Write the operator GRU for ``torch.ops.tenmeg.recurrent``."""
    from onnxscript import opset20 as op

    n_units = int(recurrence.shape[2])
    first = op.Transpose(inputs, perm=[1, 0, 2])  # (tokens, batch, inputs)
    states, _ = op.GRU(
        first, weight, recurrence, bias, op.Cast(lengths, to=6),  # int32
        hidden_size=n_units, direction="bidirectional", linear_before_reset=1,
    )  # fmt: skip
    last = op.Transpose(states, perm=[2, 0, 1, 3])  # (batch, tokens, directions, units)
    return op.Reshape(last, op.Constant(value_ints=[0, 0, 2 * n_units]))


class Convolutions(nn.Module):
    """Convolutions of several widths side by side."""

    def __init__(self, n_inputs: int, n_filters: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(n_inputs, n_filters, size, padding=size // 2) for size in KERNELS)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Return the states (batch, tokens, widths * filters) of (batch, tokens, inputs)."""
        turned = (inputs * mask).transpose(1, 2)  # (batch, inputs, tokens)
        return F.relu(torch.cat([layer(turned) for layer in self.layers], dim=1)).transpose(1, 2)

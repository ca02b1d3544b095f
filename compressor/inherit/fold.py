"""The certificate of a fold: that the plain student is the network that was trained.

A student whose weights are maps of a teacher's is folded once, in float64, into plain tensors. Three differences are
measured and go into the report and the package's manifest: per tensor, between the value that training used (float32)
and the folded one; of the outputs on real text in float64, between the network with its maps and the folded student,
which is rounding alone if the algebra is right; and of the outputs of the student as it is stored, in float32. Over
tolerance there is no student and no package.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.training.contract import FoldError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLD_VERSION = 1
LEAST_SCALE = 1e-3  # a bias that is nothing but rounding has no entry to be relative to
# Relative to the largest entry of what is compared, at least 1 for outputs.
TOLERANCES: Mapping[str, float] = {"tensors": 1e-4, "float64": 1e-9, "stored": 1e-4}


def certify(
    *,
    carrier: nn.Module,
    live: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    folded: Mapping[str, Tensor],
    student: "PreTrainedModel",
    batches: list[dict[str, Tensor]],
) -> dict[str, Any]:
    """Load ``folded`` into ``student`` and return the certificate.

    Args:
        carrier: the network that was trained, its mapped tensors still to be filled in.
        live: their values as training used them, by the carrier's names, float32.
        exact: the same in float64.
        tensors: values by the student's names, float32, to compare with ``folded``.
        folded: the student's tensors in float64.
        student: the plain model that receives them.
        batches: model inputs of real text.

    Raises:
        FoldError: if a difference is over its tolerance.
    """
    carrier.eval()
    student.eval()
    trained = _outputs(carrier, live, batches)
    trained_exactly = _outputs(copy.deepcopy(carrier).double(), exact, batches)
    differences = {
        name: (float((value.double() - folded[name]).abs().max()), max(float(folded[name].abs().max()), LEAST_SCALE))
        for name, value in tensors.items()
    }
    plain = copy.deepcopy(student).double()
    plain.load_state_dict({**plain.state_dict(), **folded})
    in_float64 = float((_outputs(plain, {}, batches) - trained_exactly).abs().max())
    student.load_state_dict({**student.state_dict(), **{name: value.float() for name, value in folded.items()}})
    stored = float((_outputs(student, {}, batches) - trained).abs().max())
    scale = max(1.0, float(trained_exactly.abs().max()))
    worst = max(differences, key=lambda name: differences[name][0] / differences[name][1])
    _check(f"tensor {worst}", differences[worst][0], TOLERANCES["tensors"] * differences[worst][1])
    _check("outputs in float64", in_float64, TOLERANCES["float64"] * scale)
    _check("outputs as stored", stored, TOLERANCES["stored"] * scale)
    return {
        "version": FOLD_VERSION,
        "tensors": {name: _short(difference) for name, (difference, _) in sorted(differences.items())},
        "largest": {  # relative to the tensor's largest entry, which is ``scale``
            "tensor": worst,
            "difference": _short(differences[worst][0]),
            "scale": _short(differences[worst][1]),
        },
        "outputs": {
            "rows": sum(len(batch["input_ids"]) for batch in batches),
            "float64": _short(in_float64),
            "stored": _short(stored),
            "scale": _short(scale),
        },
        "tolerances": dict(TOLERANCES),
    }


def _check(what: str, got: float, allowed: float) -> None:
    if not got <= allowed:
        raise FoldError(
            f"fold: {what} differ by {got:.3g} between the trained network and its plain student, allowed "
            f"{allowed:.3g}. Train with a lower --learning-rate; if it stays, report it: the package would not be "
            "what was trained."
        )


def _outputs(model: nn.Module, values: Mapping[str, Tensor], batches: list[dict[str, Tensor]]) -> Tensor:
    """Return the outputs on real tokens, flat, in float64; ``values`` stand in for the model's own tensors."""
    found = []
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for batch in batches:
            output = torch.func.functional_call(model, dict(values), kwargs=batch)
            if getattr(output, "logits", None) is not None:
                found.append(output.logits.flatten())
            else:
                found.append(output.last_hidden_state[batch["attention_mask"].bool()].flatten())
    return torch.cat(found).double()


def _short(value: float) -> float:
    return float(f"{value:.3g}")

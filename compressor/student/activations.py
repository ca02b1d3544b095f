"""What a teacher's parts do on real text: which coordinates, heads and FFN units carry its function.

One pass over a few hundred rows with forward hooks. An FFN unit or an attention dimension matters by the mean square of
its activation times the squared norm of its outgoing weights (the energy it adds to the residual stream); a residual
coordinate by its mean square, after LayerNorm, times the squared norm of the weights that read it, over all layers. The
inputs of every LayerNorm are kept too, so that the change of mean and spread over fewer coordinates can be made up for.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from compressor.models.families import Family

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressor.batches.encoded import EncodedRows

Vector = npt.NDArray[np.float64]
SAMPLE_ROWS = 256
_LISTS, _DICTS = ("inner", "units"), ("means", "moments")
MAX_TOKENS = 4096  # kept per LayerNorm: 4096 x 768 x 4 bytes = 12.6 MB


@dataclass(frozen=True)
class Activations:
    """Statistics of one pass."""

    coordinates: Vector  # (hidden,)
    inner: list[Vector]  # per layer (hidden,): attention dimensions, head by head
    units: list[Vector]  # per layer (ffn,)
    means: dict[str, Vector]  # mean input of every linear module, by module path
    norm_inputs: dict[str, npt.NDArray[np.float32]]  # (tokens, hidden) by module path; not kept in files
    moments: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)  # mean of x x^T: "residual", "inner.0"...

    def norm_correction(self, path: str, kept: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Return (ratio, offset) so that ratio * norm_kept(x) + offset fits norm_all(x) on the kept coordinates.

        norm_all = (x - m) / s over all coordinates, norm_kept = (x - m') / s' over the kept ones, so
        norm_all = (s' / s) norm_kept + (m' - m) / s; both factors are averaged over tokens.
        """
        values = self.norm_inputs[path].astype(np.float64)
        mean, spread = values.mean(axis=1), values.std(axis=1)
        kept_mean, kept_spread = values[:, kept].mean(axis=1), values[:, kept].std(axis=1)
        return float((kept_spread / spread).mean()), float(((kept_mean - mean) / spread).mean())


def save_activations(found: Activations, path: Path) -> None:
    """Write what stages read of them; the tokens themselves, tens of megabytes, only the start of a student needs."""
    lists = {f"{name}.{layer}": row for name in _LISTS for layer, row in enumerate(getattr(found, name))}
    named = {f"{name}/{key}": row for name in _DICTS for key, row in getattr(found, name).items()}
    np.savez(path, allow_pickle=False, coordinates=found.coordinates, **lists, **named)


def load_activations(path: Path) -> Activations:
    """Return what was saved, without the inputs of LayerNorms."""
    with np.load(path, allow_pickle=False) as content:
        lists: Any = {
            name: [content[f"{name}.{layer}"] for layer in range(sum(key.startswith(f"{name}.") for key in content))]
            for name in _LISTS
        }
        named: Any = {
            name: {key.removeprefix(f"{name}/"): content[key] for key in content if key.startswith(f"{name}/")}
            for name in _DICTS
        }
        return Activations(content["coordinates"], norm_inputs={}, **lists, **named)


def measure_activations(teacher: "PreTrainedModel", family: Family, sample: "EncodedRows") -> Activations:
    """Return the statistics of ``teacher`` over the first rows of ``sample``."""
    from compressor.batches.encoded import Collator
    from compressor.batches.outputs import batches_by_length, device, takes_segments

    encoder = getattr(teacher, family.prefix, teacher)
    n_layers = getattr(teacher.config, family.config["layers"])
    recorder = _Recorder()
    for layer in range(n_layers):
        for role in family.roles:
            path = family.module(layer, role)
            recorder.watch(path, encoder.get_submodule(path), keeps_tokens=role.endswith("norm"))
        recorder.products |= {family.module(layer, role): kind for role, kind in _moments(layer).items()}
    recorder.watch("embeddings.LayerNorm", encoder.get_submodule("embeddings.LayerNorm"), keeps_tokens=True)
    collate = Collator(sample, teacher.config.pad_token_id or 0, takes_segments(teacher.config.model_type))
    teacher.to(device())
    with torch.inference_mode():
        for indices in batches_by_length(sample.lengths[:SAMPLE_ROWS]):
            batch = {name: tensor.to(device()) for name, tensor in collate(indices.tolist()).items()}
            recorder.mask = batch["attention_mask"].bool()
            teacher(**batch)
    recorder.close()
    teacher.to("cpu")
    return _summarize(encoder, family, n_layers, recorder)


def _summarize(encoder: torch.nn.Module, family: Family, n_layers: int, recorder: "_Recorder") -> Activations:
    def weight(layer: int, role: str) -> npt.NDArray[np.float64]:
        module = encoder.get_submodule(family.module(layer, role))
        return module.weight.detach().cpu().double().numpy()  # type: ignore[union-attr, operator]

    coordinates = np.zeros(weight(0, "query").shape[1])
    inner: list[Vector] = []
    units: list[Vector] = []
    for layer in range(n_layers):
        for role, found in (("attention_out", inner), ("ffn_out", units)):
            outgoing = (weight(layer, role) ** 2).sum(axis=0)
            found.append(recorder.squares(family.module(layer, role)) * outgoing)
        for role in ("query", "key", "value", "ffn_in"):
            reading = (weight(layer, role) ** 2).sum(axis=0)
            coordinates += recorder.squares(family.module(layer, role)) * reading
    means = {path: recorder.means(path) for path in recorder.sums}
    norm_inputs = {path: np.concatenate(parts)[:MAX_TOKENS] for path, parts in recorder.tokens.items()}
    moments = {kind: (total / recorder.n_products[kind]).cpu().numpy() for kind, total in recorder.moments.items()}
    return Activations(coordinates, inner, units, means, norm_inputs, moments)


def _moments(layer: int) -> dict[str, str]:
    """Return whose inputs are what runs along the residual stream and along the attention dimensions of a layer."""
    return {"query": "residual", "ffn_in": "residual", "attention_out": f"inner.{layer}"}


class _Recorder:
    """Forward hooks that add up inputs over real (not padding) tokens."""

    def __init__(self) -> None:
        self.mask = torch.zeros(0, dtype=torch.bool)
        self.sums: dict[str, torch.Tensor] = {}
        self.square_sums: dict[str, torch.Tensor] = {}
        self.n_tokens: dict[str, int] = {}
        self.tokens: dict[str, list[npt.NDArray[np.float32]]] = {}
        self.products: dict[str, str] = {}  # module path -> which second moment its input belongs to
        self.moments: dict[str, torch.Tensor] = {}
        self.n_products: dict[str, int] = {}
        self.hooks: list[torch.utils.hooks.RemovableHandle] = []

    def watch(self, path: str, module: torch.nn.Module, keeps_tokens: bool) -> None:
        """Record the input of ``module``; a LayerNorm's input is kept token by token."""

        def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            values = inputs[0][self.mask]  # (real tokens, width)
            if keeps_tokens:
                self.tokens.setdefault(path, []).append(values.float().cpu().numpy())
                return
            exact = values.double()
            self.sums[path] = self.sums.get(path, 0) + exact.sum(dim=0)
            self.square_sums[path] = self.square_sums.get(path, 0) + exact.square().sum(dim=0)
            self.n_tokens[path] = self.n_tokens.get(path, 0) + len(values)
            if (kind := self.products.get(path)) is not None:
                self.moments[kind] = self.moments.get(kind, 0) + (values.float().T @ values.float()).double()
                self.n_products[kind] = self.n_products.get(kind, 0) + len(values)

        self.hooks.append(module.register_forward_pre_hook(hook))

    def means(self, path: str) -> Vector:
        """Return the mean input of a linear module."""
        return (self.sums[path] / self.n_tokens[path]).cpu().numpy()

    def squares(self, path: str) -> Vector:
        """Return the mean squared input of a linear module."""
        return (self.square_sums[path] / self.n_tokens[path]).cpu().numpy()

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self.hooks:
            hook.remove()

"""The head of a new teacher, solved for before its first step: fine-tuning need not find what is known already.

A head that starts at random pulls the encoder away from what it knows until the head is learned (linear probing, then
fine-tuning: Kumar et al. 2022, 2202.10054). Here the last layer starts as the linear model of the labels on what it
reads, found by a hook, so that no architecture is named.

What it reads is the state of the first token, through a dense layer and its activation; but many sentence encoders
were trained to say what they know in the *mean* of all states. Of one text, such a one is aligned first, without
labels: the dense layer starts as the least squares map from the first state to the frozen vector v, and with the top
layers it is then trained for a few steps on

    | activation(dense(first state)) - activation(a + s (v - mean v)) |^2

where s keeps the activation nearly linear, and a is 0, or lies where an activation that cuts negative values does not.
It is deterministic by seed, and leaves a head that has been learned for the same labels as it is.
"""

import re
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from compressor.batches.encoded import Collator, EncodedRows, LengthSampler
from compressor.batches.outputs import batches_by_length, device, has_fast_bfloat16
from compressor.batches.pooling import pool
from compressor.methods.finetune import last_linear
from compressor.run.teaching import linear
from compressor.run.teaching.linear import Vectors
from compressor.scoring.contract import TaskSpec
from exporters.pooling import Pooling

SPREAD = 0.3  # root mean square of what the activation is given: tanh(0.3) is 0.29
SHIFT = 2.0  # of an activation that cuts negative values
RIDGE = 1e-2  # of the mean square of a feature
ALIGN_STEPS, ALIGN_ROWS, ALIGN_RATE, ALIGN_WARMUP = 200, 64, 2e-4, 10
TOP_LAYERS = 2  # that are aligned: the rest keeps what every token knows
LAYER = re.compile(r"\.layer\.(\d+)\.")


class Rows(NamedTuple):
    """Training rows as the model reads them."""

    encoded: EncodedRows
    collate: Collator  # without labels
    targets: list[Any]


class Reading(NamedTuple):
    """The last layer of a head, and the dense layer before it where it has one."""

    last: nn.Linear
    dense: nn.Linear | None


def start(model: Any, rows: Rows, spec: TaskSpec, pooling: Pooling | None, seed: int) -> None:
    """Solve for the head of a model in place.

    Args:
        model: a ``PreTrainedModel`` with a new head.
        rows: to learn from.
        spec: the task.
        pooling: in which a sentence encoder says what it knows of a text; None: it is not aligned.
        seed: of the order of the rows, and for the solver.
    """
    model.eval().to(device())
    reading = read(model, rows.collate([0]))
    if pooling is not None and reading.dense is not None and not spec.pair:
        align(model, reading, rows, pooling, seed)
    weights, bias = linear.fit(inputs_of(model, reading.last, rows), rows.targets, spec, seed)
    with torch.no_grad():
        reading.last.weight.copy_(torch.from_numpy(np.ascontiguousarray(weights.T)))  # (outputs, features)
        reading.last.bias.copy_(torch.from_numpy(bias))


def read(model: Any, batch: dict[str, Tensor]) -> Reading:
    """Return the layers of a head: those that are given one vector a row, in the order they are called."""
    called: list[nn.Linear] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Linear) and given[0].ndim == 2:  # (batch, features)
            called.append(module)

    hooks = [module.register_forward_pre_hook(note) for module in model.modules() if isinstance(module, nn.Linear)]
    _run(model, batch)
    for hook in hooks:
        hook.remove()
    last = last_linear(model)[1]
    before = called[: called.index(last)]
    is_square = bool(before) and before[-1].in_features == before[-1].out_features == last.in_features
    return Reading(last, before[-1] if is_square else None)


def inputs_of(model: Any, module: nn.Module, rows: Rows) -> Vectors:
    """Return what a module is given for every row (rows, features), in float32."""
    found: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _module, given: found.append(given[0].detach().float().cpu()))
    order = []
    for indices in batches_by_length(rows.encoded.lengths):
        _run(model, rows.collate(indices.tolist()))
        order.append(indices)
    hook.remove()
    values = torch.cat(found).numpy()
    inputs = np.empty_like(values)
    inputs[np.concatenate(order)] = values
    return inputs


def align(model: Any, reading: Reading, rows: Rows, pooling: Pooling, seed: int) -> None:
    """Teach the first token to say what the frozen vector says, on the texts alone."""
    from sklearn.linear_model import Ridge

    dense = reading.dense
    assert dense is not None
    cut = _activated(model, reading, rows, np.full((1, dense.out_features), -4.0, dtype=np.float32))
    wanted = _wanted(_vectors(model, rows, pooling), SHIFT if cut.mean() > -0.5 else 0.0)
    states = inputs_of(model, dense, rows)
    ridge = Ridge(alpha=RIDGE * float(states.var()) * len(states)).fit(states, wanted)
    with torch.no_grad():
        dense.weight.copy_(torch.from_numpy(ridge.coef_))
        dense.bias.copy_(torch.from_numpy(ridge.intercept_))
    if pooling.mode != "cls":
        _train(model, reading, rows, _activated(model, reading, rows, wanted), seed)


def _vectors(model: Any, rows: Rows, pooling: Pooling) -> Vectors:
    """Return the encoder's own vectors of all rows at unit length (rows, width)."""
    found: list[Any] = [None] * len(rows.encoded.lengths)
    for indices in batches_by_length(rows.encoded.lengths):
        batch = rows.collate(indices.tolist())
        output = _run(model.base_model, batch)
        mask = batch["attention_mask"].to(device())
        pooled = pool(output.last_hidden_state, mask, pooling._replace(normalize=True))
        for index, value in zip(indices, pooled.cpu().numpy(), strict=True):
            found[index] = value
    return np.stack(found)


def _wanted(vectors: Vectors, shift: float) -> Vectors:
    """Return what the dense layer is to say (rows, width)."""
    centred = vectors - vectors.mean(axis=0)
    size = float(np.sqrt(np.square(centred).mean())) or 1.0
    return np.asarray(shift + SPREAD * centred / size, dtype=np.float32)


def _activated(model: Any, reading: Reading, rows: Rows, values: Vectors) -> Vectors:
    """Return what the last layer is given where the dense layer says ``values`` (rows, width), whatever it reads."""
    shortest, found = int(rows.encoded.lengths.argmin()), []
    for start in range(0, len(values), ALIGN_ROWS):
        said = torch.from_numpy(values[start : start + ALIGN_ROWS]).to(device())
        hooks = [
            reading.dense.register_forward_hook(lambda _module, _given, _out, said=said: said),  # type: ignore[union-attr]
            reading.last.register_forward_pre_hook(lambda _module, given: found.append(given[0].float().cpu().numpy())),
        ]
        _run(model, rows.collate([shortest] * len(said)))
        for hook in hooks:
            hook.remove()
    return np.concatenate(found)


def _train(model: Any, reading: Reading, rows: Rows, wanted: Vectors, seed: int) -> None:
    """Train the dense layer and the top layers until the last one is given ``wanted`` (rows, width)."""
    assert reading.dense is not None
    layers = {name: int(found[1]) for name, _ in model.named_parameters() if (found := LAYER.search(name))}
    top = {name for name, layer in layers.items() if layer > max(layers.values()) - TOP_LAYERS}
    trained = list(reading.dense.parameters()) + [each for name, each in model.named_parameters() if name in top]
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    said: list[Tensor] = []
    hook = reading.last.register_forward_pre_hook(lambda _module, given: said.append(given[0].float()))
    optimizer = torch.optim.AdamW(trained, lr=ALIGN_RATE, weight_decay=0.0)
    for step, chosen in enumerate(_order(rows.encoded, seed)):
        for group in optimizer.param_groups:
            group["lr"] = ALIGN_RATE * min(1.0, (step + 1) / ALIGN_WARMUP) * (1 - step / ALIGN_STEPS)
        _run(model, rows.collate(chosen), is_trained=True)
        ours, theirs = said.pop(), torch.from_numpy(wanted[chosen]).to(device())  # (batch, width) each
        optimizer.zero_grad(set_to_none=True)
        loss = (ours - theirs).square().mean() / SPREAD**2
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    hook.remove()
    model.requires_grad_(True)
    model.zero_grad(set_to_none=True)


def _order(encoded: EncodedRows, seed: int) -> list[list[int]]:
    """Return the rows of every step, texts of similar length together."""
    batches: list[list[int]] = []
    sampler = LengthSampler(encoded.lengths, ALIGN_ROWS, seed)
    while len(batches) < ALIGN_STEPS:
        batches += sampler.batches()
        sampler.set_epoch(sampler.epoch + 1)
    return batches[:ALIGN_STEPS]


def _run(model: Any, batch: dict[str, Tensor], is_trained: bool = False) -> Any:
    """Return a model's output on a batch, in bfloat16 where that is fast."""
    autocast = torch.autocast(device().type, dtype=torch.bfloat16, enabled=has_fast_bfloat16())
    with torch.set_grad_enabled(is_trained), autocast:
        return model(**{name: tensor.to(device()) for name, tensor in batch.items()})

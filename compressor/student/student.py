"""The student: a plain Hugging Face model of the chosen shape that starts as a part of its teacher.

Layers are picked at even depth; inside a layer heads and FFN units are kept by importance; a narrower residual stream
keeps *coordinates* by importance (a rotation would not commute with LayerNorm's gains and mean removal). What the
dropped coordinates, heads and units contributed on average goes into the biases, and every LayerNorm is rescaled by
the ratio of the spread over all coordinates to the spread over the kept ones, both measured on training text. At the
teacher's own width and depth every tensor is copied as it is and only the embeddings change, through the vocabulary
map. ``inherit.json`` lists the origin of every tensor.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from compressor.models.families import Family, config_numbers, family_of
from compressor.models.slots import PER_LAYER, ROLE_AXES, Axis, Slot, find_slots, pick_layers, prefix_of
from compressor.models.teacher import TeacherInfo, auto_class_of, read_config
from compressor.refused import Refused
from compressor.student.activations import Activations
from compressor.student.copied import NEW, Index, TensorMap
from compressor.student.small import new_small
from exporters.pooling import Pooling, write_pooling
from exporters.shape import Shape
from exporters.small.shape import SmallShape
from exporters.weights import open_model
from vocab.mapping import VocabMap

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Kept(NamedTuple):
    """Which parts of the teacher the student keeps; indices into the teacher's axes."""

    layers: Index  # (student layers,)
    coordinates: Index  # (student hidden,)
    inner: list[
        Index
    ]  # per student layer: attention dimensions, head by head (student hidden,), NEW where there is none
    units: list[Index]  # per student layer: FFN units (student ffn,)


def build_student(
    info: TeacherInfo,
    teacher: "PreTrainedModel",
    shape: Shape,
    vocab_map: VocabMap | None,
    activations: Activations | None,
    seed: int,
    init: Literal["teacher", "embeddings", "random"] = "teacher",
    start_layers: Literal["even", "first"] = "even",
) -> tuple["PreTrainedModel", dict[str, object]]:
    """Return the initial student and the origin of each of its tensors.

    Args:
        info: what the teacher's files say.
        teacher: its frozen model.
        shape: the student's shape.
        vocab_map: student tokens as teacher tokens; ``None`` keeps the teacher's vocabulary.
        activations: what the teacher does on training rows; None for "random", which takes nothing of it.
        seed: for the values without a source.
        init: "teacher", parts of it; "embeddings", only its tables, mapped; "random", nothing of it.
        start_layers: which of the teacher's layers: at even depth, or the first ones.
    """
    family = info.family
    _check_shape(info.shape, shape)
    student = new_model(info, shape, seed)
    if init == "random":
        return student.eval(), {name: {"how": "new"} for name in sorted(student.state_dict())}
    assert activations is not None, init
    kept = choose_parts(info.shape, shape, activations, start_layers)
    maps = make_maps(family, info.shape, shape, kept, vocab_map, activations, teacher.state_dict(), student)
    if init == "embeddings":
        maps = {name: tensor_map for name, tensor_map in maps.items() if "embeddings." in name}
    teacher_state = dict(teacher.state_dict())
    state = student.state_dict()
    unmapped = sorted(set(state) - set(maps))
    if unmapped and init == "teacher":
        raise AssertionError(f"student tensors without an origin: {unmapped}")
    folded = {name: tensor_map.fold(teacher_state, state[name]) for name, tensor_map in maps.items()}
    student.load_state_dict({**state, **folded})
    return student.eval(), {name: maps[name].describe() if name in maps else {"how": "new"} for name in sorted(state)}


def load_student(info: TeacherInfo, folder: Path) -> "PreTrainedModel":
    """Return the student in ``folder`` in float32."""
    family = family_of(str(read_config(folder)["model_type"]), for_export=True)
    auto_class, extra = auto_class_of(info.answers, family)
    model: PreTrainedModel
    model, _ = open_model(auto_class, folder, where="student", is_encoder=not info.answers.has_head, **extra)
    return model


def new_model(info: TeacherInfo, shape: Shape, seed: int) -> "PreTrainedModel":
    """Return a model of ``shape`` with fresh weights, drawn from ``seed`` without touching the global generator."""
    from transformers import AutoConfig

    if isinstance(shape, SmallShape):
        return new_small(info, shape, seed)
    numbers = config_numbers(info.config, shape)
    kind = numbers.pop("model_type")
    auto_class, extra = auto_class_of(info.answers, family_of(kind))  # registers what AutoConfig is asked for
    drop = ("architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "auto_map")
    config = AutoConfig.for_model(kind, **{key: value for key, value in numbers.items() if key not in drop})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = auto_class.from_config(config, **extra)
    return model.float().eval()


def choose_parts(
    teacher: Shape, student: Shape, activations: Activations, start_layers: Literal["even", "first"] = "even"
) -> Kept:
    """Return the parts to keep: layers at even depth or the first, the rest by importance, ties to the lower index."""
    picked = pick_layers(teacher.layers, student.layers) if start_layers == "even" else range(student.layers)
    layers = np.array(picked, dtype=np.int64)
    coordinates = _best(activations.coordinates, student.hidden)
    inner = [_inner(teacher, student, activations.inner[layer]) for layer in layers]
    units = [_best(activations.units[layer], student.ffn) for layer in layers]
    return Kept(layers, coordinates, inner, units)


def _check_shape(teacher: Shape, student: Shape) -> None:
    for name in ("hidden", "layers", "ffn"):
        if getattr(student, name) > getattr(teacher, name):
            raise Refused(
                f"student: {name}={getattr(student, name)} is more than the teacher's {getattr(teacher, name)}. "
                f"Use --{name} {getattr(teacher, name)} or less."
            )


def _best(importance: npt.NDArray[np.float64], n_kept: int) -> Index:
    order = np.argsort(-importance, kind="stable")[:n_kept]
    chosen: Index = np.sort(order).astype(np.int64)
    if n_kept > len(importance):
        chosen = np.concatenate([chosen, np.full(n_kept - len(importance), NEW, dtype=np.int64)])
    return chosen


def _inner(teacher: Shape, student: Shape, importance: npt.NDArray[np.float64]) -> Index:
    """Choose the heads that matter most and, when heads get narrower, the dimensions inside them that do."""
    head_size, kept_size = teacher.hidden // teacher.heads, student.hidden // student.heads
    by_head = importance.reshape(teacher.heads, head_size)
    heads = _best(by_head.sum(axis=1), student.heads)
    parts = []
    for head in heads:
        if head == NEW:
            parts.append(np.full(kept_size, NEW, dtype=np.int64))
            continue
        inside = _best(by_head[head], kept_size)
        parts.append(np.where(inside == NEW, NEW, inside + head * head_size))
    return np.concatenate(parts)


def make_maps(
    family: Family,
    teacher: Shape,
    student: Shape,
    kept: Kept,
    vocab_map: VocabMap | None,
    activations: Activations,
    teacher_state: dict[str, torch.Tensor],
    student_model: "PreTrainedModel",
) -> dict[str, TensorMap]:
    """Return the map of every student tensor."""
    ours, theirs = (
        {name: tuple(tensor.shape) for name, tensor in state.items()}
        for state in (student_model.state_dict(), teacher_state)
    )
    builder = _MapBuilder(teacher, student, kept, activations, teacher_state, prefix_of(family, theirs))
    slots = find_slots(family, ours, theirs, [(int(layer),) for layer in kept.layers])
    return {slot.name: builder.map_of(slot, vocab_map) for slot in slots}


class _MapBuilder:
    """Makes the maps of one student; the state is what every map needs to look up."""

    def __init__(
        self,
        teacher: Shape,
        student: Shape,
        kept: Kept,
        activations: Activations,
        state: dict[str, torch.Tensor],
        prefix: str,
    ) -> None:
        self.teacher, self.student, self.kept = teacher, student, kept
        self.activations, self.state, self.prefix = activations, state, prefix
        self.is_narrower = student.hidden < teacher.hidden

    def map_of(self, slot: Slot, vocab_map: VocabMap | None) -> TensorMap:
        """Return the map of one tensor: kept rows and columns, and what makes up for the others."""
        source = slot.sources[0]
        kept = [self._kept(axis) for axis in slot.axes]
        rows, columns = kept[0], kept[1] if len(kept) > 1 else None
        if slot.role == "table":
            return self._table(slot, columns, vocab_map)
        if slot.is_norm and slot.axes[0].along == "residual" and self.is_narrower:
            return self._norm(slot, source)
        if slot.role.startswith("head"):
            return TensorMap(source, rows=rows, columns=columns, reason="head")
        if slot.layer < 0 or slot.is_norm:
            return TensorMap(source, rows=rows, columns=columns)
        return self._linear(slot, source)

    def _kept(self, axis: Axis) -> Index | None:
        """Return which of the teacher's indices the student has along an axis; ``None`` for all of them."""
        if axis.along in ("residual", "head"):
            return self.kept.coordinates if self.is_narrower else None
        if axis.along not in PER_LAYER:
            return None
        chosen = (self.kept.inner if axis.along == "inner" else self.kept.units)[axis.layer]
        n_teacher = self.teacher.hidden if axis.along == "inner" else self.teacher.ffn
        return None if np.array_equal(chosen, np.arange(n_teacher)) else chosen

    def _table(self, slot: Slot, columns: Index | None, vocab_map: VocabMap | None) -> TensorMap:
        if slot.name.endswith("word_embeddings.weight") and vocab_map is not None:
            mixture = (vocab_map.indptr, vocab_map.indices, vocab_map.weights)
            return TensorMap(slot.sources[0], columns=columns, mixture=mixture, reason="vocabulary map")
        is_positions = slot.name.endswith("position_embeddings.weight")
        if is_positions and self.student.positions < self.teacher.positions:
            rows = np.arange(self.student.positions, dtype=np.int64)
            return TensorMap(slot.sources[0], rows=rows, columns=columns, reason="first positions")
        return TensorMap(slot.sources[0], columns=columns)

    def _linear(self, slot: Slot, source: str) -> TensorMap:
        """Keep rows and columns; what the dropped inputs gave on average goes into the bias."""
        module = source.rpartition(".")[0]
        weight = self.state[f"{module}.weight"]
        rows, columns = (self._kept(Axis(width, slot.layer)) for width in ROLE_AXES[slot.role])
        factor = temperature(self.teacher, self.student) if slot.role == "query" else 1.0
        n_rows = len(rows) if rows is not None else weight.shape[0]
        scale = None if factor == 1.0 else np.full(n_rows, factor)
        reason = "copied" if rows is None and columns is None and scale is None else "kept by importance"
        if not slot.is_bias:
            return TensorMap(source, rows=rows, columns=columns, scale=scale, reason=reason)
        shift = None
        if columns is not None:
            values = weight.double().numpy()  # (outputs, inputs)
            dropped = np.setdiff1d(np.arange(values.shape[1]), columns)
            given = values[:, dropped] @ self.activations.means[module.removeprefix(self.prefix)][dropped]
            shift = (given if rows is None else np.where(rows == NEW, 0.0, given[rows])) * factor
        return TensorMap(source, rows=rows, scale=scale, shift=shift, reason=reason)

    def _norm(self, slot: Slot, source: str) -> TensorMap:
        """Keep the gains; over fewer coordinates mean and spread differ, and gain and offset make up for it."""
        module = source.rpartition(".")[0]
        ratio, offset = self.activations.norm_correction(module.removeprefix(self.prefix), self.kept.coordinates)
        gain = self.state[f"{module}.weight"].double().numpy()[self.kept.coordinates]
        if slot.is_bias:
            return TensorMap(source, rows=self.kept.coordinates, shift=gain * offset, reason="rescaled")
        scale = np.full(len(gain), ratio)
        return TensorMap(source, rows=self.kept.coordinates, scale=scale, reason="rescaled")


def temperature(teacher: Shape, student: Shape) -> float:
    """Return the factor of the queries: scores are divided by the root of the head size, narrower heads by less."""
    return float(np.sqrt((student.hidden / student.heads) / (teacher.hidden / teacher.heads)))


def save_student(
    student: "PreTrainedModel",
    origin: dict[str, object] | None,
    info: TeacherInfo,
    folder: Path,
    max_length: int,
    pooling: Pooling | None,
) -> None:
    """Write a checkpoint that transformers and, for sentence encoders, sentence-transformers open."""
    student.save_pretrained(folder)
    if pooling is not None:
        write_pooling(folder, pooling, int(student.config.hidden_size), max_length)
    if origin is not None:
        text = json.dumps({"version": 1, "teacher": info.name, "tensors": origin}, indent=2, sort_keys=True)
        (folder / "inherit.json").write_text(text + "\n", encoding="utf-8")

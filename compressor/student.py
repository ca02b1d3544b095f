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

from compressor.families import Family, config_numbers, family_of
from compressor.importance import Activations, measure_activations
from compressor.maps import NEW, Index, TensorMap
from compressor.teacher import TeacherInfo
from exporters.budget import Shape
from exporters.pooling import write_pooling
from vocab.mapping import VocabMap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from compressor.batches import EncodedRows


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
    sample: "EncodedRows",
    seed: int,
    init: Literal["teacher", "embeddings", "random"] = "teacher",
) -> tuple["PreTrainedModel", dict[str, object]]:
    """Return the initial student and the origin of each of its tensors.

    Args:
        info: what the teacher's files say.
        teacher: its frozen model.
        shape: the student's shape.
        vocab_map: student tokens as teacher tokens; ``None`` keeps the teacher's vocabulary.
        sample: training rows in the *teacher's* tokens, to measure importance on.
        seed: for the values without a source.
        init: "teacher", parts of it; "embeddings", only its tables, mapped; "random", nothing of it.
    """
    family = family_of(info.config["model_type"])
    _check_shape(info.shape, shape)
    student = new_model(info, shape, seed)
    if init == "random":
        return student.eval(), {name: {"how": "new"} for name in sorted(student.state_dict())}
    activations = measure_activations(teacher, family, sample)
    kept = choose_parts(info.shape, shape, activations)
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


def new_model(info: TeacherInfo, shape: Shape, seed: int) -> "PreTrainedModel":
    """Return a model of ``shape`` with fresh weights, drawn from ``seed`` without touching the global generator."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    numbers = config_numbers(info.config, shape)
    kind = numbers.pop("model_type")
    drop = ("architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "auto_map")
    config = AutoConfig.for_model(kind, **{key: value for key, value in numbers.items() if key not in drop})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if info.task == "feature-extraction":
            model = AutoModel.from_config(config, **family_of(kind).without_pooler)
        else:
            model = AutoModelForSequenceClassification.from_config(config)
    return model.float().eval()


def choose_parts(teacher: Shape, student: Shape, activations: Activations) -> Kept:
    """Return the parts to keep: layers at even depth, the rest by importance, ties to the lower index."""
    layers = np.unique(np.round(np.linspace(0, teacher.layers - 1, student.layers)).astype(np.int64))
    coordinates = _best(activations.coordinates, student.hidden)
    inner = [_inner(teacher, student, activations.inner[layer]) for layer in layers]
    units = [_best(activations.units[layer], student.ffn) for layer in layers]
    return Kept(layers, coordinates, inner, units)


def _check_shape(teacher: Shape, student: Shape) -> None:
    for name in ("hidden", "layers", "ffn"):
        if getattr(student, name) > getattr(teacher, name):
            raise ValueError(
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
    names = list(student_model.state_dict())
    prefix = f"{family.prefix}." if any(name.startswith(f"{family.prefix}.") for name in names) else ""
    source_prefix = f"{family.prefix}." if any(name.startswith(f"{family.prefix}.") for name in teacher_state) else ""
    builder = _MapBuilder(family, teacher, student, kept, activations, teacher_state, prefix, source_prefix)
    builder.add_embeddings(vocab_map, names)
    for layer in range(student.layers):
        builder.add_layer(layer)
    builder.add_head([name for name in names if name not in builder.maps])
    return builder.maps


class _MapBuilder:
    """Collects the maps of one student; the state is what every map needs to look up."""

    def __init__(
        self,
        family: Family,
        teacher: Shape,
        student: Shape,
        kept: Kept,
        activations: Activations,
        state: dict[str, torch.Tensor],
        prefix: str,
        source_prefix: str,
    ) -> None:
        self.family, self.teacher, self.student, self.kept = family, teacher, student, kept
        self.activations, self.state, self.prefix, self.source_prefix = activations, state, prefix, source_prefix
        self.is_narrower = student.hidden < teacher.hidden
        self.coordinates = kept.coordinates if self.is_narrower else None
        self.maps: dict[str, TensorMap] = {}

    def add_embeddings(self, vocab_map: VocabMap | None, names: list[str]) -> None:
        """Map the tables, their LayerNorm and ELECTRA's projection (its tables keep their width)."""
        columns = None if self.teacher.embedding_size else self.coordinates
        for table in self.family.embeddings:
            name = f"embeddings.{table}.weight"
            if table == "word_embeddings" and vocab_map is not None:
                mixture = (vocab_map.indptr, vocab_map.indices, vocab_map.weights)
                self._add(name, columns=columns, mixture=mixture, reason="vocabulary map")
            else:
                is_cut = table == "position_embeddings" and self.student.positions < self.teacher.positions
                rows = np.arange(self.student.positions, dtype=np.int64) if is_cut else None
                self._add(name, rows=rows, columns=columns, reason="first positions" if is_cut else "copied")
        if self.teacher.embedding_size:
            self._copy_norm("embeddings.LayerNorm")
            if f"{self.prefix}embeddings_project.weight" in names:
                self._add("embeddings_project.weight", rows=self.coordinates)
                self._add("embeddings_project.bias", rows=self.coordinates)
        else:
            self._add_norm("embeddings.LayerNorm", "embeddings.LayerNorm")

    def add_layer(self, layer: int) -> None:
        """Map the tensors of student layer ``layer``."""
        source = int(self.kept.layers[layer])
        inner, units = self.kept.inner[layer], self.kept.units[layer]
        inner_or_all = None if np.array_equal(inner, np.arange(self.teacher.hidden)) else inner
        units_or_all = None if np.array_equal(units, np.arange(self.teacher.ffn)) else units
        # Scores are divided by the root of the head size: a narrower head would sharpen them without this factor.
        head_ratio = np.sqrt((self.student.hidden / self.student.heads) / (self.teacher.hidden / self.teacher.heads))
        for role in ("query", "key", "value"):
            factor = float(head_ratio) if role == "query" else 1.0
            self._add_linear(layer, source, role, inner_or_all, self.coordinates, factor)
        self._add_linear(layer, source, "attention_out", self.coordinates, inner_or_all)
        self._add_norm(self.family.module(layer, "attention_norm"), self.family.module(source, "attention_norm"))
        self._add_linear(layer, source, "ffn_in", units_or_all, self.coordinates)
        self._add_linear(layer, source, "ffn_out", self.coordinates, units_or_all)
        self._add_norm(self.family.module(layer, "ffn_norm"), self.family.module(source, "ffn_norm"))

    def add_head(self, names: list[str]) -> None:
        """Map what is left: pooler and classifier, whose axes of the teacher's width keep the same coordinates."""
        for name in names:
            source = self.source_prefix + name.removeprefix(self.prefix) if name.startswith(self.prefix) else name
            tensor = self.state[source]
            is_wide = [size == self.teacher.hidden and self.is_narrower for size in tensor.shape]
            rows = self.coordinates if is_wide[0] else None
            columns = self.coordinates if tensor.dim() == 2 and is_wide[1] else None
            self.maps[name] = TensorMap(source, rows=rows, columns=columns, reason="head")

    def _add(self, name: str, source: str | None = None, **parts: object) -> None:
        parts.setdefault("reason", "copied")
        self.maps[self.prefix + name] = TensorMap(self.source_prefix + (source or name), **parts)  # type: ignore[arg-type]

    def _copy_norm(self, name: str) -> None:
        self._add(f"{name}.weight")
        self._add(f"{name}.bias")

    def _add_linear(
        self, layer: int, source: int, role: str, rows: Index | None, columns: Index | None, factor: float = 1.0
    ) -> None:
        """Keep rows and columns; what the dropped inputs gave on average goes into the bias."""
        path, source_path = self.family.module(layer, role), self.family.module(source, role)
        n_rows = len(rows) if rows is not None else self.state[f"{self.source_prefix}{source_path}.weight"].shape[0]
        scale = None if factor == 1.0 else np.full(n_rows, factor)
        reason = "copied" if rows is None and columns is None and scale is None else "kept by importance"
        self._add(f"{path}.weight", f"{source_path}.weight", rows=rows, columns=columns, scale=scale, reason=reason)
        shift = None
        if columns is not None:
            weight = self.state[f"{self.source_prefix}{source_path}.weight"].double().numpy()  # (outputs, inputs)
            dropped = np.setdiff1d(np.arange(weight.shape[1]), columns)
            given = weight[:, dropped] @ self.activations.means[source_path][dropped]
            shift = (given if rows is None else np.where(rows == NEW, 0.0, given[rows])) * factor
        self._add(f"{path}.bias", f"{source_path}.bias", rows=rows, scale=scale, shift=shift, reason=reason)

    def _add_norm(self, name: str, source: str) -> None:
        """Keep the gains; over fewer coordinates mean and spread differ, and gain and offset make up for it."""
        if not self.is_narrower:
            self._add(f"{name}.weight", f"{source}.weight")
            self._add(f"{name}.bias", f"{source}.bias")
            return
        ratio, offset = self.activations.norm_correction(source, self.kept.coordinates)
        gain = self.state[f"{self.source_prefix}{source}.weight"].double().numpy()[self.kept.coordinates]
        scale = np.full(len(gain), ratio)
        self._add(f"{name}.weight", f"{source}.weight", rows=self.coordinates, scale=scale, reason="rescaled")
        self._add(f"{name}.bias", f"{source}.bias", rows=self.coordinates, shift=gain * offset, reason="rescaled")


def save_student(
    student: "PreTrainedModel", origin: dict[str, object] | None, info: TeacherInfo, folder: Path, max_length: int
) -> None:
    """Write a checkpoint that transformers and, for sentence encoders, sentence-transformers open."""
    student.save_pretrained(folder)
    if info.pooling is not None:
        write_pooling(folder, info.pooling, int(student.config.hidden_size), max_length)
    if origin is not None:
        text = json.dumps({"version": 1, "teacher": info.name, "tensors": origin}, indent=2, sort_keys=True)
        (folder / "inherit.json").write_text(text + "\n", encoding="utf-8")

"""Which teacher tensors a student's tensor comes from, and what each of its axes runs over.

Every way of making a student out of a teacher asks the same questions of a tensor: which teacher layers stand behind
it, which of its axes are widths that shrink, whether it writes along an axis or reads from it, and which tensors share
that axis. The answers are one list of :class:`Slot`, made from the roles in ``compressor.models.families``; slicing,
shared projections, Weight Squeezing, Weight Distillation and Weight-Inherited Distillation all go by it.

Axes: "residual" (one for the whole encoder), "inner" and "ffn" (attention dimensions and FFN units, one per layer),
"head" (between the dense layer of a head and its last), "embedding" (ELECTRA's narrow tables). Tokens, positions,
segments and classes are no widths and have no axis. Another role, such as the key of a decoder's cross-attention, is
one line in ``ROLE_AXES`` with an axis of its own ("memory", the encoder's width). No torch here.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from compressor.models.families import Family
from compressor.refused import Refused

Shape = tuple[int, ...]

PER_LAYER = ("inner", "ffn")
# (rows, columns): what a linear module writes and what it reads. A LayerNorm only has rows.
ROLE_AXES: Mapping[str, tuple[str, ...]] = {
    "query": ("inner", "residual"),
    "key": ("inner", "residual"),
    "value": ("inner", "residual"),
    "attention_out": ("residual", "inner"),
    "attention_norm": ("residual",),
    "ffn_in": ("ffn", "residual"),
    "ffn_out": ("residual", "ffn"),
    "ffn_norm": ("residual",),
    "embedding_norm": ("residual",),
    "embedding_project": ("residual", "embedding"),
    "table": ("", "residual"),
    "head_dense": ("head", "residual"),
    "head_norm": ("head",),
    "head_out": ("", "head"),
}
HEAD_MODULES: Mapping[str, str] = {
    "pooler.dense": "head_dense",
    "pre_classifier": "head_dense",
    "classifier.dense": "head_dense",
    "transform.dense": "head_dense",
    "lm_head.dense": "head_dense",
    "vocab_transform": "head_dense",
    "transform.LayerNorm": "head_norm",
    "lm_head.layer_norm": "head_norm",
    "vocab_layer_norm": "head_norm",
    "out_proj": "head_out",
    "classifier": "head_out",
    "decoder": "head_out",
    "vocab_projector": "head_out",
    "predictions": "head_out",  # cls.predictions.bias
    "lm_head": "head_out",  # lm_head.bias
}


class Axis(NamedTuple):
    """A width that one axis of a tensor runs over."""

    along: str  # "residual", "inner", "ffn", "head", "embedding"; "" for what is no width
    layer: int = -1  # of the student, for the kinds that every layer has one of
    reads: bool = False  # whether the tensor reads along it (columns of a matrix) or writes

    @property
    def group(self) -> str:
        """The name that all tensors along the same width share, such as ``ffn.3``; "" for what is no width."""
        return f"{self.along}.{self.layer}" if self.layer >= 0 and self.along else self.along


class Slot(NamedTuple):
    """One tensor of a student and where it comes from."""

    name: str
    role: str
    layer: int  # of the student, -1 outside the layers
    sources: tuple[str, ...]  # the teacher's tensors: one, or those of adjacent layers in their order
    axes: tuple[Axis, ...]  # one per axis of the tensor

    @property
    def is_bias(self) -> bool:
        """Whether it is the vector of a linear module or the offset of a LayerNorm."""
        return self.name.endswith(".bias")

    @property
    def is_norm(self) -> bool:
        """Whether it belongs to a LayerNorm."""
        return self.role.endswith("norm")


def pick_layers(n_teacher: int, n_student: int) -> list[int]:
    """Return one teacher layer per student layer: round((i + 1) n_teacher / n_student) - 1, the last always among them.

    Raises:
        ValueError: if the student is deeper.
    """
    _check_depth(n_teacher, n_student)
    return [(2 * (index + 1) * n_teacher + n_student) // (2 * n_student) - 1 for index in range(n_student)]


def group_layers(n_teacher: int, n_student: int) -> list[tuple[int, ...]]:
    """Return adjacent, disjoint groups of teacher layers that cover all of them, as even as they can be (2009.09152).

    Raises:
        ValueError: if the student is deeper.
    """
    _check_depth(n_teacher, n_student)
    ends = [0, *(index + 1 for index in pick_layers(n_teacher, n_student))]
    return [tuple(range(start, end)) for start, end in pairwise(ends)]


def _check_depth(n_teacher: int, n_student: int) -> None:
    if not 0 < n_student <= n_teacher:
        raise Refused(
            f"student: layers={n_student}, expected 1 to the teacher's {n_teacher}. Use --layers {n_teacher} or less."
        )


def find_slots(
    family: Family, ours: Mapping[str, Shape], theirs: Mapping[str, Shape], groups: Sequence[Sequence[int]]
) -> list[Slot]:
    """Return the slot of every tensor of the student.

    Args:
        family: of both models.
        ours: shapes of the student's tensors by name, with or without the family's prefix.
        theirs: shapes of the teacher's.
        groups: the teacher's layers behind each student layer.

    Raises:
        ValueError: naming a tensor without a counterpart, or of another number of axes.
    """
    our_prefix, their_prefix = (prefix_of(family, names) for names in (ours, theirs))
    paths = {f"{family.layer.format(layer)}.": layer for layer in range(len(groups))}
    is_narrow = any("embeddings_project." in name for name in ours)
    found = []
    for name, shape in ours.items():
        inner = name.removeprefix(our_prefix)
        layer = next((number for path, number in paths.items() if inner.startswith(path)), -1)
        if layer >= 0:
            rest = inner.removeprefix(f"{family.layer.format(layer)}.")
            sources = tuple(f"{their_prefix}{family.layer.format(each)}.{rest}" for each in groups[layer])
        else:
            is_inside = name.startswith(our_prefix)
            sources = (their_prefix + inner if is_inside else name,)
        for source in sources:
            if source not in theirs or len(theirs[source]) != len(shape):
                raise Refused(
                    f"student: its tensor {name} {shape} has no counterpart {source} in the teacher. Use a teacher and "
                    "a student of the same architecture and task."
                )
        role = _role(family, inner, layer)
        found.append(Slot(name, role, layer, sources, _axes(role, layer, len(shape), is_narrow)))
    return found


def prefix_of(family: Family, names: Mapping[str, object]) -> str:
    """Return what stands before the encoder's tensors: nothing in a bare encoder."""
    return "" if any(name.startswith("embeddings.") for name in names) else f"{family.prefix}."


def _role(family: Family, inner: str, layer: int) -> str:
    module = inner.rpartition(".")[0]
    if layer >= 0:
        start = f"{family.layer.format(layer)}."
        return next(role for role, path in family.roles.items() if module == start + path)
    if module == "embeddings.LayerNorm":
        return "embedding_norm"
    if module.startswith("embeddings."):
        return "table"
    if module == "embeddings_project":
        return "embedding_project"
    fitting = [role for path, role in HEAD_MODULES.items() if module == path or module.endswith(f".{path}")]
    if not fitting:
        raise Refused(f"student: the role of its tensor {inner} is not known. Use a model of a supported task.")
    return fitting[0]


def _axes(role: str, layer: int, n_axes: int, is_narrow: bool) -> tuple[Axis, ...]:
    widths = ROLE_AXES[role][:n_axes]
    if is_narrow and role in ("table", "embedding_norm"):
        widths = tuple("embedding" if width == "residual" else width for width in widths)
    return tuple(
        Axis(width, layer if width in PER_LAYER else -1, reads=position == 1 and role != "table")
        for position, width in enumerate(widths)
    )

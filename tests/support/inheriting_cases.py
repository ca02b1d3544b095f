"""Tiny teachers and students for the methods that make weights out of weights, beside those of ``method_cases``."""

import copy
import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compressor.batches.encoded import Collator, encode_rows
from compressor.batches.outputs import takes_segments
from compressor.models.families import family_of, shape_of
from compressor.models.slots import Axis, Slot, find_slots
from compressor.student.activations import measure_activations
from compressor.student.copied import mapped_table
from compressor.student.student import choose_parts, make_maps
from compressor.training.contract import Context, model_inputs
from compressor.training.registry import load_method
from exporters.shape import Shape
from tests.support.method_cases import (
    LABELS,
    TEACHER_HIDDEN,
    TEACHER_LAYERS,
    context_of,
    encoded,
    make_case,
    table,
    tiny_config,
    tiny_model,
    tokenizers,
)

FAMILIES = ("bert", "roberta", "distilbert")
# Of a student at the teacher's own shape, and of one that is smaller in every way.
FULL: dict[str, Any] = {"hidden": TEACHER_HIDDEN, "layers": TEACHER_LAYERS}
SMALL: dict[str, Any] = {"hidden": 16, "layers": 2}
ALL_MAPPED = {"map_biases": True, "map_layernorm": True}  # options of weight_squeezing


def inheriting_context(
    kind: str = "classification",
    *,
    model_type: str = "bert",
    hidden: int = TEACHER_HIDDEN,
    layers: int = TEACHER_LAYERS,
    is_vocabulary_new: bool = True,
    inherits: bool = False,
) -> Context:
    """Return a context with activations; a student that ``inherits`` starts as slicing makes it, else at random.

    At the teacher's own shape an inheriting student is the teacher, apart from the table of a new vocabulary.
    """
    context = context_of(kind, hidden=hidden, model_type=model_type, layers=layers)
    if not is_vocabulary_new:
        config = tiny_config(model_type, tokenizers()[0].get_vocab_size(), hidden, layers, max(1, len(LABELS[kind])))
        student = tiny_model(config, kind, seed=1).train()
        context = dataclasses.replace(context, student=student, vocab_map=None)
    if inherits:
        inherit(context)
    return context


def shapes_in(context: Context) -> tuple[Shape, Shape]:
    """Return the shapes of teacher and student."""
    assert context.teacher is not None
    n_labels = 0 if context.spec.kind == "embedding" else int(context.student.config.num_labels)
    theirs, ours = (shape_of(model.config.to_dict(), n_labels) for model in (context.teacher, context.student))
    return theirs, ours


def inherit(context: Context) -> None:
    """Make the student a part of its teacher, as the step before the first stage does."""
    assert context.teacher is not None and context.activations is not None
    theirs, ours = shapes_in(context)
    state, family = context.student.state_dict(), family_of(context.model_type)
    maps = make_maps(
        family, theirs, ours, choose_parts(theirs, ours, context.activations), context.vocab_map,
        context.activations, dict(context.teacher.state_dict()), context.student,
    )  # fmt: skip
    folded = {name: each.fold(dict(context.teacher.state_dict()), state[name]) for name, each in maps.items()}
    context.student.load_state_dict({**state, **folded})


def mapped_teacher(context: Context) -> PreTrainedModel:
    """Return the teacher as it reads the student's vocabulary: with its table replaced by the mapped one."""
    assert context.teacher is not None
    model = copy.deepcopy(context.teacher)
    if context.vocab_map is not None:
        embedding: Any = model.get_input_embeddings()
        embedding.weight = nn.Parameter(mapped_table(context.vocab_map, embedding.weight), requires_grad=False)
        embedding.num_embeddings = len(embedding.weight)
    return model.eval()


def objective_of(method: str, context: Context, options: dict[str, Any] | None = None) -> Any:  # an Inheriting
    """Return the method's objective; exact in float64, so in the teacher's coordinates unless others are asked for."""
    has_basis = any(each.name == "basis" for each in dataclasses.fields(load_method(method).options_class))
    exact = {"basis": "teacher"} if has_basis else {}
    return make_case(method, context, {**exact, **(options or {})}).objective


def inputs_of(context: Context, n_rows: int = 6) -> dict[str, Tensor]:
    """Return what a model reads of the first rows, in the student's tokens (which the teacher's ids cover too)."""
    return model_inputs(Collator(encoded()[1], 0, takes_segments(context.model_type))(range(n_rows)))


@torch.no_grad()
def outputs_of(model: nn.Module, batch: dict[str, Tensor], values: dict[str, Tensor] | None = None) -> Tensor:
    """Return the outputs on real tokens, flat, without dropout; ``values`` stand in for the model's own tensors."""
    was_training = model.training
    found = torch.func.functional_call(model.eval(), values or {}, kwargs=batch)
    model.train(was_training)
    if getattr(found, "logits", None) is not None:
        return found.logits.flatten()
    return found.last_hidden_state[batch["attention_mask"].bool()].flatten()


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((ours.detach() - theirs.detach()).abs().max())


def spoil(objective: Any) -> Any:  # an Inheriting
    """Return the objective after its student's own copies of what is mapped are lost: whatever reads them is seen."""
    mapped = {each.slot.name for each in objective.maps.maps if not each.gate}
    with torch.no_grad():
        for name, parameter in objective.inner.student.named_parameters():
            if name in mapped:
                parameter.fill_(float("nan"))
    return objective


class ExactLoss(nn.Module):
    """A loss without a cast to float32, unlike those of the methods: for comparisons in float64."""

    def __init__(self, student: PreTrainedModel) -> None:
        super().__init__()
        self.student = student

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return the mean square of the outputs around 1, over rows and classes."""
        return {"square": (self.student(**model_inputs(batch)).logits - 1).square().mean()}


def exactly(objective: Any) -> Any:  # an Inheriting
    """Return the objective in float64, with a loss that stays in it and without dropout."""
    objective.inner = ExactLoss(objective.inner.student.eval())
    return objective.double()


def widened_context(times: int = 4, hidden: int = 32, model_type: str = "bert") -> tuple[Context, PreTrainedModel]:
    """Return a context whose teacher is a small model in disguise, and that small model, of the student's shape.

    The teacher is ``times`` wider, its two heads too. Whatever the small model writes into a coordinate of the residual
    stream the teacher writes into ``times`` coordinates, so that mean and spread are the same, and reads from one of
    them; heads and FFN layers have ``times`` as many dimensions, of which all but the small model's are zero. Its
    scores are divided by a larger root, so its queries are larger. Both give the same outputs, and the parts that
    matter are exactly the small model's.
    """
    n_tokens, wide = tokenizers()[0].get_vocab_size(), times * hidden
    small = tiny_model(tiny_config(model_type, n_tokens, hidden, 2), seed=5)
    teacher = tiny_model(tiny_config(model_type, n_tokens, wide, 2), seed=6)
    ours, theirs = (
        {name: tuple(each.shape) for name, each in model.state_dict().items()} for model in (small, teacher)
    )
    family = family_of(model_type)
    kept, copies = _kept_parts(times, hidden)
    state = small.state_dict()
    teacher.load_state_dict(
        {
            slot.sources[0]: _widen(slot, state[slot.name], theirs[slot.sources[0]], kept, copies)
            * (times**0.5 if slot.role == "query" else 1.0)
            for slot in find_slots(family, ours, theirs, [(0,), (1,)])
        }
    )
    rows = encode_rows(tokenizers()[0], table(), 48)
    context = dataclasses.replace(
        context_of(model_type=model_type),
        student=tiny_model(tiny_config(model_type, n_tokens, hidden, 2), seed=1).train(),
        teacher=teacher.requires_grad_(False),
        teacher_hidden=wide,
        teacher_layers=(),
        teacher_first_layers=(),
        teacher_n_layers=2,
        vocab_map=None,
        activations=measure_activations(teacher, family, rows),
    )
    return context, small


def _kept_parts(times: int, hidden: int) -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return the kept places of each kind of axis, and for every residual coordinate whose copy it is."""
    rng, n_heads, wide = np.random.default_rng(0), 2, times * hidden
    residual = np.sort(rng.permutation(wide)[:hidden])
    copies = np.full(wide, -1)
    copies[residual] = np.arange(hidden)
    copies[copies < 0] = rng.permutation(np.repeat(np.arange(hidden), times - 1))
    head, wide_head = hidden // n_heads, wide // n_heads
    inner = np.concatenate([np.sort(rng.permutation(wide_head)[:head]) + n * wide_head for n in range(n_heads)])
    ffn = np.sort(rng.permutation(2 * wide)[: 2 * hidden])
    return {"residual": residual, "head": residual, "inner": inner, "ffn": ffn}, copies


def _widen(
    slot: Slot, value: Tensor, shape: tuple[int, ...], kept: dict[str, np.ndarray[Any, Any]], copies: Any
) -> Tensor:
    for position, axis in enumerate(slot.axes):
        value = _widen_axis(value, axis, position, shape[position], kept, copies)
    return value


def _widen_axis(
    value: Tensor, axis: Axis, position: int, n_wide: int, kept: dict[str, np.ndarray[Any, Any]], copies: Any
) -> Tensor:
    if not axis.along:
        return value
    if axis.along == "residual" and not axis.reads:
        return value.index_select(position, torch.from_numpy(copies))
    shape = [*value.shape]
    shape[position] = n_wide
    return torch.zeros(shape).index_copy(position, torch.from_numpy(kept[axis.along]), value)

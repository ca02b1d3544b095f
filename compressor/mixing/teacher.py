"""A teacher that reads two vocabularies at once: every piece is looked up in the table of the vocabulary that cut it.

The ids of a mixed sequence below ``n_student`` are the student's tokens, the others the teacher's, shifted by
``n_student`` (``vocab.mixing.mixed``). The student's table lies beside the teacher's own, at the teacher's width, or
narrower and brought up by a dense map P (1909.11687 v2: x = E_s[w] P). With nothing from the student in the input the
outputs are those of the teacher alone, bit for bit. The masked-language head has two softmaxes, one per vocabulary,
picked by the vocabulary that cut the masked word (v1, section 2.2): a label below ``n_student`` belongs to the first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.batches.outputs import takes_segments
from compressor.models.checkpoint import weight_files
from compressor.refused import Refused
from compressor.scoring.contract import Weights
from compressor.training.contract import Context, MethodOptions, Wants, check_choice, check_shares
from vocab.mapping import VocabMap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORE = -100
# Where checkpoints keep their masked-language head: dense, norm, bias of the softmax.
HEADS = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
    ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias"),
)


@dataclass(frozen=True)
class MixedOptions(MethodOptions):
    """Knobs of every method whose teacher reads two vocabularies."""

    method: ClassVar[str]  # whose they are
    objective: str = "task"  # or "mlm"
    mix: float = 0.5  # probability that a word of the teacher's input is cut by the student's vocabulary
    mix_ramp: float = 0.0  # share of the stage over which it rises from 0
    masked: float = 0.15  # share of the words that "mlm" hides
    teacher_learning_rate: float = 1e-5  # of the teacher's own tensors; 0 freezes them
    teacher_output: float = 1.0
    teacher_hidden: float = 1.0
    teacher_labels: float = 0.0
    temperature: float = 2.0
    layers: int = 2  # how many of the teacher's layers are cached and compared, evenly spaced, the last among them

    def __post_init__(self) -> None:
        check_choice(self.method, "objective", self.objective, ("task", "mlm"))
        check_shares(self.method, mix=self.mix, mix_ramp=self.mix_ramp, masked=self.masked)
        if self.objective == "mlm" and self.masked == 0:
            raise Refused(
                f"recipe: [[stage]] {self.method!r} option masked = 0, expected more, for objective = 'mlm' learns "
                "from hidden words. Use masked = 0.15."
            )

    def wants(self) -> Wants:
        """Return what a stage with this loss wants of the run."""
        is_task = self.objective == "task"
        n_layers = self.layers if is_task and self.teacher_hidden > 0 else 0
        return Wants(cache=is_task, word_layers=n_layers, labels=bool(self.teacher_labels), mask_token=not is_task)

    def teacher_weights(self) -> Weights:
        """Return by what factors the teacher holds on to what it said before."""
        output, labels, hidden = self.teacher_output, self.teacher_labels, self.teacher_hidden
        return Weights(output, labels, hidden, embedding=output, similarity=10 * output, temperature=self.temperature)


class MixedTeacher(nn.Module):
    """The teacher's model, fed with mixed ids."""

    def __init__(self, model: "PreTrainedModel", n_student: int) -> None:
        super().__init__()
        self.model, self.n_student = model, n_student
        self.has_segments = takes_segments(model.config.model_type)

    def forward(self, batch: dict[str, Tensor], table: Tensor, up: Tensor | None = None, **outputs: bool) -> Any:
        """Return the model's output on a mixed batch.

        Args:
            batch: ``mixed_ids``, ``mixed_mask``, ``mixed_segments`` (batch, tokens).
            table: the student's embeddings inside the teacher (student tokens, width).
            up: P (width, width of the teacher's table), if the two widths differ.
            **outputs: ``output_hidden_states``, ``output_attentions``.
        """
        ids = batch["mixed_ids"]
        is_student = ids < self.n_student
        own = self.model.get_input_embeddings()
        teacher_rows = own(torch.where(is_student, 0, ids - self.n_student))  # (batch, tokens, width)
        student_rows = F.embedding(torch.where(is_student, ids, 0), table)
        if up is not None:
            student_rows = student_rows @ up
        embeds = torch.where(is_student.unsqueeze(-1), student_rows.to(teacher_rows.dtype), teacher_rows)
        segments = {"token_type_ids": batch["mixed_segments"]} if self.has_segments else {}
        return self.model(inputs_embeds=embeds, attention_mask=batch["mixed_mask"], **segments, **outputs)


class MaskedHead(nn.Module):
    """A masked-language head whose softmax is tied to the embeddings: dense, activation, LayerNorm, table, bias."""

    def __init__(self, hidden: int, width: int, activation: str, epsilon: float, *sizes: int) -> None:
        """Build a fresh head.

        Args:
            hidden: width of the states.
            width: of the embedding tables.
            activation: transformers' name of it.
            epsilon: of the LayerNorm.
            *sizes: tokens of each vocabulary; one softmax each.
        """
        from transformers.activations import ACT2FN

        super().__init__()
        self.dense = nn.Linear(hidden, width)
        self.activation = ACT2FN[activation]
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)

    def logits(self, states: Tensor, table: Tensor, which: int = 0) -> Tensor:
        """Return (positions, tokens) from states (positions, hidden) over one vocabulary's table (tokens, width)."""
        return F.linear(self.norm(self.activation(self.dense(states))), table, self.biases[which])

    def loss(self, states: Tensor, labels: Tensor, *tables: Tensor) -> Tensor:
        """Return the mean cross-entropy over the masked positions.

        Args:
            states: (batch, tokens, hidden).
            labels: (batch, tokens), ``IGNORE`` where nothing is predicted; counted on from one vocabulary to the next,
                so that with two of them a label below the first's size is the first's.
            *tables: the embeddings of each vocabulary (tokens, width).
        """
        chosen = labels != IGNORE
        targets, kept = labels[chosen], states[chosen]  # (positions,), (positions, hidden)
        if not len(targets):
            return kept.float().sum()  # 0, and still a function of the states: a batch may have nothing to hide
        total, start = states.new_zeros((), dtype=torch.float32), 0
        for which, table in enumerate(tables):
            here = (targets >= start) & (targets < start + len(table))
            if here.any():
                logits = self.logits(kept[here], table, which)
                total = total + F.cross_entropy(logits.float(), targets[here] - start, reduction="sum")
            start += len(table)
        return total / len(targets)


def masked_head(model: "PreTrainedModel", checkpoint: Path | None, n_student: int) -> tuple[MaskedHead, bool]:
    """Return the teacher's two-softmax head (student's vocabulary first), and whether the checkpoint had one.

    A checkpoint without a head gets a fresh one, tied to its embeddings.
    """
    config, table = model.config, model.get_input_embeddings().weight
    epsilon = float(getattr(config, "layer_norm_eps", 1e-12))
    activation = str(getattr(config, "hidden_act", getattr(config, "activation", "gelu")))
    head = MaskedHead(config.hidden_size, table.shape[1], activation, epsilon, n_student, len(table))
    nn.init.normal_(head.dense.weight, std=float(getattr(config, "initializer_range", 0.02)))
    nn.init.zeros_(head.dense.bias)
    found = {} if checkpoint is None else _head_tensors(checkpoint)
    if found:
        head.load_state_dict(found, strict=False)
    return head, bool(found)


def _head_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Return the head in a checkpoint's safetensors, renamed; nothing unless it is there whole."""
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    for path in weight_files(checkpoint):
        with safe_open(path, framework="pt") as file:
            wanted = [key for key in file.keys() if key.startswith(tuple(part for row in HEADS for part in row))]  # noqa: SIM118 - not a dict
            tensors |= {key: file.get_tensor(key).float() for key in wanted}
    for dense, norm, bias in HEADS:
        parts = {"dense": dense, "norm": norm}
        renamed = {
            f"{ours}.{kind}": tensors.get(f"{theirs}.{kind}")
            for ours, theirs in parts.items()
            for kind in ("weight", "bias")
        } | {"biases.1": tensors.get(bias)}
        whole = {key: value for key, value in renamed.items() if value is not None}
        if len(whole) == len(renamed):
            return whole
    return {}


def live_teacher(method: str, context: Context) -> tuple[VocabMap, "PreTrainedModel"]:
    """Return the vocabulary map and the teacher that a method may change.

    Raises:
        ValueError: if the student keeps the teacher's vocabulary.
    """
    if context.vocab_map is None:
        raise Refused(
            f"method {method!r} got a student with the teacher's own vocabulary, expected another one. "
            "Give --vocab-size above 0, or use --method distill."
        )
    assert context.teacher is not None
    return context.vocab_map, context.teacher

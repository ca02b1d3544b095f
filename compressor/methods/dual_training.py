"""Train teacher and student together: the teacher reads both vocabularies, and shared projections tie the parameters.

    loss = student's + teacher's + eps * projection

The student reads its own vocabulary; the teacher reads words cut by the student's vocabulary with probability ``mix``
and by its own otherwise, through a second table E_ts of the student's tokens. ``projection``: "down", mean
|U theta_t V - theta_s|^2; "up", mean |theta_t - U theta_s V|^2; "none" (``compressor.mixing.projections``). The
gradient of that term does not reach the teacher unless ``teacher_gradient`` is true. The norms of U and V are in the
log. Zhao et al., 1909.11687 v1, sections 2.2 to 2.4.

objective = "mlm", the paper's: one word in seven is hidden in both streams, the same words, and each model predicts
them over the vocabulary that cut them (``mlm``, ``teacher_mlm``); with ``hidden`` or ``attention`` above 0 the student
also imitates the teacher's states. A teacher without a masked-language head gets a fresh tied one. objective = "task",
for a fine-tuned teacher: the teacher goes on with its own task on mixed input (``teacher_labels``, ``teacher_output``,
``teacher_hidden``) while the student imitates it: its outputs, and the states and attention of the mixed teacher, word
by word. Everything but the student is thrown away. Refuses a student that keeps the teacher's vocabulary.
"""

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressor.batches.teacher_cache import spread_layers
from compressor.mixing.projections import SharedProjections
from compressor.mixing.teacher import MaskedHead, MixedOptions, MixedTeacher, live_teacher, masked_head
from compressor.models.families import family_of, n_passes
from compressor.models.slots import pick_layers
from compressor.refused import Refused
from compressor.scoring.contract import Weights
from compressor.student.copied import mapped_table
from compressor.training import objective as base
from compressor.training.contract import Context, Mixing, Wants, check_choice, model_inputs
from compressor.training.imitation import Imitation, live_states, without_dropout

logger = logging.getLogger(__name__)
CACHED = ("labels", "teacher_output", "teacher_states", "teacher_units")


@dataclass(frozen=True)
class Options(MixedOptions):
    """Knobs of ``dual_training``."""

    method = "dual_training"
    projection: str = "up"  # or "down" or "none"
    eps: float = 10_000.0  # factor of the projection term, a mean over tensors of means over elements
    teacher_gradient: bool = False  # of the projection term into the teacher
    logits: float = 1.0
    labels: float = 0.0
    hidden: float = 1.0
    attention: float = 0.0
    embedding: float = 1.0
    similarity: float = 10.0
    every: int = 1  # the teacher reads every so-many-th row of a batch: less work, and less of it for the student

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.method, "projection", self.projection, ("up", "down", "none"))
        if self.every < 1:
            raise Refused(f"recipe: [[stage]] {self.method!r} option every = {self.every}, expected 1 or more.")

    def wants(self) -> Wants:
        """Return what a stage with this loss wants of the run."""
        found, reads_for_student = super().wants(), self.hidden > 0 and self.every > 1
        n_layers = self.layers if found.cache and reads_for_student else found.word_layers
        labels = found.labels or bool(self.labels)
        return found._replace(word_layers=n_layers, labels=labels, teacher_share=1 / self.every)


class Objective(base.Objective):
    """The student, the teacher, the tables and heads between them, and the projections."""

    trains_teacher = clips_apart = True

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        vocab_map, model = live_teacher("dual_training", context)
        self.student, self.options = context.student, options
        is_masked = options.objective == "mlm"
        self.mixing = Mixing(options.mix, options.mix_ramp, options.masked if is_masked else 0.0, options.every)
        for each in (self.student, model):
            without_dropout(each)
            if options.attention > 0:
                each.set_attn_implementation("eager")  # the others return no attention
        model.requires_grad_(options.teacher_learning_rate > 0)
        self.table = nn.Parameter(mapped_table(vocab_map, model.get_input_embeddings().weight))  # E_ts
        self.teacher = MixedTeacher(model, len(self.table))
        self.heads = _heads(context, self.teacher, self.student, self.table) if is_masked else None
        config = self.student.config
        self.live_layers = context.teacher_layers or spread_layers(context.teacher_n_layers, options.layers)
        self.imitation = Imitation(
            context,
            Weights.of(options, **{"embedding": 0.0} if is_masked else {}),  # on hidden words: states only
            width=config.hidden_size,
            n_layers=n_passes(config),
            layers=self.live_layers,
        )
        self.anchor = Imitation.of_teacher(context, options.teacher_weights())
        self.projections = None
        if options.projection != "none":
            family = family_of(context.model_type)
            layers = pick_layers(model.config.num_hidden_layers, config.num_hidden_layers)
            direction: Any = options.projection
            self.projections = SharedProjections(family, self.student, model, layers, direction)
            table_id = id(self.student.get_input_embeddings().weight)
            self.word_table = next(name for name, each in self.student.named_parameters() if id(each) == table_id)

    def rate_of(self, name: str) -> float | None:
        """Return the teacher's own learning rate for its tensors."""
        return self.options.teacher_learning_rate if name.startswith("teacher.") else None

    def observe(self) -> dict[str, float]:
        """Return the norms of the projections."""
        return {} if self.projections is None else self.projections.norms()

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Args:
            **batch: the student's view, the mixed view (``mixed_...``, of every ``every``-th row), and either
                ``masked_labels`` and ``mixed_labels`` (tokens to predict) or what ``Imitation.forward`` takes.
        """
        options, is_masked = self.options, self.heads is not None
        needs_states = options.hidden > 0 or options.attention > 0
        wanted = {"output_hidden_states": is_masked or needs_states, "output_attentions": options.attention > 0}
        is_anchored = is_masked or self.anchor.needs_hidden(batch)
        asked = {**wanted, "output_hidden_states": needs_states or is_anchored}
        theirs = self.teacher(batch, self.table, **asked)
        ours = self.student(**model_inputs(batch), **wanted)
        live = (
            live_states(theirs, batch["mixed_words"], self.live_layers if options.hidden > 0 else ())
            if needs_states
            else {}
        )
        if self.heads is not None:
            terms = self._masked_terms(ours, theirs, batch)
            terms |= self._state_terms(ours, batch, live)
        else:
            terms = self._task_terms(ours, theirs, batch, live)
        if self.projections is not None:
            student, teacher = (dict(model.named_parameters()) for model in (self.student, self.teacher.model))
            tied = self.projections(student, teacher, (self.word_table, self.table), options.teacher_gradient)
            terms["projection"] = options.eps * tied
        return terms

    def _masked_terms(self, ours: Any, theirs: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:  # ModelOutputs
        assert self.heads is not None
        own = self.teacher.model.get_input_embeddings().weight
        table = self.student.get_input_embeddings().weight
        return {
            "mlm": self.heads.student.loss(ours.hidden_states[-1], batch["masked_labels"], table),
            "teacher_mlm": self.heads.teacher.loss(theirs.hidden_states[-1], batch["mixed_labels"], self.table, own),
        }

    def _task_terms(
        self, ours: Any, theirs: Any, batch: dict[str, Tensor], live: dict[str, Tensor]
    ) -> dict[str, Tensor]:  # Any: ModelOutputs
        cached = {name: batch[name][:: self.options.every] for name in CACHED if name in batch}
        anchored = self.anchor(theirs, batch["mixed_mask"], batch["mixed_words"], cached)
        outputs = {name: batch[name] for name in ("labels", "teacher_output") if name in batch}
        terms: dict[str, Tensor] = self.imitation(ours, batch["attention_mask"], None, outputs)
        terms |= self._state_terms(ours, batch, live)
        return terms | {f"teacher_{name}": value for name, value in anchored.items()}

    def _state_terms(self, ours: Any, batch: dict[str, Tensor], live: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compare with the live states on the rows that the teacher has read, with the cached ones on the others."""
        if not live:
            return {}
        is_read = torch.arange(len(batch["words"]), device=batch["words"].device) % self.options.every == 0
        terms: dict[str, Tensor] = self.imitation.state_terms(_rows(ours, is_read), batch["words"][is_read], live)
        if "hidden" in terms and "teacher_states" in batch and not is_read.all():
            cached = {name: batch[name][~is_read] for name in ("teacher_states", "teacher_units")}
            others = self.imitation.state_terms(_rows(ours, ~is_read), batch["words"][~is_read], cached)
            terms["hidden"] = torch.lerp(others["hidden"], terms["hidden"], is_read.float().mean())
        return terms


class _Heads(nn.Module):
    """Both models' masked-language heads."""

    def __init__(self, teacher: MaskedHead, student: MaskedHead) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student


def _heads(
    context: Context, teacher: MixedTeacher, student: Any, table: Tensor
) -> _Heads:  # Any: its config has no type
    theirs, is_found = masked_head(teacher.model, context.teacher_dir, len(table))
    if not is_found:
        logger.warning("dual_training: the teacher has no masked-language head; a fresh one is trained")
    config = student.config
    width = student.get_input_embeddings().weight.shape[1]
    activation = str(getattr(config, "hidden_act", getattr(config, "activation", "gelu")))
    epsilon = float(getattr(config, "layer_norm_eps", 1e-12))
    return _Heads(theirs, MaskedHead(config.hidden_size, width, activation, epsilon, len(table)))


class _Rows(NamedTuple):
    """Some rows of a model's output."""

    hidden_states: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]


def _rows(output: Any, chosen: Tensor) -> _Rows:  # Any: a ModelOutput
    """Return the chosen rows of the states and of the attention, where there are any."""
    return _Rows(
        tuple(each[chosen] for each in output.hidden_states or ()),
        tuple(each[chosen] for each in getattr(output, "attentions", None) or ()),
    )

"""From what the user decided to what will be done: every default made explicit, before a minute is spent.

The teacher's files and the data are read, the shape and the bits are chosen (``compressor.run.planning.sizing``), the
optimisation is filled in, and the bytes of the package and the time of training are predicted. A budget that cannot be
met, a label that the teacher does not know or a column that is not there stops the run here.
"""

from dataclasses import dataclass
from typing import Any

from compressor.data.table import Table, describe_rows, single_texts
from compressor.mixing.batches import mask_id
from compressor.models.configuration import check_room
from compressor.models.cross_encoder import check_pairs
from compressor.models.teacher import TeacherInfo, check_tensors, read_teacher
from compressor.models.vocabulary import GivenVocabulary, check_vocabulary, read_vocabulary
from compressor.recipe.recipe import Recipe
from compressor.recipe.sections import StageSection
from compressor.refused import Refused
from compressor.run.planning import family, refusals, small_sizing
from compressor.run.planning.choice import Choice, depth, describe, resolved_student
from compressor.run.planning.kept_states import CachedStates, cached_states
from compressor.run.planning.rows import fitting_length, read_data
from compressor.run.planning.stage_defaults import estimate, fill_stage, fitting_variations
from compressor.scoring.contract import TaskSpec
from compressor.student.pretrained import Pretrained, read_pretrained
from compressor.training.registry import Stage, resolve
from exporters.budget import Budget
from exporters.pooling import Pooling
from exporters.repetition import Pattern
from exporters.repetition import describe as describe_passes
from exporters.shape import Scheme, Shape
from exporters.small.shape import SmallShape
from vocab.choosing import check_rule
from vocab.surfaces import Kind
from vocab.train import kind_of


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    resolved: Recipe
    budget: Budget  # the recipe's, in bytes and milliseconds
    info: TeacherInfo
    spec: TaskSpec
    train: Table
    evaluation: Table
    held_out: Table | None  # of the training rows, to choose an epoch on, or thresholds: nothing is trained on these
    choice: Choice
    max_length: int
    n_steps: int
    seconds: float  # a rough estimate of the training
    stages: tuple[Stage, ...]
    rows: Table  # the training rows as the student sees them: an encoder reads the two texts of a pair one by one
    kept: CachedStates  # of the teacher's hidden states, as the stages ask for them
    n_variations: int  # of every row, which the teacher answers too
    pretrained: Pretrained | None = None  # the student, where it exists already
    vocabulary: GivenVocabulary | None = None  # and its vocabulary; None: one is trained, or the teacher's is kept
    digest: str = ""  # of the resolved recipe

    @property
    def shape(self) -> Shape:
        """The student's shape."""
        return self.choice.shape

    @property
    def pooling(self) -> Pooling | None:
        """How the student's states become a vector: as the teacher's, and always by their mean in a small encoder."""
        pooling = self.info.pooling
        return pooling._replace(mode="mean") if pooling and isinstance(self.shape, SmallShape) else pooling

    @property
    def scheme(self) -> Scheme:
        """The package's bits."""
        return self.choice.scheme

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "version": 1,
            "teacher": {"name": self.info.name, "task": self.info.task, "labels": list(self.info.labels)},
            "task": {"kind": self.spec.kind, "metric": self.spec.metric, "pair": self.spec.pair},
            "rows": {
                "train": len(self.train),
                "eval": len(self.evaluation),
                **({"held_out": len(self.held_out)} if self.held_out else {}),
                **({"variations": self.n_variations} if self.n_variations else {}),
            },
            "columns": {"train": self.train.columns, "eval": self.evaluation.columns},
            "student": {**self.shape.as_dict(), "n_parameters": self.shape.n_parameters},
            "pretrained": self.pretrained.as_dict() if self.pretrained else None,
            "vocabulary": self.vocabulary.as_dict() if self.vocabulary else None,
            "scheme": self.scheme.name,
            "max_length": self.max_length,
            "predicted_bytes": {**self.choice.predicted, "total": self.choice.n_bytes},
            "reasons": list(self.choice.reasons),
            "steps": self.n_steps,
            "seconds_estimate": round(self.seconds),
            "recipe": self.resolved.model_dump(mode="json"),
        }

    def lines(self) -> list[str]:
        """Return the plan for people."""
        teacher, student = self.info.shape, self.shape
        allowed = self.resolved.budget.max_size  # as the user wrote it
        labels = f", labels {_few(self.spec.labels)}" if self.spec.labels else ""
        parts = ", ".join(f"{part} {n_bytes:,}" for part, n_bytes in self.choice.predicted.items())
        methods = ", ".join(stage.method for stage in self.resolved.stage)
        rows = {
            "teacher": f"{self.info.name}: {self.info.task}, {teacher.n_parameters / 1e6:.1f} M parameters, "
            f"{depth(teacher)} x {teacher.hidden}, {teacher.vocab_size:,} tokens",
            "task": f"{self.spec.kind}{' of pairs' if self.spec.pair else ''}{labels}, metric {self.spec.metric}, "
            f"at most {self.max_length} tokens",
            "train": describe_rows(self.train),
            "eval": "; ".join(filter(None, (describe_rows(self.evaluation), self.spec.told(self.evaluation)))),
            "held out": self._held_out_line(),
            **({"vary": f"{self.n_variations} variations of every row"} if self.n_variations else {}),
            "student": f"{describe(student, self.scheme)}, {student.n_parameters / 1e6:.2f} M parameters",
            **self._given_lines(),
            "because": "; ".join(self.choice.reasons),
            "bytes": f"predicted {self.choice.n_bytes:,}{f' of {allowed}' if allowed else ''}: {parts}",
            "training": f"{methods}: {self.n_steps:,} steps, about {max(1, round(self.seconds / 60))} min here"
            if self.stages
            else "none",
        }
        return [f"{name:9}{text}" for name, text in rows.items()]

    def _held_out_line(self) -> str:
        chosen = [*(["the best epoch"] if self.stages else []), *(["thresholds"] if self.spec.tunes else [])]
        if not chosen:
            return "none"
        if self.held_out:
            return f"{len(self.held_out):,} training rows, to choose {' and '.join(chosen)} on"
        if self.spec.tunes:
            return "none, for there are too few training rows with labels: every threshold stays 0.5"
        return "none, for there are too few training rows: the last epoch is taken"

    def _given_lines(self) -> dict[str, str]:
        rows = {}
        if self.shape.passes:
            exchanged = ", with query and key exchanged where there is a '" if any(self.shape.exchanged) else ""
            rows["passes"] = describe_passes(Pattern(self.shape.passes, self.shape.exchanged)) + exchanged
        if self.pretrained:
            rows["start"] = f"{self.pretrained.name}: its weights, {self.pretrained.head}"
        if self.vocabulary:
            rows["vocab"] = (
                f"{self.vocabulary.kind} of {self.vocabulary.size:,} tokens, as it is ({self.vocabulary.source})"
            )
        return rows


def plan(recipe: Recipe) -> Plan:
    """Return the plan of a recipe.

    Raises:
        OverBudget: if no student fits the byte budget.
        ValueError: if recipe, teacher and data do not fit together.
    """
    stages = tuple(resolve(section) for section in recipe.stage)
    refusals.check_stages(recipe, stages)
    info = read_teacher(recipe.teacher)
    pretrained, vocabulary = read_given(recipe, info)
    reads_labels = recipe.student.is_counted or any(stage.wants.labels for stage in stages)
    train, evaluation, held_out = read_data(recipe, info, reads_labels)
    check_tensors(info, recipe.teacher.allow_pickle, recipe.teacher.trust_remote_code)
    for number, stage in enumerate(stages, start=1):
        stage.loss_options.check_plan(info, recipe.teacher, train, is_last=number == len(stages))
    takes_pair = (train if info.answers.reads_pairs else evaluation).pairs is not None
    check_pairs(info.needs_pairs, train)
    is_scored = info.spec(pair=takes_pair).is_scored(evaluation)
    spec = info.spec(pair=takes_pair, scored=is_scored, metric=recipe.measure.metric)
    spec.check_rows(evaluation)
    tokenizer = info.tokenizer
    refusals.check_sizes(recipe, info, tokenizer)
    refusals.check_counted(recipe, info, spec)
    refusals.check_truncation(info, stages)
    hides_words = any(stage.wants.mask_token for stage in stages)
    if hides_words:
        mask_id(tokenizer)  # may refuse
    longest = refusals.check_length(recipe, info, pretrained)
    is_pair = spec.pair and spec.reads_pairs
    check_room(recipe.teacher.max_length or longest, recipe.teacher.max_length is not None, tokenizer, is_pair)
    if vocabulary is not None:
        check_vocabulary(vocabulary, info, tokenizer, is_pair=is_pair, hides_words=hides_words)
    max_length = recipe.teacher.max_length or fitting_length(recipe, longest, train, tokenizer, vocabulary)
    kind = vocabulary.kind if vocabulary else recipe.vocab.kind or kind_of(tokenizer.to_str())
    check_rule(recipe.vocab.rule, kind)
    positions = max_length + info.family.position_offset
    budget = recipe.budget.to_budget()
    given = pretrained, vocabulary
    if recipe.student.is_counted:
        choice = small_sizing.choose_counted(recipe, spec, train, info.truncation, max_length, positions)
    else:
        choice = family.choose(recipe, budget, stages, info, train, positions, kind, tokenizer, *given, is_pair)
    refusals.check_family(recipe, info, choice.shape, stages)
    rows = train if spec.reads_pairs else single_texts(train)
    is_copied = recipe.student.init == "teacher" and choice.shape.hidden == info.shape.hidden
    is_copied = is_copied or pretrained is not None
    effort = recipe.effort
    if recipe.minutes is not None:
        from compressor.run.planning.pace import effort_of  # imports the models

        effort = effort_of(recipe.minutes, info, choice.shape) / len(stages)
    shapes, head = (choice.shape, info.shape), info.answers.has_head
    stages = tuple(
        fill_stage(stage, rows, max_length, *shapes, is_copied=is_copied, has_head=head, effort=effort)
        for stage in stages
    )
    n_variations = recipe.data.variations
    if n_variations is None:
        n_variations = fitting_variations(stages, rows, max_length, *shapes, effort)
    elif n_variations and not any(stage.wants.varies for stage in stages):
        raise Refused(
            f"--variations {n_variations}: no stage can use them: {', '.join(stage.method.name for stage in stages)} "
            "reads labels or states of every row. Leave it out, or use --method distill without labels."
        )
    kept = cached_states(stages, info.shape, choice.shape, rows, max_length)
    for stage in stages:
        stage.method.objective_class.check_shapes(info.shape, choice.shape, stage.options)
    resolved = _resolve(recipe, info, choice, kind, tuple(stage.section for stage in stages), max_length, n_variations)
    n_steps, seconds = estimate(stages, *shapes, rows, max_length)
    rest = stages, rows, kept, n_variations, *given, resolved.digest()
    return Plan(resolved, budget, info, spec, train, evaluation, held_out, choice, max_length, n_steps, seconds, *rest)


def read_given(recipe: Recipe, info: TeacherInfo) -> tuple[Pretrained | None, GivenVocabulary | None]:
    """Return the student and the vocabulary that exist already, where the recipe names them."""
    if recipe.student.pretrained:
        pretrained = read_pretrained(recipe.student.pretrained, recipe.teacher, info)
        return pretrained, pretrained.vocabulary
    return None, read_vocabulary(recipe.vocab.path) if recipe.vocab.path else None


def _resolve(
    recipe: Recipe,
    info: TeacherInfo,
    choice: Choice,
    kind: Kind,
    stages: tuple[StageSection, ...],
    max_length: int,
    n_variations: int,
) -> Recipe:
    """Return the recipe with nothing left open; what exists already keeps its name instead of its numbers."""
    vocab, student = recipe.vocab, recipe.student
    if student.is_counted:
        vocab = vocab.model_copy(update={"size": choice.shape.vocab_size})
    elif not (student.pretrained or vocab.path):
        vocab = vocab.model_copy(update={"kind": kind, "size": 0 if vocab.size == 0 else choice.shape.vocab_size})
    if not student.pretrained:
        student = resolved_student(student, choice.shape)
    bits = {
        "scheme": "none" if choice.scheme.weight_bits is None else f"int{choice.scheme.weight_bits}",
        "embedding_bits": choice.scheme.embedding_bits,
        "block_size": choice.scheme.block_size,
    }
    return recipe.model_copy(
        update={
            "effort": 1.0,  # the epochs say it now
            "minutes": None,
            "teacher": recipe.teacher.model_copy(update={"task": info.task, "max_length": max_length}),
            "data": recipe.data.model_copy(update={"variations": n_variations}),
            "vocab": vocab,
            "student": student,
            "quantize": recipe.quantize.model_copy(update=bits),
            "stage": stages,
        }
    )


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:4]) + (f", ... ({len(labels)})" if len(labels) > 4 else "")

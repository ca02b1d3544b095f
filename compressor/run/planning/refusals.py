"""What a plan refuses before a shape is chosen: sizes above the teacher's, methods that a vocabulary cannot serve."""

from collections.abc import Iterable

from tokenizers import Tokenizer

from compressor.data.table import Table
from compressor.models.families import family_of
from compressor.models.teacher import TeacherInfo
from compressor.recipe.recipe import Recipe
from compressor.recipe.sections import StageSection
from compressor.refused import Refused
from compressor.student.pretrained import Pretrained
from compressor.training.registry import asks_for, build_options, innermost, load_method, trains_teacher
from exporters.shape import Shape


def check_stages(recipe: Recipe) -> None:
    """Refuse methods that need another vocabulary than the teacher's where that is kept, and a start they replace."""
    for stage in recipe.stage:
        if recipe.student.start_layers and innermost(stage.method, stage.options)[0] != stage.method:
            raise Refused(
                f"--start-layers {recipe.student.start_layers} says what the student starts as, and {stage.method!r} "
                "makes its weights out of all layers of the teacher. Leave out --start-layers."
            )
        if recipe.vocab.size == 0 and trains_teacher(stage.method, stage.options):
            raise Refused(
                f"--vocab-size 0 keeps the teacher's vocabulary, expected another one for method {stage.method!r}. "
                "Give a size, or use --method distill."
            )


def check_sizes(recipe: Recipe, info: TeacherInfo, tokenizer: Tokenizer) -> None:
    """Refuse a student that is larger than its teacher somewhere, and a tokenizer that the teacher has no rows for."""
    given = {"layers": recipe.student.layers, "hidden": recipe.student.hidden, "ffn": recipe.student.ffn}
    limits = {name: getattr(info.shape, name) for name in given}
    n_positions = info.shape.positions - family_of(info.config["model_type"]).position_offset
    for name, limit in ({**limits, "max-length": n_positions}).items():
        wanted = recipe.teacher.max_length if name == "max-length" else given[name]
        if wanted is not None and wanted > limit:
            raise Refused(f"--{name} {wanted} is more than the teacher's {limit}. Use --{name} {limit} or less.")
    if recipe.student.hidden is not None and recipe.student.hidden == info.shape.embedding_size:
        raise Refused(
            f"--hidden {recipe.student.hidden} is the width of the teacher's embeddings, expected another one: the "
            "layer between them and the encoder would vanish. Give a --hidden that is larger or smaller."
        )
    n_tokens = tokenizer.get_vocab_size()
    if n_tokens > info.shape.vocab_size:
        raise Refused(
            f"teacher: its tokenizer has {n_tokens:,} tokens, its embeddings have {info.shape.vocab_size:,} rows. "
            "They are not of one checkpoint; download both again."
        )


def check_shapes(stages: Iterable[StageSection], teacher: Shape, student: Shape) -> None:
    """Refuse a student whose shape a method cannot make, before anything is run."""
    for stage in stages:
        check = getattr(load_method(stage.method).objective_class, "check_shapes", None)
        if check is not None:
            check(teacher, student, build_options(stage.method, stage.options))


def check_masks(recipe: Recipe, tokenizer: Tokenizer) -> None:
    """Refuse to hide words where the teacher has no token for that."""
    from compressor.mixing.batches import mask_id

    if hides_words(recipe):
        mask_id(tokenizer)


def check_relabelling(recipe: Recipe, info: TeacherInfo, train: Table) -> None:
    """Refuse tasks and stages that other labels make no sense for, before anything is run.

    Raises:
        FileNotFoundError: if the model to make teachers from is not there.
        ValueError: for a sentence encoder, for options that a score has no use for, for a last stage that leaves the
            student without a trained head, and for more parts than rows.
    """
    for number, stage in enumerate(recipe.stage, start=1):
        method, options = innermost(stage.method, stage.options)
        if not asks_for(method, "relabel"):
            continue
        if info.kind == "embedding":
            raise Refused(
                f"method {method!r} got a sentence encoder, expected a task with labels: without them no prediction is "
                "right or wrong. Use --method distill."
            )
        given = [name for name in ("t1", "t2", "published") if getattr(options, name)]
        if info.kind == "regression" and given:
            raise Refused(
                f"recipe: [[stage]] {method!r} has {given[0]}, but the teacher predicts a score, which has no "
                f"confidence: its rows are labelled by terciles of the error. Leave out {given[0]}."
            )
        if number == len(recipe.stage):
            raise Refused(
                f"recipe: [[stage]] {method!r} is the last stage, expected one after it that teaches the task: its "
                "student cannot answer it, for its head is not trained. Add a stage such as 'distill'."
            )
        if options.out_of_fold:
            from compressor.data.splits import check_folds
            from compressor.student.pretrained import read_base

            read_base(options.base, recipe.teacher, info)
            check_folds(train, options.out_of_fold)


def hides_words(recipe: Recipe) -> bool:
    """Return whether a stage learns from hidden words."""
    options = (innermost(stage.method, stage.options)[1] for stage in recipe.stage)
    return "mlm" in [getattr(each, "objective", "") for each in options]


def check_length(recipe: Recipe, info: TeacherInfo, pretrained: Pretrained | None) -> int:
    """Return the longest input that teacher and student can take, in tokens; refuse a longer one that is asked for."""
    if pretrained is None:
        return info.max_length
    limit = pretrained.shape.positions - family_of(info.config["model_type"]).position_offset
    wanted = recipe.teacher.max_length
    if wanted is not None and wanted > limit:
        raise Refused(
            f"--max-length {wanted} is more than the {limit} positions of --pretrained {pretrained.name}. "
            f"Use --max-length {limit} or less."
        )
    return min(info.max_length, limit)

"""What a plan refuses before a shape is chosen: sizes above the teacher's, methods that a vocabulary cannot serve."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from compressor.models.teacher import TeacherInfo
from compressor.recipe.recipe import Recipe
from compressor.refused import Refused
from compressor.scoring.contract import TaskSpec
from compressor.student.pretrained import Pretrained
from compressor.training.registry import Stage
from exporters.shape import Shape
from exporters.small.shape import SmallShape


def check_stages(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Refuse methods that need another vocabulary than the teacher's where that is kept, and a start they replace."""
    for stage in stages:
        if recipe.student.start_layers and stage.options.inner is not None:
            raise Refused(
                f"--start-layers {recipe.student.start_layers} says what the student starts as, and "
                f"{stage.method.name!r} makes its weights out of all layers of the teacher. Leave out --start-layers."
            )
        if recipe.vocab.size == 0 and stage.trains_teacher:
            raise Refused(
                f"--vocab-size 0 keeps the teacher's vocabulary, expected another one for method {stage.method.name!r}."
                " Give a size, or use --method distill."
            )


def check_family(recipe: Recipe, info: TeacherInfo, shape: Shape, stages: Sequence[Stage]) -> None:
    """Refuse methods that make a student's layers out of the teacher's where it has none, and vectors for classes."""
    if recipe.student.family == "static" and info.answers.has_head:
        raise Refused(
            f"--family static makes sentence vectors, and teacher {info.name} answers in {info.kind}. "
            "Use --family mean, or a sentence encoder."
        )
    for stage in stages:
        if isinstance(shape, SmallShape) and not stage.method.objective_class.any_family:
            raise Refused(
                f"--family {shape.family} is no transformer, and method {stage.method.name!r} works on the layers of "
                "one. Use --method distill or finetune, or --family transformer."
            )


def check_counted(recipe: Recipe, info: TeacherInfo, spec: TaskSpec) -> None:
    """Refuse counted words where no linear model answers: for sentence vectors, and for two texts."""
    if not recipe.student.is_counted:
        return
    if not spec.has_head or not spec.n_linear():
        raise Refused(
            f"--family tfidf answers in classes, labels or scores, and teacher {info.name} makes vectors of sentences. "
            "Use --family static or mean, or a classifier."
        )
    if spec.pair:
        raise Refused(
            "--family tfidf counts the words of one text, and the rows hold two. Use another --family, or name one "
            "column of texts with --text-column."
        )


def check_truncation(info: TeacherInfo, stages: Sequence[Stage]) -> None:
    """Refuse methods that mix two cuts of a text, which lose its end, where the teacher's loses its beginning."""
    for stage in stages:
        if info.truncation == "left" and stage.trains_teacher:
            raise Refused(
                f"teacher: truncation_side is 'left' in its tokenizer_config.json, and method {stage.method.name!r} "
                "cuts long texts on the right. Use --method distill, or set truncation_side to 'right'."
            )


def check_sizes(recipe: Recipe, info: TeacherInfo, tokenizer: Tokenizer) -> None:
    """Refuse a student that is larger than its teacher somewhere, and a tokenizer that the teacher has no rows for."""
    named = () if recipe.student.is_small else ("layers", "hidden", "ffn")  # a small encoder is not a part of it
    given = {name: getattr(recipe.student, name) for name in named}
    limits = {name: getattr(info.shape, name) for name in given}
    n_positions = info.shape.positions - info.family.position_offset
    for name, limit in ({**limits, "max-length": n_positions}).items():
        wanted = recipe.teacher.max_length if name == "max-length" else given[name]
        if wanted is not None and wanted > limit:
            raise Refused(f"--{name} {wanted} is more than the teacher's {limit}. Use --{name} {limit} or less.")
    if given.get("hidden") is not None and recipe.student.hidden == info.shape.embedding_size:
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


def check_length(recipe: Recipe, info: TeacherInfo, pretrained: Pretrained | None) -> int:
    """Return the longest input that teacher and student can take, in tokens; refuse a longer one that is asked for."""
    if pretrained is None:
        return info.max_length
    limit = pretrained.shape.positions - info.family.position_offset
    wanted = recipe.teacher.max_length
    if wanted is not None and wanted > limit:
        raise Refused(
            f"--max-length {wanted} is more than the {limit} positions of --pretrained {pretrained.name}. "
            f"Use --max-length {limit} or less."
        )
    return min(info.max_length, limit)

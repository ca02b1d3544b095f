"""A small student that is no transformer: its token table starts as the teacher's, the rest as fresh weights.

The table is the teacher's word embeddings mixed by the vocabulary map, less their mean, in the directions of their
largest variance (principal component analysis), a row of average length 1; columns beyond the teacher's
width are fresh.
"""

from typing import TYPE_CHECKING

import torch

from compressor.models.families import family_of
from compressor.models.teacher import TeacherInfo, auto_class_of
from compressor.student.copied import mapped_table, principal_rows
from exporters.small.shape import SmallShape
from vocab.mapping import VocabMap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FROM_TEACHER = ("id2label", "label2id", "problem_type", "num_labels")  # of the teacher's configuration


def new_small(info: TeacherInfo, shape: SmallShape, seed: int) -> "PreTrainedModel":
    """Return a model of ``shape`` with fresh weights, drawn from ``seed`` without touching the global generator."""
    from exporters.small.models import config_class

    kept = {key: info.config[key] for key in FROM_TEACHER if key in info.config and info.answers.has_head}
    config = config_class(shape.family)(**shape.config(), **kept)
    auto_class, _ = auto_class_of(info.answers, family_of(config.model_type, for_export=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = auto_class.from_config(config)
    return model.float().eval()


def build_small(
    info: TeacherInfo, teacher: "PreTrainedModel | None", shape: SmallShape, vocab_map: VocabMap | None, seed: int
) -> tuple["PreTrainedModel", dict[str, object]]:
    """Return the initial student and the origin of each of its tensors.

    Args:
        info: what the teacher's files say.
        teacher: its model, for the token table; None: all is fresh.
        shape: the student's.
        vocab_map: student tokens as teacher tokens; ``None``: the teacher's own vocabulary.
        seed: for the fresh weights.
    """
    student = new_small(info, shape, seed)
    origin: dict[str, object] = {name: {"how": "new"} for name in sorted(student.state_dict())}
    if teacher is None:
        return student, origin
    source = next(name for name in teacher.state_dict() if name.endswith("word_embeddings.weight"))
    given = teacher.state_dict()[source]
    mixed = given if vocab_map is None else mapped_table(vocab_map, given)
    table = student.get_input_embeddings().weight.data
    n_kept = min(table.shape[1], *mixed.shape)
    rows = principal_rows(mixed - mixed.mean(dim=0), n_kept)
    table[:, :n_kept] = rows / rows.norm(dim=1).mean().clamp(min=1e-6)
    name = next(name for name in origin if name.endswith("word_embeddings.weight"))
    origin[name] = {"how": "principal components", "source": source, "columns": n_kept}
    return student, origin

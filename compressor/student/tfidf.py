"""TF-IDF with a linear model as a student: idf is counted on the rows, coefficients are fitted on their labels at once.

What is fitted is the task's own linear model (``TaskSpec.fit_linear``), on the features of
``compressor.student.counted``; then its coefficients are rounded to 8 bits. Of the teacher's weights nothing is used.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer

from compressor.data.table import Table
from compressor.models.teacher import TeacherInfo
from compressor.refused import Refused
from compressor.scoring.contract import TaskSpec
from compressor.student.counted import round_columns, tfidf_features
from compressor.student.small import new_small
from exporters.small.shape import TfidfShape
from vocab.words import word_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ORIGINS = {
    "idf": "counted on the rows, rounded to 8 bits",
    "coefficients": "fitted on the rows, rounded to 8 bits",
    "scale": "fitted on the rows",
    "bias": "fitted on the rows",
}


def build_tfidf(
    info: TeacherInfo,
    shape: TfidfShape,
    tokenizer: Tokenizer,
    rows: Table,
    spec: TaskSpec,
    max_length: int,
    seed: int,
) -> tuple["PreTrainedModel", dict[str, object]]:
    """Return the student and the origin of its tensors.

    Args:
        info: of the teacher: names of labels, and the side on which long texts are cut.
        shape: the student's.
        tokenizer: of its words.
        rows: labelled, to count and to fit on.
        spec: the task, with its linear model.
        max_length: words of a text at most.
        seed: for the solver.

    Raises:
        ValueError: for rows without labels.
    """
    targets = spec.targets(rows)
    if targets is None:
        raise Refused(f"{rows.source}: rows have no labels, which --family tfidf is fitted on. Use --label-column.")
    found = word_ids(tokenizer, rows.texts, max_length, is_left=info.truncation == "left")
    features, idf = tfidf_features(found, shape)
    weights, bias = spec.fit_linear(features, targets, seed)
    columns = shape.width  # of two classes the second says it all
    coefficients, scale = round_columns(np.asarray(weights, dtype=np.float64)[:, -columns:])
    student = new_small(info, shape, seed)
    state = {
        "idf": torch.from_numpy(idf).unsqueeze(1),
        "coefficients": torch.from_numpy(coefficients),
        "scale": torch.from_numpy(scale),
        "bias": torch.from_numpy(np.asarray(bias, dtype=np.float32)[-columns:].copy()),
    }
    student.load_state_dict(state)
    return student, {name: {"how": how} for name, how in sorted(ORIGINS.items())}

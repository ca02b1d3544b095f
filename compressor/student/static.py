"""A static sentence encoder out of the teacher alone: a vector for every token, whose mean is the text's.

    v(t) = the teacher's sentence vector of the token t as a text by itself
    table = a / (a + p(t)) * (v(t) - mean v) in the directions of its largest variance

p(t) is the token's share of all tokens in the rows, a = 1e-3: rare words say more (Arora et al. 2017, smooth inverse
frequency), and the length of a row carries its weight, so that a plain mean is the weighted one. Special tokens are
zero. So model2vec makes its models; nothing is trained, and of the rows only the frequencies count.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from compressor.batches.encoded import encode_rows
from compressor.batches.outputs import predictor
from compressor.data.table import Table
from compressor.models.teacher import TeacherInfo
from compressor.student.copied import principal_rows
from compressor.student.small import new_small
from exporters.small.shape import SmallShape
from vocab.surfaces import spec_of, surfaces

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMOOTH = 1e-3


def token_counts(tokenizer: Tokenizer, rows: Table, max_length: int) -> npt.NDArray[np.int64]:
    """Return how often each token occurs in the rows (tokens,)."""
    ids = encode_rows(tokenizer, rows, max_length).ids
    return np.bincount(ids, minlength=tokenizer.get_vocab_size()).astype(np.int64)


def token_vectors(info: TeacherInfo, teacher: Any, tokenizer: Tokenizer) -> torch.Tensor:  # Any: a PreTrainedModel
    """Return the teacher's vector of every token (tokens, teacher width); zeros where a token is no text."""
    found = surfaces(spec_of(tokenizer))
    ids = [tokenizer.token_to_id(token) for token in found]
    predict = predictor(teacher, info.tokenizer, min(info.max_length, 32), info.pooling, info.truncation)
    vectors = torch.from_numpy(predict([surface.text for surface in found.values()], None))
    table = vectors.new_zeros(tokenizer.get_vocab_size(), vectors.shape[1])
    table[torch.tensor(ids)] = vectors - vectors.mean(dim=0)
    return table


def static_table(vectors: torch.Tensor, counts: npt.NDArray[np.int64], width: int) -> torch.Tensor:
    """Return the table (tokens, width) of centred vectors (tokens, teacher width) and counts (tokens,)."""
    is_text = vectors.any(dim=1)
    share = torch.from_numpy(np.where(is_text.numpy(), counts, 0) / max(1, int(counts[is_text.numpy()].sum())))
    weight = SMOOTH / (SMOOTH + share)
    rows = principal_rows(vectors, min(width, *vectors.shape)) * (weight * is_text).unsqueeze(1)
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1])).float()


def build_static(
    info: TeacherInfo, teacher: Any, shape: SmallShape, tokenizer: Tokenizer, counts: npt.NDArray[np.int64]
) -> tuple["PreTrainedModel", dict[str, object]]:  # Any: a PreTrainedModel
    """Return the static encoder and the origin of its one tensor; ``counts`` as of ``token_counts``."""
    student = new_small(info, shape, 0)
    table = static_table(token_vectors(info, teacher, tokenizer), counts, shape.width)
    student.get_input_embeddings().weight.data.copy_(table)
    name = next(iter(student.state_dict()))
    return student, {name: {"how": "the teacher's vectors of single tokens, principal components, by frequency"}}

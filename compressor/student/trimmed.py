"""The teacher with another vocabulary and nothing else changed: its table is mapped, no layer is touched or trained.

Of a model whose table is half of its bytes that alone is a smaller package, and often the cheapest answer of all.
"""

from pathlib import Path

from torch import nn

from compressor.models.checkpoint import cutting, tokenizer_config
from compressor.models.teacher import TeacherInfo, load_model
from compressor.models.vocabulary import GivenVocabulary
from compressor.refused import Refused
from compressor.student.copied import mapped_table
from compressor.student.student import save_student
from exporters.small.shape import is_small
from vocab.mapping import map_vocabulary
from vocab.save import save_tokenizer


def write_trimmed(
    info: TeacherInfo, given: GivenVocabulary, folder: Path, max_length: int, *, allow_pickle: bool = False
) -> Path:
    """Write the checkpoint of a model with the vocabulary ``given`` into ``folder``, tokenizer included.

    Raises:
        ValueError: if the model is a small encoder, which has no vocabulary of a teacher's.
    """
    if is_small(info.config["model_type"]):
        raise Refused(
            f"--vocab-from maps the table of a transformer, got {info.config['model_type']}. Leave it out, or compress "
            "with that vocabulary."
        )
    model = load_model(info, allow_pickle)
    old = model.get_input_embeddings()
    table = mapped_table(map_vocabulary(given.tokenizer, info.tokenizer), old.weight)
    pad = given.tokenizer.token_to_id(given.roles.get("pad_token", ""))
    new = nn.Embedding(table.shape[0], table.shape[1], padding_idx=pad)
    new.weight.data.copy_(table)
    model.set_input_embeddings(new)
    model.config.vocab_size, model.config.pad_token_id = len(table), pad if pad is not None else 0
    save_student(model, None, info, folder, max_length, info.pooling)
    config = given.config_for(tokenizer_config(info.folder))
    save_tokenizer(given.tokenizer, folder, cutting(config, info.truncation), max_length)
    return folder

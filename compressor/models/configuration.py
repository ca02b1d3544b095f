"""What config.json and a tokenizer may say, held to sense before anything is loaded or trained. No torch here.

Names of labels become lines of a manifest, ids become places in an answer: names that are equal, empty or hold control
characters, and ids with gaps, are refused. So are numbers for which no machine has the memory: transformers would make
a list of that many entries first.
"""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.refused import Refused

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Far above what there is: a thousand times the deepest encoder, every word of a language as a label.
MOST = {"num_labels": 1_000_000, "num_hidden_layers": 10_000, "n_layers": 10_000, "num_hidden_groups": 10_000}


def check_counts(config: Mapping[str, Any], path: Path) -> None:
    """Refuse numbers of labels or layers that no machine holds."""
    for key, most in MOST.items():
        value = config.get(key)
        if isinstance(value, int) and value > most:
            raise Refused(
                f"teacher: {path} says {value:,} for {key}, expected {most:,} at most. The file was edited or is "
                "damaged; download the checkpoint again."
            )


def named_labels(names: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return ``id2label`` as names by id.

    Raises:
        Refused: if ids have gaps, or names are equal, empty or hold control characters.
        ValueError: if ids are no numbers.
    """
    found = {int(key): str(names[key]) for key in names}
    if len(found) < len(names) or sorted(found) != list(range(len(names))):
        wrong, wanted = f"has the ids {', '.join(map(str, sorted(map(int, names))))[:80]}", "0, 1, ... without gaps"
        raise Refused(f"teacher: id2label in config.json {wrong}, expected {wanted}. Correct it.")
    labels = tuple(found[index] for index in range(len(found)))
    seen: dict[str, int] = {}
    for index, name in enumerate(labels):
        wrong = "is empty" if not name.strip() else ""
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
            wrong = "holds a control character"
        if name in seen:
            wrong = f"is the name of {seen[name]} as well"
        if wrong:
            raise Refused(
                f"teacher: id2label in config.json: the label {name[:80]!r} of {index} {wrong}, expected another name "
                "that can be read for each. Correct it there, and in label2id."
            )
        seen[name] = index
    return labels


def check_room(max_length: int, is_asked: bool, tokenizer: "Tokenizer", is_pair: bool, who: str = "teacher") -> None:
    """Refuse a maximum length that leaves no room for a token of the text beside the special ones."""
    n_special = tokenizer.num_special_tokens_to_add(is_pair)
    if max_length > n_special:
        return
    kind = "two texts" if is_pair else "one text"
    taken = f"{n_special} special tokens that {kind} {'get' if is_pair else 'gets'}"
    if is_asked:
        least = f"Use --max-length {n_special + 1} or more"
        raise Refused(f"--max-length {max_length} leaves no room for the text beside the {taken}. {least}.")
    raise Refused(
        f"{who}: it takes {max_length} tokens (max_position_embeddings, model_max_length or max_seq_length), which "
        f"leaves no room for the text beside the {taken}. Correct the smallest of them, or use another model."
    )


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse models that are not what the code of a plain encoder computes.

    Raises:
        ValueError: for a decoder, positions that are not absolute, pruned heads, and weights in fewer bits.
    """
    causes = (
        (
            bool(config.get("is_decoder") or config.get("add_cross_attention") or config.get("is_encoder_decoder")),
            "is a decoder (is_decoder or cross-attention), whose tokens see those before them only",
            "an encoder, whose tokens see all. Give one, or set is_decoder to false if the model was trained as one",
        ),
        (
            config.get("position_embedding_type", "absolute") != "absolute",
            f"has position_embedding_type {config.get('position_embedding_type')!r}",
            "'absolute'. Give a model with absolute positions",
        ),
        (
            bool(config.get("pruned_heads")),
            f"has pruned heads ({str(config.get('pruned_heads'))[:40]})",
            "layers with all their heads. Give the model before its heads were pruned",
        ),
        (
            bool(config.get("quantization_config")),
            "holds weights in fewer bits (quantization_config)",
            "weights as numbers. Give the model that it was made from",
        ),
    )
    for is_so, what, wanted in causes:
        if is_so:
            raise Refused(f"teacher: by its config.json the model {what}, expected {wanted}.")


def is_architecture(model_type: str) -> bool:
    """Return whether transformers has an architecture of this name: it is no misspelling of another."""
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    except ImportError:
        return False
    return model_type in CONFIG_MAPPING_NAMES

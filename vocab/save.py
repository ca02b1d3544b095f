"""Write a tokenizer folder that ``transformers.AutoTokenizer`` and transformers.js open with the same ids.

A tokenizer class that rebuilds its pipeline from the vocabulary alone (XLM-R's would lose the normaliser) is not named:
``PreTrainedTokenizerFast`` takes tokenizer.json as it is. ``BertTokenizer`` is named where it builds the very same
pipeline, because browsers give token type ids only to that class.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer

from vocab.roles import roles_of
from vocab.surfaces import Spec, spec_of

KEPT_KEYS = ("padding_side", "truncation_side", "clean_up_tokenization_spaces", "add_prefix_space")
FLAGS = ("lstrip", "rstrip", "normalized", "single_word")
WITHOUT_TOKEN_TYPES = ("DistilBert", "MPNet", "Roberta", "Camembert")


def save_tokenizer(tokenizer: Tokenizer, folder: Path, teacher_config: dict[str, object], max_length: int) -> None:
    """Write ``tokenizer.json`` (compact, no truncation, no padding) and ``tokenizer_config.json``.

    Args:
        tokenizer: the student's.
        folder: made if missing.
        teacher_config: the teacher's tokenizer_config.json; ``{}`` if it has none.
        max_length: longest input in tokens, special ones included.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = tokenizer_config(spec_of(tokenizer), teacher_config, max_length)
    _write(folder / "tokenizer.json", compact_json(tokenizer))
    _write(folder / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True))


def compact_json(tokenizer: Tokenizer) -> str:
    """Return the tokenizer.json of a package: one line, without truncation and padding, which the runtime does."""
    spec = spec_of(tokenizer)
    spec["truncation"] = spec["padding"] = None
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))


def tokenizer_config(spec: Spec, teacher_config: dict[str, object], max_length: int) -> dict[str, object]:
    """Return what transformers and transformers.js need to know beside the tokenizer.json."""
    teacher_class = str(teacher_config.get("tokenizer_class", ""))
    has_types = _has_token_types(spec) and not teacher_class.startswith(WITHOUT_TOKEN_TYPES)
    names = ["input_ids", "token_type_ids", "attention_mask"] if has_types else ["input_ids", "attention_mask"]
    config: dict[str, object] = {key: teacher_config[key] for key in KEPT_KEYS if teacher_config.get(key) is not None}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, "model_input_names": names}
    config.setdefault("clean_up_tokenization_spaces", False)
    config |= _roles(spec, teacher_config)
    if has_types and _is_bert(spec):
        normalizer = spec["normalizer"]
        config |= {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
    return config


def _roles(spec: Spec, teacher_config: dict[str, object]) -> dict[str, object]:
    """Return role -> token, as the teacher names them; with their flags where those are not the usual ones."""
    added = {token["content"]: token for token in spec["added_tokens"]}
    roles: dict[str, object] = {}
    for role, found in roles_of(spec, teacher_config).items():
        flags = {key: bool(added.get(found, {}).get(key)) for key in FLAGS}
        full = {"__type": "AddedToken", "content": found, "special": True, **flags}
        roles[role] = full if any(flags.values()) else found
    return roles


def _has_token_types(spec: Spec) -> bool:
    processor = spec["post_processor"] or {}
    if processor.get("type") == "TemplateProcessing":
        return any(next(iter(piece.values()))["type_id"] for piece in processor["pair"])
    return processor.get("type") == "BertProcessing"


def _is_bert(spec: Spec) -> bool:
    """Say whether ``BertTokenizer`` builds just this pipeline."""
    normalizer, model = spec["normalizer"] or {}, spec["model"]
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and spec["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and (model["type"], model["continuing_subword_prefix"]) == ("WordPiece", "##")
        and model["max_input_chars_per_word"] == 100
        and not any(token["lstrip"] or token["rstrip"] or token["normalized"] for token in spec["added_tokens"])
    )


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
    temporary.replace(path)

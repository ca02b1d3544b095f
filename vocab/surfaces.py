"""What a token stands for: its text, and whether it opens a word or continues one, whatever the tokenizer writes it as.

WordPiece marks what continues (``##ing``), SentencePiece marks what opens (``▁sing``), byte-level BPE marks the space
and writes bytes as letters (``Ġsing``, ``Ã©``). Refuses BPE with an end-of-word suffix and WordLevel.
"""

import json
from functools import cache
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer

from vocab.refused import Refused

Kind = Literal["wordpiece", "unigram", "bpe"]
Scheme = Literal["wordpiece", "metaspace", "bytelevel"]
Spec = dict[str, Any]  # a tokenizer.json, which has no schema of its own

SPACE_MARK = "▁"
MODEL_KINDS: dict[str, Kind] = {"WordPiece": "wordpiece", "Unigram": "unigram", "BPE": "bpe"}


class Surface(NamedTuple):
    """The text of a token and whether it opens a word."""

    text: str
    is_initial: bool


def spec_of(tokenizer: Tokenizer) -> Spec:
    """Return the tokenizer.json of a tokenizer as nested dictionaries."""
    spec: Spec = json.loads(tokenizer.to_str())
    return spec


def bare(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy without truncation and padding."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def kind_of(tokenizer_json: str) -> Kind:
    """Return the kind of model in a tokenizer.json: wordpiece, unigram or bpe.

    Raises:
        ValueError: for any other model, by name.
    """
    model = json.loads(tokenizer_json)["model"]
    # Files of old releases leave the type out; each kind is known by a key of its own.
    keys = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}
    name = model.get("type") or next((kind for key, kind in keys.items() if key in model), "unnamed")
    if name not in MODEL_KINDS or model.get("end_of_word_suffix"):
        suffix = " with an end-of-word suffix" if name in MODEL_KINDS else ""
        raise Refused(
            f"tokenizer: a {name} model{suffix} is not supported. Use a teacher with WordPiece, Unigram or BPE."
        )
    return MODEL_KINDS[name]


def scheme_of(spec: Spec) -> Scheme:
    """Return how the tokenizer writes the start of a word."""
    if spec["model"].get("type") == "WordPiece":
        return "wordpiece"
    steps = parts(spec.get("pre_tokenizer")) + parts(spec.get("normalizer"))
    return "bytelevel" if any(step["type"] == "ByteLevel" for step in steps) else "metaspace"


def parts(component: Spec | None) -> list[Spec]:
    """Return the steps of a normaliser, pre-tokeniser or post-processor, nested sequences flattened."""
    if component is None:
        return []
    if component["type"] != "Sequence":
        return [component]
    key = next(key for key in ("normalizers", "pretokenizers", "processors") if key in component)
    return [step for member in component[key] for step in parts(member)]


def special_tokens(spec: Spec) -> list[str]:
    """Return the tokens that no text is cut into (added, unknown, the template's) in the order of their ids."""
    ids = {token["content"]: token["id"] for token in spec["added_tokens"]}
    vocab = vocab_of(spec)
    model = spec["model"]
    names = [model["vocab"][model["unk_id"]][0]] if model.get("unk_id") is not None else []
    names += [model["unk_token"]] if model.get("unk_token") else []
    for step in parts(spec.get("post_processor")):
        names += step["special_tokens"] if step["type"] == "TemplateProcessing" else []
        names += [step[role][0] for role in ("cls", "sep") if role in step]
    ids.update((name, vocab[name]) for name in names if name in vocab)
    return sorted(ids, key=lambda name: (ids[name], name))


def unknown_token(spec: Spec) -> str | None:
    """Return the token that stands for what cannot be read; ``None`` for a tokenizer that reads every byte."""
    model = spec["model"]
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token") or None


def vocab_of(spec: Spec) -> dict[str, int]:
    """Return token -> id of the model and of the added tokens."""
    vocab = spec["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {token: index for index, (token, _) in enumerate(vocab)}
    ids.update((token["content"], token["id"]) for token in spec["added_tokens"])
    return ids


def surfaces(spec: Spec) -> dict[str, Surface]:
    """Return the surface of every token that has one: not the special ones, and not single bytes of a character."""
    skip = set(special_tokens(spec))
    read = {"wordpiece": _wordpiece, "metaspace": _metaspace, "bytelevel": _bytelevel}[scheme_of(spec)]
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    has_bytes = bool(spec["model"].get("byte_fallback"))
    found = {}
    for token in vocab_of(spec):
        if token in skip or (has_bytes and is_byte_token(token)):
            continue
        surface = read(token, prefix)
        if surface is not None and surface.text:
            found[token] = surface
    return found


def is_byte_token(token: str) -> bool:
    """Say whether a token is a byte-fallback token such as ``<0xE4>``."""
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def byte_letters(text: str) -> str:
    """Return text as byte-level BPE writes it: ``byte_letters(" é") == "ĠÃ©"``."""
    letters = _letters()
    return "".join(letters[byte] for byte in text.encode("utf-8", errors="replace"))


def token_bytes(token: str) -> bytes | None:
    """Return what ``byte_letters`` has written: ``token_bytes("Ġa") == b" a"``; ``None`` for any other letters."""
    byte_of = {letter: byte for byte, letter in _letters().items()}
    if not all(letter in byte_of for letter in token):
        return None
    return bytes(byte_of[letter] for letter in token)


def _wordpiece(token: str, prefix: str) -> Surface | None:
    if prefix and token.startswith(prefix) and token != prefix:
        return Surface(token.removeprefix(prefix), False)
    return Surface(token, True)


def _metaspace(token: str, _: str) -> Surface | None:
    return Surface(token.removeprefix(SPACE_MARK), token.startswith(SPACE_MARK))


def _bytelevel(token: str, _: str) -> Surface | None:
    written = token_bytes(token)
    if written is None:
        return None
    try:
        text = written.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return Surface(text.removeprefix(" "), text.startswith(" "))


@cache
def _letters() -> dict[int, str]:
    """Return GPT-2's table: printable bytes are their own letter, the others follow from U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(printable))
    return table

"""What the teacher can read, and the normaliser under which the student reads it.

A character that the teacher reads at the start of a word, or inside one, must stay readable there; characters that no
text can bring to that place (upper case under a lower-casing normaliser, ``##`` forms of punctuation) are left out.
Normalisers are kept only where every runtime has the same one: compiled SentencePiece tables (``Precompiled``), which
browsers approximate, are replaced by NFKC. ``least_size`` counts the tokens that all of it takes.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from tokenizers import Tokenizer

from vocab.refused import Refused
from vocab.surfaces import (
    SPACE_MARK,
    Kind,
    Spec,
    is_byte_token,
    parts,
    scheme_of,
    spec_of,
    special_tokens,
    surfaces,
    vocab_of,
)

BYTES = 256
BERT_CUT = {"type": "BertPreTokenizer"}
REPRODUCIBLE = (
    "BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Replace", "StripAccents", "Strip", "Prepend",
)  # fmt: skip


class Alphabet(NamedTuple):
    """Characters that must stay readable at the start of a word and inside one."""

    initial: frozenset[str]
    continuing: frozenset[str]


def check_normalizer(tokenizer_json: str) -> None:
    """Refuse a tokenizer.json whose normaliser is not the same in every runtime.

    Raises:
        ValueError: naming the normaliser.
    """
    steps = parts(json.loads(tokenizer_json).get("normalizer"))
    refused = sorted({step["type"] for step in steps} - set(REPRODUCIBLE))
    if refused:
        raise Refused(
            f"tokenizer: normaliser {', '.join(refused)} is not the same in every runtime, expected only "
            f"{', '.join(REPRODUCIBLE)}. Train a vocabulary with 'tenmeg vocab' (or leave --vocab-size away from 0)."
        )


def student_normalizer(spec: Spec, scheme: str) -> Spec | None:
    """Return the teacher's normaliser, with what is not reproducible replaced by NFKC.

    Lower-casing is kept, and so is what the replaced part deletes or turns into a space.

    Marks that stand for spaces are left to the student's pre-tokeniser, unless the scheme is byte-level.
    """
    steps: list[Spec] = []
    for step in parts(spec.get("normalizer")):
        if scheme != "bytelevel" and step["type"] in ("Prepend", "Replace") and _writes_space(step):
            continue
        steps += [step] if step["type"] in REPRODUCIBLE else [*_deleting(step), {"type": "NFKC"}]
    if _lowers(spec.get("normalizer")) and not _lowers(_joined(steps)):
        steps.append({"type": "Lowercase"})
    return _joined(steps)


def normalizing(component: Spec | None) -> Callable[[str], str]:
    """Return the function that a normaliser, given as its JSON, computes."""
    if component is None:
        return str
    apply: Callable[[str], str] = _reader(json.dumps(component), "null").normalizer.normalize_str
    return apply


def cutting(normalizer: Spec | None, pre_tokenizer: Spec) -> Callable[[str], list[str]]:
    """Return the function from a text to its words: normalised, then cut by the pre-tokeniser."""
    normalize = normalizing(normalizer)
    cut = _reader("null", json.dumps(pre_tokenizer)).pre_tokenizer.pre_tokenize_str
    return lambda text: [word for word, _ in cut(normalize(text))]


def teacher_characters(spec: Spec) -> Alphabet | None:
    """Return the characters in the teacher's tokens, by place; ``None`` for a teacher that reads every byte."""
    has_bytes = bool(spec["model"].get("byte_fallback")) and any(map(is_byte_token, vocab_of(spec)))
    if scheme_of(spec) == "bytelevel" or has_bytes:
        return None
    found = surfaces(spec).values()
    if scheme_of(spec) == "metaspace":  # the mark of a word's start is a token of its own: any place is any other
        every = frozenset("".join(surface.text for surface in found)) - {SPACE_MARK, " "}
        return Alphabet(every, every)
    initial = frozenset(surface.text[0] for surface in found if surface.is_initial)
    continuing = frozenset("".join(surface.text[surface.is_initial :] for surface in found))
    return Alphabet(initial, continuing)


def readable(teacher: Tokenizer, normalizer: Spec | None, pre_tokenizer: Spec) -> Alphabet | None:
    """Return the characters that the student must read, each where text can bring it; ``None``: every byte."""
    spec = spec_of(teacher)
    characters = teacher_characters(spec)
    if characters is None:
        return None
    theirs, ours = normalizing(spec.get("normalizer")), normalizing(normalizer)
    if normalizer == spec.get("normalizer"):
        reached = frozenset(ours(" ".join(_characters())))
        initial, continuing = characters.initial & reached, characters.continuing & reached
    else:
        initial, continuing = (_translated(place, theirs, ours) for place in characters)
    words_of = cutting(normalizer, pre_tokenizer)
    return Alphabet(
        frozenset(c for c in initial if not _is_space(c) and _opens(c, words_of)),
        frozenset(c for c in continuing if not _is_space(c) and _continues(c, words_of)),
    )


def _translated(characters: frozenset[str], theirs: Callable[[str], str], ours: Callable[[str], str]) -> frozenset[str]:
    """Return what the student's normaliser makes of the characters that the teacher's makes readable."""
    source = (c for c in _characters() if characters.issuperset(theirs(c).strip(" " + SPACE_MARK)))
    return frozenset("".join(map(ours, source)))


def _opens(character: str, words_of: Callable[[str], list[str]]) -> bool:
    words = [word for before in ("", "a ", ".") for word in words_of(before + character)]
    if not any(character in word for word in words):
        return True  # reached only from another character: keep it, to be safe
    return any(word.removeprefix(SPACE_MARK).startswith(character) for word in words)


def _continues(character: str, words_of: Callable[[str], list[str]]) -> bool:
    # Several neighbours, since a normaliser may compose the character with one of them ("a" + U+0301 -> "á").
    words = [word for before in ("a", "0", character) for word in words_of(before + character)]
    if not any(character in word for word in words):
        return True
    return any(character in word.removeprefix(SPACE_MARK)[1:] for word in words)


def _deleting(step: Spec) -> list[Spec]:
    """Return replacements for the characters that a compiled table deletes or makes a space, and NFKC does not."""
    theirs, ours = normalizing(step), normalizing({"type": "NFKC"})
    steps = []
    for content in ("", " "):
        characters = [c for c in _characters() if theirs(c) == content and ours(c) != content]
        if characters:
            pattern = "[" + "".join(f"\\{c}" if c in r"\]^-[&~" else c for c in characters) + "]"
            steps.append({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
    return steps


def _is_space(character: str) -> bool:
    return character.isspace() and not "\x1c" <= character <= "\x1f"  # Python alone calls these four white space


def _writes_space(step: Spec) -> bool:
    content = step.get("content", step.get("prepend", ""))
    return content in (SPACE_MARK, " ")


def _lowers(component: Spec | None) -> bool:
    return normalizing(component)("ABC").endswith("abc")


def _joined(steps: list[Spec]) -> Spec | None:
    if len(steps) < 2:
        return steps[0] if steps else None
    return {"type": "Sequence", "normalizers": steps}


def least_size(teacher: Tokenizer, kind: Kind) -> int:
    """Return the smallest size that ``vocab.train.train_vocabulary`` accepts, to within a few tokens.

    WordPiece needs a token for every character in each position; Unigram and BPE fall back to the 256 bytes.
    """
    spec = spec_of(teacher)
    n_specials = len(special_tokens(spec)) + 1
    if kind != "wordpiece":
        return n_specials + BYTES + 4
    is_same = scheme_of(spec) == "wordpiece"
    pre_tokenizer = spec["pre_tokenizer"] if is_same and parts(spec["pre_tokenizer"]) else BERT_CUT
    alphabet = readable(teacher, student_normalizer(spec, "wordpiece"), pre_tokenizer)
    if alphabet is None:
        return n_specials + BYTES
    return n_specials + len(alphabet.initial) + len(alphabet.continuing)


@lru_cache(maxsize=64)
def _reader(normalizer: str, pre_tokenizer: str) -> Tokenizer:
    """Build a tokenizer that has the two parts and no vocabulary."""
    model = '{"type":"WordLevel","vocab":{"?":0},"unk_token":"?"}'
    return Tokenizer.from_str(
        f'{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{normalizer},'
        f'"pre_tokenizer":{pre_tokenizer},"post_processor":null,"decoder":null,"model":{model}}}'
    )


@lru_cache(maxsize=1)
def _characters() -> tuple[str, ...]:
    """Return every code point of the planes in use, also those that this Python's Unicode does not know yet."""
    codes = (*range(0xD800), *range(0xF900, 0x323B0), *range(0xE0001, 0xE01F0))
    return tuple(map(chr, codes))

"""Say each student token as weighted teacher tokens, so that its first embedding can be made from the teacher's.

A token that the teacher has too is that token, weight 1. Any other is cut by the teacher, as the start of a word or as
its continuation, whichever it is, and its pieces share the weight equally. Special tokens go by name, then by role.
What the teacher cannot read stays without a source, and is listed. Nothing is learned here.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from vocab.alphabet import cutting
from vocab.refused import Refused
from vocab.surfaces import (
    SPACE_MARK,
    Spec,
    Surface,
    byte_letters,
    scheme_of,
    spec_of,
    special_tokens,
    surfaces,
    unknown_token,
    vocab_of,
)
from vocab.wordpiece import Lexicon

FORMAT_VERSION = 1
SAME_ROLE = (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"))

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Cut = Callable[[Surface], list[int]]


class VocabMap(NamedTuple):
    """A sparse matrix (rows: student tokens, columns: teacher ids) in CSR form, and what became of the rows.

    ``coverage`` counts the rows that are ``exact``, ``special``, ``composed`` of several pieces and ``unmapped``, and
    lists the last as ``unmapped_tokens``.
    """

    indptr: Integers
    indices: Integers
    weights: Floats
    coverage: dict[str, object]


def map_vocabulary(student: Tokenizer, teacher: Tokenizer) -> VocabMap:
    """Return the student's tokens as weighted teacher tokens; any kinds may meet."""
    ours, theirs = spec_of(student), spec_of(teacher)
    known = vocab_of(theirs)
    found = surfaces(ours)
    by_surface = {surface: known[token] for token, surface in surfaces(theirs).items()}
    is_same_scheme = scheme_of(ours) == scheme_of(theirs)
    cut = _cutter(teacher, theirs, by_surface, has_same_words=_words(ours) == _words(theirs))
    specials = set(special_tokens(ours))
    rows: list[list[int]] = []
    counts = {"exact": 0, "special": 0, "composed": 0, "unmapped": 0}
    unmapped = []
    tokens = vocab_of(ours)
    for token in sorted(tokens, key=tokens.__getitem__):
        if token in specials:
            row, outcome = _special(token, known), "special"
        elif is_same_scheme and token in known:
            row, outcome = [known[token]], "exact"
        elif token in found and found[token] in by_surface:
            row, outcome = [by_surface[found[token]]], "exact"
        elif token in found:
            row, outcome = cut(found[token]), "composed"
        else:
            row, outcome = _part_of_character(token, teacher, scheme_of(theirs) if is_same_scheme else ""), "composed"
        if not row:
            outcome = "unmapped"
            unmapped.append(token)
        counts[outcome] += 1
        rows.append(row)
    lengths = [len(row) for row in rows]
    return VocabMap(
        np.cumsum([0, *lengths], dtype=np.int64),
        np.array([id_ for row in rows for id_ in row], dtype=np.int64),
        np.array([1 / len(row) for row in rows for _ in row], dtype=np.float32),
        {**counts, "unmapped_tokens": unmapped},
    )


def apply(vocab_map: VocabMap, teacher_embeddings: npt.NDArray[np.floating]) -> Floats:
    """Return the student's embedding table; rows without a source get the mean of the teacher's table.

    Raises:
        ValueError: if the table has too few rows for the map.
    """
    n_rows = len(vocab_map.indptr) - 1
    highest = int(vocab_map.indices.max(initial=-1))
    if highest >= len(teacher_embeddings):
        raise Refused(
            f"vocabulary map: it names teacher token {highest}, but the embedding table has {len(teacher_embeddings)} "
            "rows. Use the tokenizer that belongs to the teacher."
        )
    lengths = np.diff(vocab_map.indptr)
    made = np.tile(teacher_embeddings.mean(axis=0, dtype=np.float64).astype(np.float32), (n_rows, 1))
    made[lengths > 0] = 0
    for place in range(int(lengths.max(initial=0))):  # the first pieces of all rows, then the second ones, ...
        rows = np.flatnonzero(lengths > place)
        entries = vocab_map.indptr[rows] + place
        made[rows] += vocab_map.weights[entries, None] * teacher_embeddings[vocab_map.indices[entries]]  # (rows, width)
    return made


def save(vocab_map: VocabMap, path: Path) -> None:
    """Write the map as .npz, under a temporary name first; the same map gives the same bytes."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        np.savez(
            file,
            version=np.int64(FORMAT_VERSION),
            indptr=vocab_map.indptr,
            indices=vocab_map.indices,
            weights=vocab_map.weights,
            coverage=np.array(json.dumps(vocab_map.coverage, sort_keys=True)),
        )
    temporary.replace(path)


def load(path: Path) -> VocabMap:
    """Read what ``save`` wrote.

    Raises:
        FileNotFoundError, ValueError: if it is not there, or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"vocabulary map: {path} does not exist. Make it with 'tenmeg vocab'.")
    with np.load(path, allow_pickle=False) as file:
        version = int(file["version"]) if "version" in file else 0
        if version != FORMAT_VERSION:
            raise Refused(
                f"vocabulary map: {path} has format {version}, expected {FORMAT_VERSION}. "
                "Make it again with 'tenmeg vocab'."
            )
        return VocabMap(file["indptr"], file["indices"], file["weights"], json.loads(str(file["coverage"])))


def _special(token: str, known: dict[str, int]) -> list[int]:
    group = next((group for group in SAME_ROLE if token in group), ())
    return [known[name] for name in (token, *group) if name in known][:1]


def _part_of_character(token: str, teacher: Tokenizer, scheme: str) -> list[int]:
    """Cut the bytes of an unfinished character, which have no surface; only a byte-level teacher can."""
    return [piece.id for piece in teacher.model.tokenize(token)] if scheme == "bytelevel" else []


def _cutter(teacher: Tokenizer, spec: Spec, by_surface: dict[Surface, int], *, has_same_words: bool) -> Cut:
    """Return the function that cuts a surface as the teacher would in the middle of a text."""
    scheme = scheme_of(spec)
    unknown = vocab_of(spec).get(unknown_token(spec) or "")
    lexicon = Lexicon.of(by_surface) if scheme == "wordpiece" else None
    model = teacher.model

    def cut_word(word: Surface) -> list[int]:
        if lexicon is not None:
            return [by_surface[piece] for piece in lexicon.cut(word)]
        written = SPACE_MARK * word.is_initial + word.text
        if scheme == "bytelevel":
            written = byte_letters(" " * word.is_initial + word.text)
        return [piece.id for piece in model.tokenize(written) if piece.id != unknown]

    def cut(surface: Surface) -> list[int]:
        return [id_ for word in _teacher_words(surface, spec, scheme) for id_ in cut_word(word)]

    return cut_word if has_same_words else cut


def _teacher_words(surface: Surface, spec: Spec, scheme: str) -> list[Surface]:
    """Cut a surface where the teacher's words end: WordPiece takes "don't" for three words, SentencePiece for one."""
    if scheme == "bytelevel" or spec.get("pre_tokenizer") is None:
        return [surface]  # its merges do not cross the ends of words
    # A letter in front makes the rest a continuation; it is taken off again.
    text = surface.text if surface.is_initial else "a" + surface.text
    words = [word.removeprefix(SPACE_MARK) for word in cutting(spec.get("normalizer"), spec["pre_tokenizer"])(text)]
    if not surface.is_initial and words:
        words[0] = words[0].removeprefix("a")
    return [Surface(word, surface.is_initial or place > 0) for place, word in enumerate(words) if word]


def _words(spec: Spec) -> tuple[object, object]:
    """Return what decides where words end."""
    return spec.get("normalizer"), spec.get("pre_tokenizer")

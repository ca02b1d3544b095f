"""Unigram and BPE pieces trained by sentencepiece, as the model part of a tokenizer.json: the truth from then on.

sentencepiece sees words, each as often as it occurs, already normalised and cut at spaces, so that its own normaliser
has nothing to do. Scores are rounded to three decimals: they only rank cuttings, and the file is a third smaller.
"""

import io
import logging
import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

import sentencepiece

from vocab.refused import Refused
from vocab.surfaces import SPACE_MARK, Spec
from vocab.wordpiece import repeated

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
CORPUS_WEIGHT = 8  # a word of the corpus against a word of the teacher, when that has to fill up
MAX_WORDS = 20_000_000  # counts are scaled down to so many words in all
RARE = 10.0  # letters that the corpus never had score so much below everything else

logger = logging.getLogger(__name__)


class Piece(NamedTuple):
    """A piece and its log-probability (Unigram) or minus its rank (BPE)."""

    text: str
    score: float


def train_pieces(
    words: Counter[str], letters: Iterable[str], n_pieces: int, kind: Literal["unigram", "bpe"], extra: Iterable[str]
) -> list[Piece]:
    """Return ``n_pieces`` pieces, or as many as there are, the space mark and every given letter among them.

    Args:
        words: counts of words, without spaces; all their letters are among ``letters``.
        letters: characters that get a piece whatever the corpus says.
        n_pieces: at least one more than the letters.
        kind: which of sentencepiece's trainers.
        extra: pieces of the teacher, the most useful first, to fill up with when the corpus is too small.
    """
    needed = {SPACE_MARK, *letters}
    assert n_pieces >= len(needed)
    counts = Counter({word: -(-count * MAX_WORDS // max(MAX_WORDS, words.total())) for word, count in words.items()})
    pieces = _train(counts, needed, n_pieces, kind)
    if len(pieces) == n_pieces:
        return pieces
    known = {piece.text for piece in pieces}
    more = [text for text in dict.fromkeys(extra) if needed.issuperset(text) and text not in known]
    if kind == "unigram":
        lowest = min((piece.score for piece in pieces if len(piece.text) > 1), default=0.0)
        return pieces + [Piece(text, lowest) for text in more][: n_pieces - len(pieces)]
    # BPE reaches a piece only by merges, so it has to learn them.
    counts = Counter({word: count * CORPUS_WEIGHT for word, count in counts.items()})
    counts.update(text.removeprefix(SPACE_MARK) for text in more if text.startswith(SPACE_MARK))
    return _train(counts, needed, n_pieces, kind)


def unigram_model(specials: list[str], unknown: str, pieces: list[Piece], has_bytes: bool) -> Spec:
    """Return the model of a tokenizer.json: special tokens, bytes if asked, then the pieces."""
    lowest = min(piece.score for piece in pieces)
    vocab: list[list[object]] = [[token, 0.0] for token in specials]
    # Bytes are taken only where nothing else fits; the lattice never finds their text.
    vocab += [[token, round(lowest - RARE, 3)] for token in BYTES] if has_bytes else []
    vocab += [[piece.text, round(piece.score, 3)] for piece in pieces]
    return {"type": "Unigram", "unk_id": specials.index(unknown), "vocab": vocab, "byte_fallback": has_bytes}


def bpe_model(specials: list[str], unknown: str, pieces: list[Piece], has_bytes: bool) -> Spec:
    """Return the model of a tokenizer.json, with the merges that sentencepiece keeps only as scores.

    sentencepiece joins the neighbours that make the best piece; so each piece, best first, gives one merge for each way
    of splitting it into two pieces.
    """
    tokens = [*specials, *(BYTES if has_bytes else ()), *(piece.text for piece in pieces)]
    known = {piece.text for piece in pieces}
    merges = []
    for piece in sorted(pieces, key=lambda piece: -piece.score):
        splits = ((piece.text[:i], piece.text[i:]) for i in range(1, len(piece.text)))
        merges += [[left, right] for left, right in splits if left in known and right in known]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": has_bytes,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
    }


def _train(counts: Counter[str], needed: set[str], n_pieces: int, kind: Literal["unigram", "bpe"]) -> list[Piece]:
    """Train at most ``n_pieces``; letters that sentencepiece left out take the places of the worst pieces."""
    learned: list[Piece] = []
    if counts:
        learned = _run(counts, n_pieces + 1, kind)  # one more: sentencepiece insists on an unknown token of its own
    letters = {piece.text: piece for piece in learned if len(piece.text) == 1 and piece.text in needed}
    lowest = min((piece.score for piece in learned), default=0.0)
    missing = [Piece(letter, lowest - RARE) for letter in sorted(needed - set(letters))]
    longer = [piece for piece in learned if len(piece.text) > 1 and needed.issuperset(piece.text)]
    n_longer = n_pieces - len(letters) - len(missing)
    return sorted([*letters.values(), *longer[:n_longer], *missing], key=lambda piece: (-piece.score, piece.text))


def _run(counts: Counter[str], size: int, kind: Literal["unigram", "bpe"]) -> list[Piece]:
    """Call sentencepiece; a size that the corpus does not give is lowered to the largest that it does."""
    # Not as a table of counts: Unigram's first pieces would be parts of several distinct words only, and never "▁the".
    lines = list(repeated(counts))
    try:
        return _call(lines, size, kind)
    except RuntimeError as error:
        largest = re.search(r"value <= (\d+)", str(error))
        if largest is None:
            raise Refused(f"vocabulary: sentencepiece refuses the corpus: {error}.") from error
        logger.info("the corpus gives %s %s pieces at most, asked for %s", largest.group(1), kind, size)
        return _call(lines, int(largest.group(1)), kind)


def _call(lines: list[str], size: int, kind: str) -> list[Piece]:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type=kind,
        vocab_size=size,
        character_coverage=1.0,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=1,  # sums in another order round another way
        max_sentence_length=1 << 20,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = range(1, trained.get_piece_size())
    return [Piece(trained.id_to_piece(i), trained.get_score(i)) for i in pieces]

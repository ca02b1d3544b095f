"""Cut the same texts with two tokenizers and compare the pieces, whatever kinds the two are.

Pieces are compared by what they stand for (``vocab.surfaces``): WordPiece's ``##ing``, SentencePiece's ``ing`` and the
letters of byte-level BPE are one piece where they are the same text. The mark of a space does not count, a mark that
stands alone does: it is a token that the model has to read. Two unknown tokens are the same piece.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from vocab.surfaces import (
    SPACE_MARK,
    Scheme,
    is_byte_token,
    scheme_of,
    spec_of,
    special_tokens,
    surfaces,
    token_bytes,
    unknown_token,
    vocab_of,
)

CHUNK = 4096
UNKNOWN = "[UNK]"  # whatever the tokenizer calls it

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Cut(NamedTuple):
    """One tokenizer's cut of some texts without special tokens, laid end to end."""

    pieces: Ints  # (tokens,) what each stands for, as a number that both readers of a pair share
    bounds: Ints  # (tokens, 2) start and end of each in its own text
    is_unknown: Bools  # (tokens,)
    lengths: Ints  # (texts,) tokens of each


class Reader:
    """Cuts texts with one tokenizer; cuts of readers that share ``numbers`` (text of a piece -> number) compare."""

    def __init__(self, tokenizer: Tokenizer, numbers: dict[str, int]) -> None:
        self.tokenizer = tokenizer
        spec = spec_of(tokenizer)
        self.unknown = unknown_token(spec)
        ids, scheme = vocab_of(spec), scheme_of(spec)
        self.unknown_id = ids.get(self.unknown, -1) if self.unknown else -1
        texts = {token: surface.text for token, surface in surfaces(spec).items()}
        texts |= {token: token for token in special_tokens(spec)}
        self.piece_of = np.zeros(max(ids.values(), default=0) + 1, np.int64)
        for token, id_ in ids.items():
            text = UNKNOWN if id_ == self.unknown_id else texts[token] if token in texts else _partial(token, scheme)
            self.piece_of[id_] = numbers.setdefault(text, len(numbers))

    def cut(self, texts: list[str]) -> Cut:
        """Return the cut of the texts; an unknown token that the text itself spells out is not counted as unknown."""
        encodings = _encode(self.tokenizer, texts)
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64)  # (tokens,)
        bounds = flat(encoding.offsets for encoding in encodings)
        is_unknown = ids == self.unknown_id
        found = np.flatnonzero(is_unknown)
        rows = np.searchsorted(np.cumsum(lengths), found, side="right")
        for token, row in zip(found.tolist(), rows.tolist(), strict=True):
            start, end = bounds[token]
            is_unknown[token] = texts[row][start:end].strip() != self.unknown
        return Cut(self.piece_of[ids], bounds, is_unknown, lengths)


def same_pieces(groups: tuple[Ints, Ints], pieces: tuple[Ints, Ints], n_groups: int) -> Bools:
    """Say of each group (a word, a text) whether two cuts make the same pieces of it, in the same order.

    Args:
        groups: of each token of either cut, in ascending order.
        pieces: of each token of either cut.
        n_groups: how many there are; one without any token in both is the same.
    """
    counts = [np.bincount(which, minlength=n_groups) for which in groups]
    is_same: Bools = counts[0] == counts[1]
    left, right = (cut[is_same[which]] for which, cut in zip(groups, pieces, strict=True))
    is_same[groups[0][is_same[groups[0]]][left != right]] = False
    return is_same


def flat(spans: Iterable[list[tuple[int, int]]]) -> Ints:
    """Return many lists of (start, end) as one array: (spans, 2)."""
    return np.fromiter(chain.from_iterable(chain.from_iterable(spans)), np.int64).reshape(-1, 2)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of ``CHUNK``."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch


def _partial(token: str, scheme: Scheme) -> str:
    r"""Return the text of a token that has no surface: bytes of a character (``\xc3``) or a lone mark (nothing)."""
    written = bytes.fromhex(token[3:5]) if is_byte_token(token) else None
    if scheme == "bytelevel":
        written = token_bytes(token)
    if written is None:
        return token.removeprefix(SPACE_MARK) if scheme == "metaspace" else token
    return written.removeprefix(b" ").decode("utf-8", errors="backslashreplace")


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Encode without special tokens; the caller's truncation and padding are put back afterwards."""
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        return tokenizer.encode_batch(texts, add_special_tokens=False)
    finally:
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)
        if padding is not None:
            tokenizer.enable_padding(**padding)

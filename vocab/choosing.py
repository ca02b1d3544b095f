"""The rules by which tokens are chosen: what the corpus loses when a token goes. Count x price, summed over its uses.

    cuts        worth x count x (pieces without it - 1)
                A token the teacher does not have is worth a quarter of one that it has, because its embedding must be
                guessed. On 67,349 film-review phrases, 6,000 tokens: 12.49 tokens per text and 99 % of them the
                teacher's, against 12.83 and 79 % with the trainer alone. The default.
    frequency   the merges of the usual trainer, most frequent first; nothing is pruned, so there is no loss here
    likelihood  count x (log p(token) - log p(its best other cut)), p the Unigram probabilities of the present cut.
                As in SentencePiece (Kudo 2018, section 3.2) the pieces of the other cut take over the token's count.
    embedding   count x |e(token) - mean of e(pieces without it)|^2, e the rows of the teacher's embedding table.
                A token the teacher does not have would start as the mean of its pieces anyway: dropping it changes no
                embedding, it only makes the text longer. So it is worth a quarter of what an extra piece costs on
                average among the teacher's tokens: 1/4 x count x (pieces without it - 1) x that.

All of them judge candidates of the longest-match cut and keep every letter; a candidate that is not used loses nothing.
A trainer with a rule of its own (SentencePiece's Unigram: likelihood; BPE: frequency) has no other.
"""

import math
from collections import Counter
from collections.abc import Collection
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from vocab.refused import Refused
from vocab.surfaces import Kind, Surface
from vocab.wordpiece import Lexicon, Losses

Rule = Literal["cuts", "frequency", "likelihood", "embedding"]
Floats = npt.NDArray[np.float32]

DEFAULT_RULE: Rule = "cuts"
OWN_RULES: dict[Kind, Rule] = {"unigram": "likelihood", "bpe": "frequency"}  # what these trainers do by themselves
NEW_TOKEN_WORTH = 0.25
LEAST_COUNT = 0.5  # of a token that the corpus does not use: its logarithm must be finite
CHUNK = 4096  # rows of the embedding table that are compared at a time


def check_rule(rule: str, kind: Kind) -> None:
    """Refuse a rule that is unknown, or that a kind of tokenizer cannot be trained by.

    Raises:
        ValueError: naming the rules that work.
    """
    known = get_args(Rule)
    if rule not in known:
        raise Refused(f"vocabulary: rule {rule!r} is unknown. Use {', '.join(known)}.")
    own = OWN_RULES.get(kind)
    if own is not None and rule not in (DEFAULT_RULE, own):
        raise Refused(
            f"vocabulary: rule {rule!r} is for wordpiece only; a {kind} vocabulary is trained by {own}. "
            "Leave --vocab-rule out, or use --vocab-kind wordpiece."
        )


def cut_losses(known: Collection[Surface]) -> Losses:
    """Return the rule ``cuts``; ``known`` are the tokens that the teacher has."""

    def losses(lexicon: Lexicon, used: Counter[Surface], candidates: Collection[Surface]) -> dict[Surface, float]:
        found = dict.fromkeys(candidates, 0.0)
        for surface in candidates:
            if used[surface]:
                worth = 1.0 if surface in known else NEW_TOKEN_WORTH
                found[surface] = worth * used[surface] * (len(_pieces(lexicon, surface)) - 1)
        return found

    return losses


def likelihood_losses() -> Losses:
    """Return the rule ``likelihood``: nats of the corpus under the Unigram model of the present cut."""

    def losses(lexicon: Lexicon, used: Counter[Surface], candidates: Collection[Surface]) -> dict[Surface, float]:
        total = used.total()
        scores: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for is_continuing, texts in enumerate((lexicon.openings, lexicon.continuations)):
            for text in texts:
                scores[is_continuing][text] = math.log(max(used[Surface(text, not is_continuing)], LEAST_COUNT) / total)
        found = dict.fromkeys(candidates, 0.0)
        for surface in candidates:
            count = used[surface]
            if count:
                other = best_other_cut(surface, *scores)
                after = total + count * (len(other) - 1)
                log_other = sum(math.log((used[piece] + count) / after) for piece in other)
                found[surface] = count * (math.log(count / total) - log_other)
        return found

    return losses


def embedding_losses(known: Collection[Surface], rows: dict[Surface, int], table: Floats) -> Losses:
    """Return the rule ``embedding``.

    Args:
        known: the tokens that the teacher has.
        rows: the row of each token of the first lexicon.
        table: the teacher's embeddings (rows, width), composed where it has none.
    """

    def losses(lexicon: Lexicon, used: Counter[Surface], candidates: Collection[Surface]) -> dict[Surface, float]:
        tokens = sorted(surface for surface in candidates if used[surface])
        pieces = [_pieces(lexicon, surface) for surface in tokens]
        errors = _squared_distances(table, [rows[s] for s in tokens], [[rows[s] for s in cut] for cut in pieces])
        counts = np.array([used[surface] for surface in tokens], dtype=np.float64)  # (tokens,)
        extra = np.array([len(cut) - 1 for cut in pieces], dtype=np.float64)
        is_known = np.array([surface in known for surface in tokens], dtype=bool)
        n_extra = float((counts * extra)[is_known].sum())
        per_piece = float((counts * errors)[is_known].sum()) / n_extra if n_extra else 1.0
        lost = counts * np.where(is_known, errors, NEW_TOKEN_WORTH * extra * per_piece)
        return {**dict.fromkeys(candidates, 0.0), **dict(zip(tokens, lost.tolist(), strict=True))}

    return losses


def best_other_cut(surface: Surface, openings: dict[str, float], continuations: dict[str, float]) -> list[Surface]:
    """Return the most likely cut of a token into at least two tokens, by the log-probabilities of all tokens.

    Every letter must have one, where it stands.
    """
    text = surface.text
    n_letters = len(text)
    best = [0.0, *[-math.inf] * n_letters]  # log-probability of the best cut of text[:end]
    starts = [0] * (n_letters + 1)  # where its last piece starts
    for end in range(1, n_letters + 1):
        for start in range(end):
            if end - start == n_letters:
                continue
            table = openings if surface.is_initial and start == 0 else continuations
            score = best[start] + table.get(text[start:end], -math.inf)
            if score > best[end]:
                best[end], starts[end] = score, start
    pieces: list[Surface] = []
    end = n_letters
    while end:
        pieces.append(Surface(text[starts[end] : end], surface.is_initial and starts[end] == 0))
        end = starts[end]
    return pieces[::-1]


def _pieces(lexicon: Lexicon, surface: Surface) -> list[Surface]:
    """Return what longest match makes of a token that is not there any more."""
    pieces = lexicon.without(surface).cut(surface)
    assert len(pieces) > 1, surface  # every letter of a candidate has a token
    return pieces


def _squared_distances(table: Floats, tokens: list[int], pieces: list[list[int]]) -> npt.NDArray[np.float64]:
    """Return |row of the token - mean of the rows of its pieces|^2 for each token: (tokens,)."""
    found = np.zeros(len(tokens), dtype=np.float64)
    for first in range(0, len(tokens), CHUNK):
        cuts = pieces[first : first + CHUNK]
        lengths = np.array([len(cut) for cut in cuts])
        flat = np.array([piece for cut in cuts for piece in cut])  # (pieces,)
        sums = np.add.reduceat(table[flat], np.cumsum([0, *lengths[:-1]]), axis=0)  # (tokens, width)
        rows = table[np.array(tokens[first : first + CHUNK])]
        found[first : first + CHUNK] = ((rows - sums / lengths[:, None]) ** 2).sum(axis=1, dtype=np.float64)
    return found

"""Say on real text what a student's vocabulary does to words: how many it cuts as the teacher does, and which suffer.

A word is a run of letters, digits and marks, or of anything else that is no space
(``vocab.comparing.align.word_spans``). Words that one token of either vocabulary covers together (``'s``, ``U.S``) are
looked at together, as one row of the list. Nothing is trained or changed, and nothing is judged: whoever asks decides
what is too much.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from vocab.comparing.align import word_spans
from vocab.comparing.pieces import UNKNOWN, Bools, Cut, Ints, Reader, batches, flat, same_pieces
from vocab.surfaces import SPACE_MARK

N_WORST = 20
LONGEST_SHOWN = 40  # characters of a word, and pieces of its cut

Case = tuple[str, tuple[int, ...], tuple[int, ...]]  # a word as written, the teacher's pieces, the student's


class Words(NamedTuple):
    """The words of some texts, laid end to end, in groups: those that one token covers together are one group.

    Every text ends in a group without a word: tokens of trailing white space belong to it.
    """

    n_words: Ints  # (groups,) 0 for the end of a text
    rows: Ints  # (groups,) the text of each
    bounds: Ints  # (groups, 2) start and end in that text
    of_tokens: tuple[Ints, Ints]  # (tokens,) the student's and the teacher's, in ascending order
    pieces: tuple[Ints, Ints]  # (tokens,) in the order of ``of_tokens``
    newly_unknown: Ints  # the groups that hold an unknown token of the student over text that the teacher reads


def certificate(student: Tokenizer, teacher: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Return the numbers of ``vocab.comparing.word_report.statistics`` and what becomes of the words of the texts.

    The words are counted as they run, the same word as often as it occurs:

    - ``words``: how many there are for which either vocabulary has a token.
    - ``identical_words``: the share that both cut into the same pieces (see ``vocab.comparing.pieces``).
    - ``student_tokens_per_word``, ``teacher_tokens_per_word``: all tokens over all words.
    - ``newly_unknown_words``: how many hold an unknown token of the student over text that the teacher reads;
      0 is what ``vocab.train`` promises.
    - ``worst_words``: at most 20 rows ``{"word", "count", "extra", "teacher": [piece], "student": [piece]}``, those
      with the largest ``extra`` = count x (the student's pieces - the teacher's), ties by word; what the teacher
      cannot read does not suffer. Spellings that are cut alike (``Film`` and ``film`` without case) are one row, under
      the most frequent. Long words are shortened.
    """
    numbers: dict[str, int] = {}
    ours, theirs = Reader(student, numbers), Reader(teacher, numbers)
    of_texts, of_words = TextCounts(), WordCounts()
    for batch in batches(texts):
        cuts = ours.cut(batch), theirs.cut(batch)
        of_texts.add(*cuts)
        of_words.add(batch, group_words(batch, *cuts))
    n_words = max(1, of_words.n_words)
    return {
        **sizes(student, teacher),
        **of_texts.numbers(),
        "words": of_words.n_words,
        "identical_words": of_words.n_alike / n_words,
        "student_tokens_per_word": of_texts.tokens[0] / n_words,
        "teacher_tokens_per_word": of_texts.tokens[1] / n_words,
        "newly_unknown_words": of_words.n_newly_unknown,
        "worst_words": _worst(of_words.suffering, list(numbers)),
    }


class WordCounts:
    """Counts over words, batch by batch."""

    def __init__(self) -> None:
        self.n_words = self.n_alike = self.n_newly_unknown = 0
        self.suffering: Counter[Case] = Counter()  # words that the student cuts into more pieces

    def add(self, texts: list[str], found: Words) -> None:
        """Count the words of a batch."""
        n_groups = len(found.n_words)
        student, teacher = (np.bincount(groups, minlength=n_groups) for groups in found.of_tokens)
        is_same = same_pieces(found.of_tokens, found.pieces, n_groups)
        is_read = student + teacher > 0
        self.n_words += int(found.n_words[is_read].sum())
        self.n_alike += int(found.n_words[is_read & is_same].sum())
        self.n_newly_unknown += int(found.n_words[found.newly_unknown].sum())
        self.suffering.update(_cases(texts, found, np.flatnonzero((student > teacher) & (found.n_words > 0))))


def group_words(texts: list[str], student: Cut, teacher: Cut) -> Words:
    """Return the words of the texts and the pieces of each."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    bases = np.cumsum(lengths + 1) - (lengths + 1)  # (texts,) where each starts when all are laid end to end
    # A word of no letters after the last character takes the tokens behind the last word.
    spans = [[*word_spans(text), (len(text), len(text) + 1)] for text in texts]
    n_spans = np.fromiter(map(len, spans), np.int64, len(spans))
    rows = np.repeat(np.arange(len(texts)), n_spans)  # (words,)
    limits = flat(spans)  # (words, 2)
    starts, ends = (limits + bases[rows, None]).T
    bounds = [cut.bounds + np.repeat(bases, cut.lengths)[:, None] for cut in (student, teacher)]  # (tokens, 2)

    firsts, steps = [], np.zeros(len(rows) + 1, np.int64)
    for cut_bounds in bounds:
        first = np.searchsorted(ends, cut_bounds[:, 0], side="right")  # white space goes to the next word
        last = np.searchsorted(starts, cut_bounds[:, 1], side="left") - 1
        firsts.append(first)
        is_over = last > first
        np.add.at(steps, first[is_over] + 1, 1)
        np.add.at(steps, last[is_over] + 1, -1)
    is_joined = np.cumsum(steps)[: len(rows)] > 0  # with the word before
    group_of_word = np.cumsum(~is_joined) - 1
    opens, closes = np.flatnonzero(~is_joined), np.append(np.flatnonzero(~is_joined)[1:], len(rows)) - 1
    n_words = closes - opens + 1
    n_words[group_of_word[np.cumsum(n_spans) - 1]] = 0

    of_tokens = [group_of_word[first] for first in firsts]
    orders = [np.argsort(which, kind="stable") for which in of_tokens]
    return Words(
        n_words,
        rows[opens],
        np.stack([limits[opens, 0], limits[closes, 1]], axis=1),
        (of_tokens[0][orders[0]], of_tokens[1][orders[1]]),
        (student.pieces[orders[0]], teacher.pieces[orders[1]]),
        np.unique(of_tokens[0][_is_new(bounds[0], student.is_unknown, bounds[1][teacher.is_unknown])]),
    )


def _is_new(bounds: Ints, is_unknown: Bools, teachers: Ints) -> Ints:
    """Return the unknown tokens that none of ``teachers`` (start and end of unknown tokens) overlaps."""
    found = np.flatnonzero(is_unknown)
    n_begun = np.searchsorted(np.sort(teachers[:, 0]), bounds[found, 1], side="left")
    n_over = np.searchsorted(np.sort(teachers[:, 1]), bounds[found, 0], side="right")
    return found[n_begun <= n_over]


def _cases(texts: list[str], found: Words, wanted: Ints) -> Iterator[Case]:
    """Yield the words of some groups with both cuts."""
    parts = []
    for tokens, pieces in zip(found.of_tokens[::-1], found.pieces[::-1], strict=True):
        starts, ends = (np.searchsorted(tokens, wanted, side=side).tolist() for side in ("left", "right"))
        listed = pieces.tolist()
        parts.append([tuple(listed[start:end]) for start, end in zip(starts, ends, strict=True)])
    places = zip(found.rows[wanted].tolist(), found.bounds[wanted].tolist(), strict=True)
    for (row, (start, end)), theirs, ours in zip(places, *parts, strict=True):
        yield texts[row][start:end], theirs, ours


def _worst(suffering: Counter[Case], texts: list[str]) -> list[dict[str, Any]]:
    """Return the rows of ``worst_words``; ``texts`` are those of the pieces by number."""
    totals: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    spellings: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, str]] = {}
    for (word, theirs, ours), count in suffering.items():
        if any(texts[piece] == UNKNOWN for piece in theirs):
            continue
        cut = (theirs, ours)
        totals[cut] += count
        spellings[cut] = min(spellings.get(cut, (0, word)), (-count, word))  # the most frequent, then the first
    extra = {(theirs, ours): totals[theirs, ours] * (len(ours) - len(theirs)) for theirs, ours in totals}
    chosen = sorted(totals, key=lambda cut: (-extra[cut], spellings[cut][1], cut))[:N_WORST]
    return [
        {
            "word": _shown(_shortened(spellings[cut][1])),
            "count": totals[cut],
            "extra": extra[cut],
            "teacher": _pieces(cut[0], texts),
            "student": _pieces(cut[1], texts),
        }
        for cut in chosen
    ]


def _pieces(cut: tuple[int, ...], texts: list[str]) -> list[str]:
    shown = [_shown(_shortened(texts[piece])) or SPACE_MARK for piece in cut[:LONGEST_SHOWN]]
    return shown if len(cut) <= LONGEST_SHOWN else [*shown, "..."]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def _shown(text: str) -> str:
    """Return the text with what cannot be seen (joiners, control characters, lone bytes) as its escape."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class TextCounts:
    """Counts over whole texts, batch by batch."""

    def __init__(self) -> None:
        self.tokens, self.unknown = [0, 0], [0, 0]  # student, teacher
        self.n_texts = self.n_alike = self.n_newly_unknown = 0

    def add(self, student: Cut, teacher: Cut) -> None:
        """Count a batch of texts that both have cut."""
        n_texts = len(student.lengths)
        rows, has_unknown = [], []
        for which, cut in enumerate((student, teacher)):
            rows.append(np.repeat(np.arange(n_texts), cut.lengths))  # (tokens,)
            self.tokens[which] += len(cut.pieces)
            self.unknown[which] += int(cut.is_unknown.sum())
            has_unknown.append(np.bincount(rows[which], cut.is_unknown, n_texts) > 0)
        self.n_texts += n_texts
        self.n_alike += int(same_pieces((rows[0], rows[1]), (student.pieces, teacher.pieces), n_texts).sum())
        self.n_newly_unknown += int((has_unknown[0] & ~has_unknown[1]).sum())

    def numbers(self) -> dict[str, float]:
        """Return the counts as rates; see ``statistics``."""
        n_counted = max(1, self.n_texts)
        return {
            "texts": self.n_texts,
            "student_tokens_per_text": self.tokens[0] / n_counted,
            "teacher_tokens_per_text": self.tokens[1] / n_counted,
            "student_unknown_rate": self.unknown[0] / max(1, self.tokens[0]),
            "teacher_unknown_rate": self.unknown[1] / max(1, self.tokens[1]),
            "identical_texts": self.n_alike / n_counted,
            "newly_unknown_texts": self.n_newly_unknown,
        }


def statistics(student: Tokenizer, teacher: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Return tokens per text of both, their unknown rates, and the share of texts that both cut alike.

    ``newly_unknown_texts`` counts the texts that the teacher reads whole and the student does not: it must be 0.
    ``vocab.comparing.word_report`` says the same and more, word by word.
    """
    numbers: dict[str, int] = {}
    ours, theirs = Reader(student, numbers), Reader(teacher, numbers)
    counts = TextCounts()
    for batch in batches(texts):
        counts.add(ours.cut(batch), theirs.cut(batch))
    return {**sizes(student, teacher), **counts.numbers()}


def sizes(student: Tokenizer, teacher: Tokenizer) -> dict[str, float]:
    """Return the number of tokens of both vocabularies."""
    return {"student_size": student.get_vocab_size(), "teacher_size": teacher.get_vocab_size()}

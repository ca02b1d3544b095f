"""Numbers that tell a student's vocabulary from its teacher's on real text; nothing is trained or changed here."""

from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer

from vocab.pieces import Cut, Reader, batches, same_pieces


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


def unknown_rate(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """Return the share of tokens that are the unknown one; special tokens and truncation left aside."""
    reader = Reader(tokenizer, {})
    n_tokens = n_unknown = 0
    for batch in batches(texts):
        cut = reader.cut(batch)
        n_tokens += len(cut.is_unknown)
        n_unknown += int(cut.is_unknown.sum())
    return n_unknown / max(1, n_tokens)


def statistics(student: Tokenizer, teacher: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Return tokens per text of both, their unknown rates, and the share of texts that both cut alike.

    ``newly_unknown_texts`` counts the texts that the teacher reads whole and the student does not: it must be 0.
    ``vocab.certificate`` says the same and more, word by word.
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

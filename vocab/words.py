"""A tokenizer of whole words, for students that count them: the model WordLevel, without case or accents.

Ids follow the order in which the words are given, behind [PAD] and [UNK]; there are no special tokens around a text.
What it does not know is [UNK], which is no fault here: whoever counts words leaves it out.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordLevelTrainer

from vocab.surfaces import bare, spec_of, unknown_token

PAD, UNKNOWN = "[PAD]", "[UNK]"
SPECIAL = (PAD, UNKNOWN)
ROLES = {"pad_token": PAD, "unk_token": UNKNOWN}  # keys of a tokenizer_config.json
CHUNK = 4096  # texts cut at a time: bounds memory
NO_LIMIT = 2**31 - 1  # words that a trainer may keep


class WordIds(NamedTuple):
    """Ids of the words of all texts, one after the other; text i is ``[starts[i]:starts[i + 1]]``."""

    ids: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]


def word_tokenizer(words: Sequence[str] = ()) -> Tokenizer:
    """Return the tokenizer that knows these words."""
    known = {word: number for number, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(WordLevel(known, unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def every_word(texts: Iterable[str]) -> list[str]:
    """Return all words of the texts in the order of the alphabet."""
    tokenizer = word_tokenizer()
    trainer = WordLevelTrainer(vocab_size=NO_LIMIT, min_frequency=0, show_progress=False, special_tokens=list(SPECIAL))
    tokenizer.train_from_iterator(texts, trainer)
    return sorted(tokenizer.get_vocab().keys() - set(SPECIAL))


def word_ids(tokenizer: Tokenizer, texts: Sequence[str], max_length: int, *, is_left: bool = False) -> WordIds:
    """Return the ids that a model sees; of a text that is too long the first ``max_length``, or the last."""
    kept = slice(-max_length, None) if is_left else slice(max_length)
    found, lengths = [np.zeros(0, dtype=np.int64)], [0]
    for start in range(0, len(texts), CHUNK):
        for encoding in tokenizer.encode_batch_fast(list(texts[start : start + CHUNK])):
            found.append(np.asarray(encoding.ids[kept], dtype=np.int64))
            lengths.append(len(found[-1]))
    return WordIds(np.concatenate(found), np.cumsum(lengths).astype(np.int64))


def word_bytes(words: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return what each word costs in a compact tokenizer.json, at its place: ``"film":12,``."""
    first = len(SPECIAL)
    costs = (
        len(json.dumps(word, ensure_ascii=False).encode()) + len(f":{number},")
        for number, word in enumerate(words, start=first)
    )
    return np.fromiter(costs, dtype=np.int64, count=len(words))


def word_statistics(student: Tokenizer, teacher: Tokenizer, texts: Sequence[str]) -> dict[str, Any]:
    """Return how a tokenizer of whole words reads texts beside a teacher's; names as of a word report.

    A word is what the student cuts out. It is cut as the teacher cuts it where the student knows it and one token of
    the teacher's covers it and no more; newly unknown where the student does not, and the teacher does.
    ``worst_words`` is empty: no word gains pieces.
    """
    plain, missing = bare(teacher), unknown_token(spec_of(teacher))
    unknown = SPECIAL.index(UNKNOWN)
    totals = dict.fromkeys(("words", "alike", "new", "texts", "new_texts", "unknown", "theirs", "their_unknown"), 0)
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        ours, theirs = student.encode_batch(part), plain.encode_batch(part, add_special_tokens=False)
        for text, our, their in zip(part, ours, theirs, strict=True):
            spans = _spans(text, their)
            unread = [span for span, token in zip(spans, their.tokens, strict=True) if token == missing]
            alike = _count_alike(our, set(spans) - set(unread), unknown)
            new = sum(
                number == unknown and not _overlaps(span, unread)
                for number, span in zip(our.ids, our.offsets, strict=True)
            )
            totals["words"] += len(our.ids)
            totals["alike"] += alike
            totals["new"] += new
            totals["texts"] += alike == len(our.ids) == len(spans)
            totals["new_texts"] += new > 0
            totals["unknown"] += our.ids.count(unknown)
            totals["theirs"] += len(spans)
            totals["their_unknown"] += len(unread)
    n_texts, n_words, n_theirs = (max(1, n) for n in (len(texts), totals["words"], totals["theirs"]))
    return {
        "student_size": student.get_vocab_size(),
        "teacher_size": teacher.get_vocab_size(),
        "texts": len(texts),
        "student_tokens_per_text": totals["words"] / n_texts,
        "teacher_tokens_per_text": totals["theirs"] / n_texts,
        "student_unknown_rate": totals["unknown"] / n_words,
        "teacher_unknown_rate": totals["their_unknown"] / n_theirs,
        "identical_texts": totals["texts"] / n_texts,
        "newly_unknown_texts": totals["new_texts"],
        "words": totals["words"],
        "identical_words": totals["alike"] / n_words,
        "student_tokens_per_word": totals["words"] / n_words,
        "teacher_tokens_per_word": totals["theirs"] / n_words,
        "newly_unknown_words": totals["new"],
        "worst_words": [],
    }


def _spans(text: str, encoding: Encoding) -> list[tuple[int, int]]:
    """Return where each token stands, without the white space in front that some tokenizers count to it."""
    spans = []
    for start, end in encoding.offsets:
        written = text[start:end]
        spans.append((start + len(written) - len(written.lstrip()), end))
    return spans


def _overlaps(span: tuple[int, int], others: list[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


def _count_alike(encoding: Encoding, spans: set[tuple[int, int]], unknown: int) -> int:
    pairs = zip(encoding.ids, encoding.offsets, strict=True)
    return sum(number != unknown and tuple(span) in spans for number, span in pairs)

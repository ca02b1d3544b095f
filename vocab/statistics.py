"""Numbers that tell a student's vocabulary from its teacher's on real text; nothing is trained or changed here."""

from collections.abc import Iterable, Iterator

from tokenizers import Encoding, Tokenizer

from vocab.surfaces import spec_of, unknown_token

CHUNK = 4096


def unknown_rate(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """Return the share of tokens that are the unknown one; special tokens and truncation left aside."""
    unknown = _unknown_id(tokenizer)
    n_tokens = n_unknown = 0
    for batch in _batches(texts):
        for encoding in _encode(tokenizer, batch):
            n_tokens += len(encoding.ids)
            n_unknown += encoding.ids.count(unknown)
    return n_unknown / max(1, n_tokens)


def statistics(student: Tokenizer, teacher: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Return tokens per text of both, their unknown rates, and the share of texts that both cut alike.

    ``newly_unknown_texts`` counts the texts that the teacher reads whole and the student does not: it must be 0.
    """
    ids = (_unknown_id(student), _unknown_id(teacher))
    tokens, unknown = [0, 0], [0, 0]
    n_texts = n_alike = n_newly_unknown = 0
    for batch in _batches(texts):
        for pair in zip(_encode(student, batch), _encode(teacher, batch), strict=True):
            counts = [encoding.ids.count(id_) for encoding, id_ in zip(pair, ids, strict=True)]
            for which in (0, 1):
                tokens[which] += len(pair[which].ids)
                unknown[which] += counts[which]
            n_texts += 1
            n_alike += pair[0].tokens == pair[1].tokens or (not any(counts) and pair[0].offsets == pair[1].offsets)
            n_newly_unknown += counts[0] > 0 and counts[1] == 0
    n_counted = max(1, n_texts)
    return {
        "texts": n_texts,
        "student_size": student.get_vocab_size(),
        "teacher_size": teacher.get_vocab_size(),
        "student_tokens_per_text": tokens[0] / n_counted,
        "teacher_tokens_per_text": tokens[1] / n_counted,
        "student_unknown_rate": unknown[0] / max(1, tokens[0]),
        "teacher_unknown_rate": unknown[1] / max(1, tokens[1]),
        "identical_texts": n_alike / n_counted,
        "newly_unknown_texts": n_newly_unknown,
    }


def _unknown_id(tokenizer: Tokenizer) -> int:
    token = unknown_token(spec_of(tokenizer))
    id_ = tokenizer.token_to_id(token) if token else None
    return -1 if id_ is None else id_


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


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch

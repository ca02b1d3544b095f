"""Train a vocabulary of an exact size on the user's text, with the teacher's special tokens, normaliser and template.

WordPiece and byte-level BPE through ``tokenizers``, Unigram and BPE through sentencepiece. Nothing that the teacher
reads becomes unknown: every character it can read has a token where it can read it (``vocab.alphabet``), or, where so
many do not fit, the bytes do. The same texts give the same tokenizer.json, byte for byte. It refuses sizes that do not
hold the alphabet, and WordPiece for a teacher that reads every byte.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit

from vocab import wordpiece
from vocab.alphabet import check_normalizer, cutting, readable, student_normalizer
from vocab.choosing import DEFAULT_RULE, Floats, Rule, check_rule
from vocab.refused import Refused
from vocab.save import save_tokenizer
from vocab.surfaces import SPACE_MARK, Kind, Spec, kind_of, scheme_of, spec_of, surfaces, unknown_token
from vocab.trainers import sentencepiece_json
from vocab.trainers.assemble import assemble, by_id, check_size, first_tokens
from vocab.trainers.wordpiece_trainer import wordpiece_trainer

__all__ = ["Kind", "Rule", "check_normalizer", "kind_of", "save_tokenizer", "train_sizes", "train_vocabulary"]

METASPACE = {"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": "always", "split": True}
SPACE_CUT = {"type": "WhitespaceSplit"}

logger = logging.getLogger(__name__)


def train_vocabulary(
    texts: Iterable[str],
    size: int,
    kind: Kind,
    teacher: Tokenizer,
    *,
    rule: Rule = DEFAULT_RULE,
    embeddings: Floats | None = None,
) -> Tokenizer:
    """Return a tokenizer of exactly ``size`` tokens.

    Args:
        texts: the corpus; read once.
        size: every token counts: special ones, letters, pieces.
        kind: of the student; it may differ from the teacher's.
        teacher: whose special tokens, normaliser, template and readable characters are kept.
        rule: how tokens are chosen (``vocab.choosing``).
        embeddings: the teacher's table (tokens, width), for the rule ``embedding``.

    Raises:
        ValueError: if ``size`` is too small for the alphabet (naming the least that works) or too large for the corpus,
            if ``kind`` cannot be trained by ``rule``, or if the rule needs embeddings and there are none.
    """
    tokenizer = train_sizes(texts, [size], kind, teacher, rule=rule, embeddings=embeddings)[0]
    n_tokens = tokenizer.get_vocab_size()
    if n_tokens < size:
        raise Refused(
            f"vocabulary: the text and the teacher's own tokens give {n_tokens:,} tokens, asked for {size:,}. "
            f"Use --vocab-size {n_tokens} or less, or more text."
        )
    return tokenizer


def train_sizes(
    texts: Iterable[str],
    sizes: Sequence[int],
    kind: Kind,
    teacher: Tokenizer,
    *,
    rule: Rule = DEFAULT_RULE,
    embeddings: Floats | None = None,
) -> list[Tokenizer]:
    """Return what ``train_vocabulary`` returns for each size; the corpus is read, and what sizes share is done, once.

    A size that the corpus and the teacher's tokens do not give gets the largest tokenizer that they do.
    """
    if kind not in get_args(Kind):
        raise Refused(f"vocabulary: kind {kind!r} is unknown. Use {', '.join(get_args(Kind))}.")
    check_rule(rule, kind)
    if rule == "embedding" and embeddings is None:
        raise Refused(
            "vocabulary: rule 'embedding' compares rows of the teacher's table of embeddings. Give embeddings."
        )
    spec = spec_of(teacher)
    kind_of(teacher.to_str())
    train: Callable[[int], Tokenizer]
    if kind == "bpe" and scheme_of(spec) == "bytelevel":
        train = _bytelevel_trainer(texts, spec)
    elif kind == "wordpiece":
        train = wordpiece_trainer(texts, sizes, teacher, rule, embeddings)
    else:
        train = _pieces_trainer(texts, kind, teacher, spec)
    found = [train(size) for size in sizes]
    assert all(tokenizer.get_vocab_size() <= size for tokenizer, size in zip(found, sizes, strict=True))
    return found


def _pieces_trainer(texts: Iterable[str], kind: Kind, teacher: Tokenizer, spec: Spec) -> Callable[[int], Tokenizer]:
    assert kind != "wordpiece"
    normalizer = student_normalizer(spec, "metaspace")
    alphabet = readable(teacher, normalizer, SPACE_CUT)
    specials = first_tokens(spec, is_pad_first=False)
    unknown = unknown_token(spec) or next((name for name in ("<unk>", "[UNK]") if name in specials), "<unk>")
    specials += [] if unknown in specials else [unknown]
    reserved = (*specials, "<unk>", "<0x")
    counts = wordpiece.count_words(texts, cutting(normalizer, SPACE_CUT))
    counts = Counter({word: n for word, n in counts.items() if not any(name in word for name in reserved)})
    every = None if alphabet is None else alphabet.initial | alphabet.continuing
    extra = [SPACE_MARK * surface.is_initial + surface.text for surface in by_id(spec)]
    write = sentencepiece_json.unigram_model if kind == "unigram" else sentencepiece_json.bpe_model
    cut = {"type": "Sequence", "pretokenizers": [SPACE_CUT, METASPACE]}

    def train(size: int) -> Tokenizer:
        n_bytes = len(sentencepiece_json.BYTES)
        letters = every
        has_bytes = letters is None or len(letters) > max(n_bytes, size // 2 - len(specials))
        if has_bytes:
            check_size(size, len(specials), n_bytes + 2)
            logger.warning("%s: too many characters for %s tokens; rare ones are read as bytes", kind, size)
            letters = _frequent_letters(counts, letters, (size - len(specials) - n_bytes) // 2)
        assert letters is not None
        check_size(size, len(specials), len(letters) + 1 + n_bytes * has_bytes)
        words = Counter({word: n for word, n in counts.items() if letters.issuperset(word)})
        n_pieces = size - len(specials) - n_bytes * has_bytes
        pieces = sentencepiece_json.train_pieces(words, letters, n_pieces, kind, extra)
        decoder: Spec = METASPACE
        if has_bytes:
            decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE, {"type": "Fuse"}]}
        return assemble(spec, specials, write(specials, unknown, pieces, has_bytes), normalizer, cut, decoder)

    return train


def _bytelevel_trainer(texts: Iterable[str], spec: Spec) -> Callable[[int], Tokenizer]:
    specials = first_tokens(spec, is_pad_first=False)
    alphabet = sorted(ByteLevel.alphabet())
    normalizer = student_normalizer(spec, "bytelevel")
    words = wordpiece.count_words(texts, cutting(normalizer, spec["pre_tokenizer"]))
    more = words + Counter(token for token, surface in surfaces(spec).items() if surface.is_initial)

    def learn(counts: Counter[str], size: int) -> Spec:
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = WhitespaceSplit()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
        learner.train_from_iterator(wordpiece.repeated(counts), trainer)
        model: Spec = spec_of(learner)["model"]
        return model

    def train(size: int) -> Tokenizer:
        check_size(size, len(specials), len(alphabet))
        learned = learn(words, size)
        if len(learned["vocab"]) < size:
            learned = learn(more, size)
        model = {**spec["model"], "vocab": learned["vocab"], "merges": learned["merges"]}
        return assemble(spec, specials, model, normalizer, spec["pre_tokenizer"], spec["decoder"])

    return train


def _frequent_letters(counts: Counter[str], allowed: frozenset[str] | None, n_most: int) -> frozenset[str]:
    """Return the letters of the corpus, the most frequent first where there are too many; bytes read the rest."""
    letters: Counter[str] = Counter()
    for word, n in counts.items():
        for letter in word:
            letters[letter] += n
    known = [letter for letter in letters if (allowed is None or letter in allowed) and letter != SPACE_MARK]
    return frozenset(sorted(known, key=lambda letter: (-letters[letter], letter))[:n_most])

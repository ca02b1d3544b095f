"""Train a vocabulary of an exact size on the user's text, with the teacher's special tokens, normaliser and template.

WordPiece and byte-level BPE through ``tokenizers``, Unigram and BPE through sentencepiece. Nothing that the teacher
reads becomes unknown: every character it can read has a token where it can read it (``vocab.alphabet``), or, where so
many do not fit, the bytes do. The same texts give the same tokenizer.json, byte for byte. It refuses sizes that do not
hold the alphabet, and WordPiece for a teacher that reads every byte.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import get_args

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit

from vocab import sentencepiece_json, wordpiece
from vocab.alphabet import Alphabet, check_normalizer, cutting, readable, student_normalizer
from vocab.save import save_tokenizer
from vocab.surfaces import (
    SPACE_MARK,
    Kind,
    Spec,
    Surface,
    kind_of,
    scheme_of,
    spec_of,
    special_tokens,
    surfaces,
    unknown_token,
    vocab_of,
)

__all__ = ["Kind", "check_normalizer", "kind_of", "save_tokenizer", "train_vocabulary"]

BERT_CUT = {"type": "BertPreTokenizer"}
METASPACE = {"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": "always", "split": True}
SPACE_CUT = {"type": "WhitespaceSplit"}

logger = logging.getLogger(__name__)


def train_vocabulary(texts: Iterable[str], size: int, kind: Kind, teacher: Tokenizer, seed: int = 0) -> Tokenizer:
    """Return a tokenizer of exactly ``size`` tokens.

    Args:
        texts: the corpus; read once.
        size: every token counts: special ones, letters, pieces.
        kind: of the student; it may differ from the teacher's.
        teacher: whose special tokens, normaliser, template and readable characters are kept.
        seed: nothing is drawn at random; accepted because every step of a run has one.

    Raises:
        ValueError: if ``size`` is too small for the alphabet (naming the least that works) or too large for the corpus.
    """
    del seed
    if kind not in get_args(Kind):
        raise ValueError(f"vocabulary: kind {kind!r} is unknown. Use {', '.join(get_args(Kind))}.")
    spec = spec_of(teacher)
    kind_of(teacher.to_str())
    if kind == "bpe" and scheme_of(spec) == "bytelevel":
        return _train_bytelevel(texts, size, spec)
    if kind == "wordpiece":
        return _train_wordpiece(texts, size, teacher, spec)
    return _train_pieces(texts, size, kind, teacher, spec)


def _train_wordpiece(texts: Iterable[str], size: int, teacher: Tokenizer, spec: Spec) -> Tokenizer:
    is_same = scheme_of(spec) == "wordpiece"
    normalizer = student_normalizer(spec, "wordpiece")
    pre_tokenizer = spec["pre_tokenizer"] if is_same and spec["pre_tokenizer"] else BERT_CUT
    alphabet = readable(teacher, normalizer, pre_tokenizer)
    if alphabet is None:
        raise ValueError(
            "vocabulary: the teacher reads every byte, which a wordpiece vocabulary cannot. Use kind bpe or unigram."
        )
    specials = _specials(spec, is_pad_first=True)
    _check_size(size, len(specials), len(alphabet.initial) + len(alphabet.continuing))
    # Longer words are unknown to both; a teacher of another kind has no such limit, but a quadratic cut needs one.
    longest = int(spec["model"]["max_input_chars_per_word"]) if is_same else 1000
    model: Spec = {
        "type": "WordPiece",
        "unk_token": unknown_token(spec) or "[UNK]",
        "continuing_subword_prefix": wordpiece.PREFIX,
        "max_input_chars_per_word": longest,
    }
    words_of = cutting(normalizer, pre_tokenizer)
    counts = _count(texts, words_of)
    words = _readable_words(counts, alphabet, longest)
    reached = [surface for surface in _by_id(spec) if _fits(*surface, alphabet) and _is_reached(*surface, words_of)]
    tokens = wordpiece.choose_tokens(words, alphabet, size - len(specials), reached)
    written = [*specials, *map(wordpiece.written, tokens)]
    model["vocab"] = {token: index for index, token in enumerate(written)}
    decoder = spec["decoder"] if is_same else {"type": "WordPiece", "prefix": wordpiece.PREFIX, "cleanup": True}
    return _assemble(spec, specials, size, model, normalizer, pre_tokenizer, decoder)


def _train_pieces(texts: Iterable[str], size: int, kind: Kind, teacher: Tokenizer, spec: Spec) -> Tokenizer:
    assert kind != "wordpiece"
    normalizer = student_normalizer(spec, "metaspace")
    alphabet = readable(teacher, normalizer, SPACE_CUT)
    specials = _specials(spec, is_pad_first=False)
    unknown = unknown_token(spec) or next((name for name in ("<unk>", "[UNK]") if name in specials), "<unk>")
    specials += [] if unknown in specials else [unknown]
    reserved = (*specials, "<unk>", "<0x")
    counts = _count(texts, cutting(normalizer, SPACE_CUT))
    counts = Counter({word: n for word, n in counts.items() if not any(name in word for name in reserved)})
    letters = None if alphabet is None else alphabet.initial | alphabet.continuing
    n_bytes = len(sentencepiece_json.BYTES)
    has_bytes = letters is None or len(letters) > max(n_bytes, size // 2 - len(specials))
    if has_bytes:
        _check_size(size, len(specials), n_bytes + 2)
        logger.warning("%s: too many characters for %s tokens; rare ones are read as bytes", kind, size)
        letters = _frequent_letters(counts, letters, (size - len(specials) - n_bytes) // 2)
    assert letters is not None
    _check_size(size, len(specials), len(letters) + 1 + n_bytes * has_bytes)
    words = Counter({word: n for word, n in counts.items() if letters.issuperset(word)})
    extra = [SPACE_MARK * surface.is_initial + surface.text for surface in _by_id(spec)]
    n_pieces = size - len(specials) - n_bytes * has_bytes
    pieces = sentencepiece_json.train_pieces(words, letters, n_pieces, kind, extra)
    write = sentencepiece_json.unigram_model if kind == "unigram" else sentencepiece_json.bpe_model
    model = write(specials, unknown, pieces, has_bytes)
    cut = {"type": "Sequence", "pretokenizers": [SPACE_CUT, METASPACE]}
    decoder: Spec = METASPACE
    if has_bytes:
        decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE, {"type": "Fuse"}]}
    return _assemble(spec, specials, size, model, normalizer, cut, decoder)


def _train_bytelevel(texts: Iterable[str], size: int, spec: Spec) -> Tokenizer:
    specials = _specials(spec, is_pad_first=False)
    alphabet = sorted(ByteLevel.alphabet())
    _check_size(size, len(specials), len(alphabet))
    normalizer = student_normalizer(spec, "bytelevel")
    words = _count(texts, cutting(normalizer, spec["pre_tokenizer"]))

    def learn() -> Spec:
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = WhitespaceSplit()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
        learner.train_from_iterator(wordpiece.repeated(words), trainer)
        model: Spec = spec_of(learner)["model"]
        return model

    learned = learn()
    if len(learned["vocab"]) < size:
        words.update(token for token, surface in surfaces(spec).items() if surface.is_initial)
        learned = learn()
    model = {**spec["model"], "vocab": learned["vocab"], "merges": learned["merges"]}
    return _assemble(spec, specials, size, model, normalizer, spec["pre_tokenizer"], spec["decoder"])


def _assemble(
    teacher: Spec,
    specials: list[str],
    size: int,
    model: Spec,
    normalizer: Spec | None,
    pre_tokenizer: Spec,
    decoder: Spec | None,
) -> Tokenizer:
    """Join the parts; what the teacher has beside its model comes along under the new ids."""
    ids = {token: index for index, token in enumerate(specials)}
    added = [{**token, "id": ids[token["content"]]} for token in teacher["added_tokens"]]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _renumbered(teacher["post_processor"], ids),
        "decoder": decoder,
        "model": model,
    }
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    n_tokens = tokenizer.get_vocab_size()
    if n_tokens < size:
        raise ValueError(
            f"vocabulary: the text and the teacher's own tokens give {n_tokens:,} tokens, asked for {size:,}. "
            f"Use --vocab-size {n_tokens} or less, or more text."
        )
    assert n_tokens == size, (n_tokens, size)
    return tokenizer


def _renumbered(post_processor: Spec | None, ids: dict[str, int]) -> Spec | None:
    """Return the post-processor with the students' ids of its tokens."""
    if post_processor is None:
        return None
    new = dict(post_processor)
    if new["type"] == "Sequence":
        new["processors"] = [_renumbered(member, ids) for member in new["processors"]]
    if new["type"] == "TemplateProcessing":
        new["special_tokens"] = {
            name: {**token, "ids": [ids[part] for part in token["tokens"]]}
            for name, token in new["special_tokens"].items()
        }
    for role in ("cls", "sep"):
        if role in new:
            new[role] = [new[role][0], ids[new[role][0]]]
    return new


def _by_id(spec: Spec) -> list[Surface]:
    """Return the surfaces of a tokenizer in the order of their ids, which is about that of their frequency."""
    found, ids = surfaces(spec), vocab_of(spec)
    return [found[token] for token in sorted(found, key=ids.__getitem__)]


def _specials(spec: Spec, *, is_pad_first: bool) -> list[str]:
    """Return the teacher's special tokens in its order, so that low ids such as RoBERTa's padding at 1 stay put."""
    names = special_tokens(spec)
    if is_pad_first and "[PAD]" in names:
        names = ["[PAD]", *(name for name in names if name != "[PAD]")]
    return names


def _check_size(size: int, n_specials: int, n_letters: int) -> None:
    least = n_specials + n_letters
    if size < least:
        raise ValueError(
            f"vocabulary: {size} tokens do not hold {n_specials} special tokens and the {n_letters:,} characters that "
            f"must stay readable. Use --vocab-size {least} or more."
        )


def _count(texts: Iterable[str], words_of: Callable[[str], list[str]]) -> Counter[str]:
    """Count words. Texts are cut at spaces first: each distinct string is normalised once."""
    strings: Counter[str] = Counter()
    for text in texts:
        strings.update(text.split(" "))
    counts: Counter[str] = Counter()
    for string, n in strings.items():
        for word in words_of(string):
            counts[word] += n
    return counts


def _readable_words(counts: Counter[str], alphabet: Alphabet, longest: int) -> Counter[str]:
    return Counter({w: n for w, n in counts.items() if len(w) <= longest and _fits(w, True, alphabet)})


def _fits(text: str, is_initial: bool, alphabet: Alphabet) -> bool:
    first, rest = (alphabet.initial, text[1:]) if is_initial else (alphabet.continuing, text)
    return (not is_initial or text[0] in first) and alphabet.continuing.issuperset(rest)


def _is_reached(text: str, is_initial: bool, words_of: Callable[[str], list[str]]) -> bool:
    word = text if is_initial else "a" + text
    return words_of(word) == [word]


def _frequent_letters(counts: Counter[str], allowed: frozenset[str] | None, n_most: int) -> frozenset[str]:
    """Return the letters of the corpus, the most frequent first where there are too many; bytes read the rest."""
    letters: Counter[str] = Counter()
    for word, n in counts.items():
        for letter in word:
            letters[letter] += n
    known = [letter for letter in letters if (allowed is None or letter in allowed) and letter != SPACE_MARK]
    return frozenset(sorted(known, key=lambda letter: (-letters[letter], letter))[:n_most])

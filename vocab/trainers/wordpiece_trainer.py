"""WordPiece for a teacher: what its tokenizer and the corpus say, handed to ``vocab.wordpiece`` for each size."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tokenizers import Tokenizer

from vocab import mapping, wordpiece
from vocab.alphabet import BERT_CUT, Alphabet, cutting, readable, student_normalizer
from vocab.choosing import Floats, Rule, cut_losses, embedding_losses, likelihood_losses
from vocab.refused import Refused
from vocab.surfaces import Spec, Surface, scheme_of, spec_of, unknown_token
from vocab.trainers.assemble import assemble, by_id, check_size, first_tokens


def wordpiece_trainer(
    texts: Iterable[str], sizes: Sequence[int], teacher: Tokenizer, rule: Rule, embeddings: Floats | None
) -> Callable[[int], Tokenizer]:
    """Return the function from one of ``sizes`` to its tokenizer; what they share is done here, once."""
    spec = spec_of(teacher)
    is_same = scheme_of(spec) == "wordpiece"
    normalizer = student_normalizer(spec, "wordpiece")
    pre_tokenizer = spec["pre_tokenizer"] if is_same and spec["pre_tokenizer"] else BERT_CUT
    alphabet = readable(teacher, normalizer, pre_tokenizer)
    if alphabet is None:
        raise Refused(
            "vocabulary: the teacher reads every byte, which a wordpiece vocabulary cannot. Use kind bpe or unigram."
        )
    specials = first_tokens(spec, is_pad_first=True)
    n_letters = len(alphabet.initial) + len(alphabet.continuing)
    check_size(min(sizes), len(specials), n_letters)
    # Longer words are unknown to both; a teacher of another kind has no such limit, but a quadratic cut needs one.
    longest = int(spec["model"]["max_input_chars_per_word"]) if is_same else 1000
    model: Spec = {
        "type": "WordPiece",
        "unk_token": unknown_token(spec) or "[UNK]",
        "continuing_subword_prefix": wordpiece.PREFIX,
        "max_input_chars_per_word": longest,
    }
    words_of = cutting(normalizer, pre_tokenizer)
    decoder = spec["decoder"] if is_same else {"type": "WordPiece", "prefix": wordpiece.PREFIX, "cleanup": True}
    counts = wordpiece.count_words(texts, words_of)
    words = Counter({w: n for w, n in counts.items() if len(w) <= longest and _fits(w, True, alphabet)})
    reached = [surface for surface in by_id(spec) if _fits(*surface, alphabet) and _is_reached(*surface, words_of)]
    merges = wordpiece.learn_merges(words, max(sizes) - len(specials) - n_letters)

    def written(tokens: list[Surface]) -> Tokenizer:
        names = [*specials, *map(wordpiece.written, tokens)]
        vocab = {token: index for index, token in enumerate(names)}
        return assemble(spec, specials, {**model, "vocab": vocab}, normalizer, pre_tokenizer, decoder)

    def table_of(tokens: list[Surface]) -> Floats:
        # The map that makes the student's first embeddings also says what the teacher would give a token it lacks.
        assert embeddings is not None
        return mapping.apply(mapping.map_vocabulary(written(tokens), teacher), embeddings)[len(specials) :]

    losses = _losses(rule, reached, [*wordpiece.letters(alphabet), *merges, *reached], table_of)

    def train(size: int) -> Tokenizer:
        n_tokens = size - len(specials)
        return written(wordpiece.choose_tokens(words, alphabet, n_tokens, reached, merges, losses))

    return train


def _losses(
    rule: Rule, reached: list[Surface], tokens: list[Surface], table_of: Callable[[list[Surface]], Floats]
) -> wordpiece.Losses | None:
    """Return the rule over ``tokens``, of which the teacher has those that are ``reached``."""
    if rule == "frequency":
        return None
    if rule == "likelihood":
        return likelihood_losses()
    if rule == "cuts":
        return cut_losses(frozenset(reached))
    every = list(dict.fromkeys(tokens))
    return embedding_losses(frozenset(reached), {surface: row for row, surface in enumerate(every)}, table_of(every))


def _fits(text: str, is_initial: bool, alphabet: Alphabet) -> bool:
    first, rest = (alphabet.initial, text[1:]) if is_initial else (alphabet.continuing, text)
    return (not is_initial or text[0] in first) and alphabet.continuing.issuperset(rest)


def _is_reached(text: str, is_initial: bool, words_of: Callable[[str], list[str]]) -> bool:
    word = text if is_initial else "a" + text
    return words_of(word) == [word]

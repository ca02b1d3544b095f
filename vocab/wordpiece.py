"""WordPiece tokens of an exact number: the alphabet, then the tokens that longest-match cutting would miss most.

Candidates are merges learned by ``tokenizers``' trainer and the teacher's own tokens. They are pruned in rounds: cut
every word of the corpus by longest match, and drop the tokens whose absence costs least, by one of the rules of
``vocab.choosing``. Without a rule the first merges are taken as they come, which is what the usual trainer does. The
teacher's unused tokens fill up, in the order of their ids, when the corpus is too small.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from vocab.alphabet import Alphabet
from vocab.surfaces import Surface

KEPT_PER_ROUND = 0.75
PREFIX = "##"


class Lexicon(NamedTuple):
    """Tokens as longest-match cutting looks them up."""

    openings: set[str]
    continuations: set[str]
    longest: int
    hidden: Surface | None = None  # a token to do without

    @classmethod
    def of(cls, tokens: Iterable[Surface]) -> "Lexicon":
        """Sort tokens into those that open a word and those that continue one."""
        tables: tuple[set[str], set[str]] = (set(), set())
        for text, is_initial in tokens:
            tables[not is_initial].add(text)
        return cls(*tables, longest=max(map(len, tables[0] | tables[1]), default=1))

    def without(self, token: Surface) -> "Lexicon":
        """Return the lexicon with one token less, without copying it."""
        return self._replace(hidden=token)

    def tokens(self) -> set[Surface]:
        """Return all tokens."""
        return {Surface(text, True) for text in self.openings} | {Surface(text, False) for text in self.continuations}

    def cut(self, word: Surface) -> list[Surface]:
        """Cut by longest match, as WordPiece does; nothing where no token fits."""
        pieces = []
        text, start, n_letters = word.text, 0, len(word.text)
        table = self.openings if word.is_initial else self.continuations
        while start < n_letters:
            for end in range(min(n_letters, start + self.longest), start, -1):
                if text[start:end] in table and not (end - start == n_letters and word == self.hidden):
                    break
            else:
                return []
            pieces.append(Surface(text[start:end], word.is_initial and start == 0))
            start, table = end, self.continuations
        return pieces


# What the corpus would lose without each of the candidates; the counts say how often the lexicon's cuts use a token.
Losses = Callable[[Lexicon, Counter[Surface], Collection[Surface]], dict[Surface, float]]


def choose_tokens(
    words: Counter[str],
    alphabet: Alphabet,
    n_tokens: int,
    extra: Iterable[Surface],
    merges: Sequence[Surface],
    losses: Losses | None,
) -> list[Surface]:
    """Return ``n_tokens`` tokens, or as many as there are: the alphabet, sorted, then the others, the most used first.

    Args:
        words: how often each word (as the pre-tokeniser cuts it) occurs; unreadable ones already left out.
        alphabet: characters that get a token whatever the corpus says.
        n_tokens: at least as many as the alphabet.
        extra: more candidates, the most useful first; they also fill up a corpus that is too small.
        merges: what ``learn_merges`` found, the most frequent first; more than are needed do no harm.
        losses: the rule that tells what each token is worth; ``None`` takes the first merges as they come.
    """
    fixed = letters(alphabet)
    n_free = n_tokens - len(fixed)
    assert n_free >= 0
    known = set(fixed)
    fillers = [surface for surface in dict.fromkeys(extra) if surface not in known]
    candidates = list(dict.fromkeys([*(merge for merge in merges[:n_free] if merge not in known), *fillers]))
    rank = {surface: index for index, surface in enumerate(fillers)}
    if losses is None:
        kept = set(candidates[:n_free])
        used = count_pieces(words, Lexicon.of(kept | known))
    else:
        kept, used = _prune(words, set(candidates), known, n_free, rank, losses)
    order = sorted(kept, key=lambda s: (-used[s], rank.get(s, len(rank)), s.text, s.is_initial))
    return fixed + order


def count_pieces(words: Counter[str], lexicon: Lexicon) -> Counter[Surface]:
    """Return how often each token is used when every word is cut by longest match."""
    used: Counter[Surface] = Counter()
    for word, count in words.items():
        for surface in lexicon.cut(Surface(word, True)):
            used[surface] += count
    return used


def letters(alphabet: Alphabet) -> list[Surface]:
    """Return the alphabet as tokens, sorted: first those that open a word."""
    initial = [Surface(letter, True) for letter in sorted(alphabet.initial)]
    return initial + [Surface(letter, False) for letter in sorted(alphabet.continuing)]


def written(surface: Surface) -> str:
    """Return the token as WordPiece writes it."""
    return surface.text if surface.is_initial else PREFIX + surface.text


def learn_merges(words: Counter[str], n_merges: int) -> list[Surface]:
    """Return the merges that ``tokenizers``' trainer learns, in its order; fewer are the first of more."""
    # Every letter is given beforehand, so that ties do not hang on a hash order.
    found = sorted({letter for word in words for letter in word})
    given = ["[UNK]", *found, *(PREFIX + letter for letter in found)]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(vocab_size=len(given) + n_merges, special_tokens=given, show_progress=False)
    learner.train_from_iterator(repeated(words), trainer)
    ids = learner.get_vocab()
    skip = set(given)
    tokens = sorted((token for token in ids if token not in skip), key=ids.__getitem__)
    return [Surface(token.removeprefix(PREFIX), not token.startswith(PREFIX)) for token in tokens]


def _prune(
    words: Counter[str],
    candidates: set[Surface],
    fixed: set[Surface],
    n_free: int,
    rank: dict[Surface, int],
    losses: Losses,
) -> tuple[set[Surface], Counter[Surface]]:
    """Drop the candidates that matter least, a quarter at a time, until ``n_free`` are left."""
    kept = candidates
    while True:
        lexicon = Lexicon.of(kept | fixed)
        used = count_pieces(words, lexicon)
        if len(kept) <= n_free:
            return kept, used
        lost = losses(lexicon, used, kept)
        # A token in use comes before any that is not, even where a rule sees a gain in dropping it.
        order = sorted(kept, key=lambda s: (not used[s], -lost[s], rank.get(s, len(rank)), s.text, s.is_initial))
        n_used = sum(1 for surface in kept if used[surface])
        kept = set(order[: max(n_free, int(KEPT_PER_ROUND * n_used))])


def count_words(texts: Iterable[str], words_of: Callable[[str], list[str]]) -> Counter[str]:
    """Count words. Texts are cut at spaces first: each distinct string is normalised once."""
    strings: Counter[str] = Counter()
    for text in texts:
        strings.update(text.split(" "))
    counts: Counter[str] = Counter()
    for string, n in strings.items():
        for word in words_of(string):
            counts[word] += n
    return counts


def repeated(words: Counter[str], chunk: int = 1000) -> Iterator[str]:
    """Yield every word as often as it occurs, in sorted order, a chunk of repetitions at a time."""
    for word, count in sorted(words.items()):
        for done in range(0, count, chunk):
            yield " ".join([word] * min(chunk, count - done))

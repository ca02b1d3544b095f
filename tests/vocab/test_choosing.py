"""The rules by which tokens are chosen: exact sizes, nothing newly unknown, and losses that are what they claim."""

import math
import re
from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from compressor.recipe import recipe as recipes
from compressor.recipe import sections
from tests.support.vocab_teachers import AWKWARD, AWKWARD_TEXTS, CORPUS, SIZE, newly_unknown, teacher
from vocab.alphabet import Alphabet
from vocab.choosing import (
    LEAST_COUNT,
    NEW_TOKEN_WORTH,
    Rule,
    best_other_cut,
    check_rule,
    cut_losses,
    embedding_losses,
    likelihood_losses,
)
from vocab.surfaces import Surface, spec_of, surfaces
from vocab.train import train_sizes, train_vocabulary
from vocab.wordpiece import Lexicon, choose_tokens, count_pieces, learn_merges

RULES = get_args(Rule)
# Words over three letters; every letter is a token at the start of a word and inside one.
LETTERS = [Surface(letter, is_initial) for letter in "abc" for is_initial in (True, False)]
LEXICA = st.lists(
    st.builds(Surface, st.text("abc", min_size=2, max_size=5), st.booleans()), min_size=1, max_size=12, unique=True
)
CORPORA = st.dictionaries(st.text("abc", min_size=1, max_size=8), st.integers(1, 20), min_size=1, max_size=12)


def embeddings(name: str, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((teacher(name).get_vocab_size(), width), dtype=np.float32)


@pytest.fixture(scope="module")
def students() -> dict[str, Tokenizer]:
    table = embeddings("bert")
    return {
        rule: train_vocabulary(CORPUS, SIZE, "wordpiece", teacher("bert"), rule=rule, embeddings=table)
        for rule in RULES
    }


def cuts(word: Surface, tokens: set[Surface]) -> list[list[Surface]]:
    """Return every cut of a word into tokens."""
    if not word.text:
        return [[]]
    found = []
    for end in range(1, len(word.text) + 1):
        first = Surface(word.text[:end], word.is_initial)
        if first in tokens:
            found += [[first, *rest] for rest in cuts(Surface(word.text[end:], False), tokens)]
    return found


@pytest.mark.parametrize("rule", RULES)
def test_size_is_exact_by_every_rule(students, rule):
    assert students[rule].get_vocab_size() == SIZE
    assert sorted(students[rule].get_vocab().values()) == list(range(SIZE))


@pytest.mark.parametrize("rule", RULES)
def test_no_awkward_text_becomes_unknown_by_any_rule(students, rule):
    assert newly_unknown(students[rule], teacher("bert"), AWKWARD_TEXTS) == []


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=AWKWARD, rule=st.sampled_from(RULES))
def test_no_text_becomes_unknown_by_any_rule(students, text, rule):
    assert newly_unknown(students[rule], teacher("bert"), [text]) == []


def test_the_rules_choose_different_tokens(students):
    chosen = {rule: frozenset(student.get_vocab()) for rule, student in students.items()}
    assert len(set(chosen.values())) == len(RULES)


@pytest.mark.parametrize("rule", ["frequency", "embedding"])
def test_many_sizes_at_once_are_those_of_one_at_a_time(rule):
    table = embeddings("bert")
    sizes = [620, 420]
    together = train_sizes(CORPUS, sizes, "wordpiece", teacher("bert"), rule=rule, embeddings=table)
    for size, tokenizer in zip(sizes, together, strict=True):
        alone = train_vocabulary(CORPUS, size, "wordpiece", teacher("bert"), rule=rule, embeddings=table)
        assert tokenizer.to_str() == alone.to_str()


def test_the_default_rule_is_cuts_and_the_recipe_names_the_same_rules(students):
    default = train_vocabulary(CORPUS, SIZE, "wordpiece", teacher("bert"))
    assert default.to_str() == students["cuts"].to_str()
    recipe = recipes.from_dict({"teacher": {"path": "t"}, "data": {"train": "f"}})
    assert recipe.vocab.rule == "cuts"
    assert set(get_args(sections.VocabRule)) == set(RULES)


def test_fewer_merges_are_the_first_of_more():
    words = Counter({"abab": 5, "abc": 3, "cab": 2, "bcb": 7})
    assert learn_merges(words, 3) == learn_merges(words, 6)[:3]


def test_frequency_takes_the_merges_as_the_trainer_learned_them():
    words = Counter({"abab": 5, "abc": 3, "cab": 2, "bcb": 7})
    alphabet = Alphabet(frozenset("abc"), frozenset("abc"))
    merges = learn_merges(words, 4)
    chosen = choose_tokens(words, alphabet, 6 + 3, [Surface("zz", True)], merges, None)
    assert set(chosen[6:]) == set(merges[:3])


def test_frequency_fills_up_with_the_teachers_tokens():
    alphabet = Alphabet(frozenset("ab"), frozenset("ab"))
    extra = [Surface("abba", True), Surface("ba", False)]
    assert choose_tokens(Counter(), alphabet, 6, extra, [], None)[4:] == extra


@given(tokens=LEXICA, corpus=CORPORA)
@settings(deadline=None, derandomize=True)
def test_a_cut_loss_is_the_extra_pieces_of_the_corpus(tokens, corpus):
    lexicon = Lexicon.of([*LETTERS, *tokens])
    used = count_pieces(Counter(corpus), lexicon)
    known = set(tokens[::2])
    found = cut_losses(known)(lexicon, used, tokens)
    for token in tokens:
        extra = len(lexicon.without(token).cut(token)) - 1
        assert found[token] == used[token] * extra * (1 if token in known else NEW_TOKEN_WORTH)


@given(tokens=LEXICA, data=st.data())
@settings(deadline=None, derandomize=True)
def test_the_best_other_cut_is_the_likeliest_of_all_others(tokens, data):
    scores = {token: data.draw(st.floats(-9, -0.1)) for token in [*LETTERS, *tokens]}
    openings = {token.text: score for token, score in scores.items() if token.is_initial}
    continuations = {token.text: score for token, score in scores.items() if not token.is_initial}
    for token in tokens:
        found = best_other_cut(token, openings, continuations)
        others = [cut for cut in cuts(token, set(scores)) if len(cut) > 1]
        assert found in others
        best = max(sum(scores[piece] for piece in cut) for cut in others)
        assert sum(scores[piece] for piece in found) == pytest.approx(best)


@given(tokens=LEXICA, corpus=CORPORA)
@settings(deadline=None, derandomize=True)
def test_a_likelihood_loss_is_that_of_the_whole_corpus(tokens, corpus):
    """log p of the corpus falls by the loss for the token's own uses, the others' probabilities left as they are."""
    lexicon = Lexicon.of([*LETTERS, *tokens])
    used = count_pieces(Counter(corpus), lexicon)
    total = used.total()
    found = likelihood_losses()(lexicon, used, tokens)
    logs = {t: math.log(max(used[t], LEAST_COUNT) / total) for t in lexicon.tokens()}
    openings = {token.text: log for token, log in logs.items() if token.is_initial}
    continuations = {token.text: log for token, log in logs.items() if not token.is_initial}
    for token in tokens:
        other = best_other_cut(token, openings, continuations)
        after = total + used[token] * (len(other) - 1)  # every use becomes len(other) tokens
        own = used[token] * logs[token] if used[token] else 0.0
        new = sum(used[token] * math.log((used[piece] + used[token]) / after) for piece in other if used[token])
        assert found[token] == pytest.approx(own - new)


@given(tokens=LEXICA, corpus=CORPORA, seed=st.integers(0, 99))
@settings(deadline=None, derandomize=True)
def test_an_embedding_loss_is_count_times_the_squared_distance(tokens, corpus, seed):
    lexicon = Lexicon.of([*LETTERS, *tokens])
    used = count_pieces(Counter(corpus), lexicon)
    every = sorted(lexicon.tokens())
    rows = {token: row for row, token in enumerate(every)}
    table = np.random.default_rng(seed).standard_normal((len(every), 5)).astype(np.float32)
    found = embedding_losses(set(tokens), rows, table)(lexicon, used, tokens)
    for token in tokens:
        pieces = lexicon.without(token).cut(token)
        mean = np.mean([table[rows[piece]] for piece in pieces], axis=0)
        distance = float(((table[rows[token]] - mean) ** 2).sum())
        assert found[token] == pytest.approx(used[token] * distance, rel=1e-4)


def test_a_token_the_teacher_lacks_loses_only_a_quarter_of_an_average_piece():
    tokens = [Surface("ab", True), Surface("bc", True)]
    lexicon = Lexicon.of([*LETTERS, *tokens])
    used = Counter({tokens[0]: 4, tokens[1]: 10})
    rows = {token: row for row, token in enumerate(sorted(lexicon.tokens()))}
    table = np.zeros((len(rows), 2), dtype=np.float32)
    table[rows[tokens[0]]] = (3, 4)  # 25 from its pieces
    table[rows[tokens[1]]] = (99, 99)  # composed rows are a guess: not looked at
    found = embedding_losses({tokens[0]}, rows, table)(lexicon, used, tokens)
    assert found == {tokens[0]: 100.0, tokens[1]: pytest.approx(0.25 * 10 * 25)}


def test_the_embedding_rule_keeps_the_token_whose_pieces_are_far_away():
    """Two words as frequent as each other; only one of them means what its letters mean."""
    mine = teacher("bert")
    words = [token for token, s in surfaces(spec_of(mine)).items() if s.is_initial and len(s.text) == 4][:2]
    corpus = [" ".join(words)] * 50
    table = np.zeros((mine.get_vocab_size(), 4), dtype=np.float32)
    least = int(re.search(r"--vocab-size (\d+)", str(_refusal(corpus)))[1])
    for kept, lost in (words, words[::-1]):
        table[:] = 0
        table[mine.token_to_id(kept)] = 1
        table[mine.token_to_id(lost)] = 0.01
        vocab = train_vocabulary(corpus, least + 1, "wordpiece", mine, rule="embedding", embeddings=table).get_vocab()
        assert kept in vocab
        assert lost not in vocab


def _refusal(corpus: list[str]) -> Exception:
    with pytest.raises(ValueError, match="must stay readable") as caught:
        train_vocabulary(corpus, 12, "wordpiece", teacher("bert"))
    return caught.value


@pytest.mark.parametrize(("kind", "rule"), [("unigram", "likelihood"), ("bpe", "frequency")])
def test_a_trainers_own_rule_is_its_default(kind, rule):
    by_name = train_vocabulary(CORPUS, SIZE, kind, teacher("xlmr"), rule=rule)
    assert by_name.to_str() == train_vocabulary(CORPUS, SIZE, kind, teacher("xlmr")).to_str()


@pytest.mark.parametrize(("kind", "rule"), [("unigram", "embedding"), ("unigram", "frequency"), ("bpe", "likelihood")])
def test_a_rule_that_a_trainer_cannot_follow_is_refused(kind, rule):
    with pytest.raises(ValueError, match=rf"rule '{rule}' is for wordpiece only; a {kind} vocabulary is trained by"):
        train_vocabulary(CORPUS, SIZE, kind, teacher("xlmr"), rule=rule)


def test_unknown_rules_and_missing_embeddings_are_refused():
    with pytest.raises(ValueError, match=r"rule .cut. is unknown. Use cuts, frequency, likelihood, embedding"):
        check_rule("cut", "wordpiece")
    with pytest.raises(ValueError, match="Give embeddings"):
        train_vocabulary(CORPUS, SIZE, "wordpiece", teacher("bert"), rule="embedding")


def test_embeddings_of_another_teacher_are_refused():
    with pytest.raises(ValueError, match="Use the tokenizer that belongs to the teacher"):
        train_vocabulary(
            CORPUS, SIZE, "wordpiece", teacher("bert"), rule="embedding", embeddings=embeddings("bert")[:500]
        )


@pytest.mark.parametrize("rule", RULES)
def test_wordpiece_for_a_unigram_teacher_goes_by_every_rule(rule):
    table = embeddings("xlmr")
    student = train_vocabulary(CORPUS, SIZE, "wordpiece", teacher("xlmr"), rule=rule, embeddings=table)
    assert student.get_vocab_size() == SIZE
    assert newly_unknown(student, teacher("xlmr"), AWKWARD_TEXTS) == []

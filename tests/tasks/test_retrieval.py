"""Each query looks for its own documents: against counts by hand and against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from compressor.data.table import Table
from compressor.scoring.evaluate import evaluate
from compressor.scoring.metrics import RETRIEVAL, retrieval
from compressor.scoring.registry import task_spec

SEARCH = task_spec("embedding", pair=True, scored=False, metric="recall@1")


def table(rows: list[tuple[str, str]], labels: list[float] | None = None, **columns: object) -> Table:
    return Table([query for query, _ in rows], [document for _, document in rows], labels, columns, "", "search.tsv")


def place(text: str) -> np.ndarray:
    """Return a vector by the number at the end of a text: near numbers have near directions."""
    angle = int(text[1:]) / 100
    return np.array([np.cos(angle), np.sin(angle)])


def predict(texts: list[str], _pairs: object) -> np.ndarray:
    return np.stack([place(text) for text in texts])


def test_ranks_equal_the_hand_count() -> None:
    # q10 is nearest to d11, its own d14 comes second; q50 is nearest to its own d52
    rows = table([("q10", "d14"), ("q50", "d52"), ("q90", "d11")])
    found = evaluate(predict, rows, SEARCH).metrics
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["recall@5"] == found["recall@10"] == 1.0
    assert found["mrr@10"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert found["ndcg@10"] == pytest.approx((1 / np.log2(3) + 1 + 1 / np.log2(4)) / 3)


def test_a_query_may_have_several_documents_and_rows_scored_zero_are_none_of_its() -> None:
    rows = table([("q10", "d11"), ("q10", "d30"), ("q10", "d12")], [1.0, 2.0, 0.0], label="label")
    found = evaluate(predict, rows, SEARCH).metrics
    assert found["recall@1"] == pytest.approx(1 / 2)  # d11 is first, d30 third behind d12
    assert found["mrr@10"] == 1.0
    ideal = 1 + 1 / np.log2(3)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(4)) / ideal)


def test_a_tie_counts_as_found_last() -> None:
    found = retrieval(
        lambda queries, places: np.ones((len(queries), len(places))), table([("q1", "d1"), ("q2", "d2")]), None
    )
    assert found["recall@1"] == 0.0 and found["mrr@10"] == pytest.approx(1 / 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 25))
def test_ndcg_equals_that_of_scikit_learn(seed: int, n_queries: int, n_documents: int) -> None:
    generator = np.random.default_rng(seed)
    pairs = {(f"q{generator.integers(n_queries)}", f"d{document}") for document in range(n_documents)}
    rows = table(sorted(pairs))
    queries, documents = sorted({query for query, _ in pairs}), list(dict.fromkeys(rows.pairs or []))
    cosines = {query: generator.permutation(len(documents)) / len(documents) for query in queries}

    def cosines_of(wanted: list[int], places: list[int]) -> np.ndarray:
        names = [(rows.pairs or [])[row] for row in places]
        return np.stack([[cosines[rows.texts[row]][documents.index(name)] for name in names] for row in wanted])

    found = retrieval(cosines_of, rows, None)
    right = np.array([[(query, document) in pairs for document in documents] for query in queries], dtype=float)
    theirs = ndcg_score(right, np.stack([cosines[query] for query in queries]), k=10)
    assert found["ndcg@10"] == pytest.approx(theirs)
    assert set(found) == set(RETRIEVAL) and all(0 <= value <= 1 for value in found.values())
    assert found["recall@1"] <= found["recall@5"] <= found["recall@10"]


def test_one_text_a_row_cannot_be_looked_for() -> None:
    rows = Table(["q1", "q2"], None, None, {}, "", "search.tsv")
    spec = task_spec("embedding", pair=False, metric="mrr@10")
    with pytest.raises(ValueError, match=r"search.tsv: its rows hold one text, mrr@10 needs two: .* --pair-column"):
        evaluate(predict, rows, spec)


def test_a_column_of_another_meaning_says_nothing_of_what_is_to_be_found() -> None:
    rows, topics = [("q10", "d11"), ("q50", "d52"), ("q90", "d91")], [0.0, 1.0, 2.0]
    plain = evaluate(predict, table(rows), SEARCH).metrics
    for name, is_meant in (("topic", False), ("label", True)):
        known = Table(
            [q for q, _ in rows], [d for _, d in rows], topics, {"label": name, "how": {"label": "name"}}, "", "s"
        )
        assert (SEARCH.relevant(known) is not None) == is_meant
        assert (SEARCH.told(known) == "2 of 3 rows hold a document of their query (column 'label')") == is_meant
    topic = Table([q for q, _ in rows], [d for _, d in rows], topics, {"label": "topic"}, "", "s")
    assert evaluate(predict, topic, SEARCH).metrics["recall@1"] == plain["recall@1"]


def test_rows_that_hold_no_document_of_any_query_are_refused() -> None:
    rows = Table(["q1", "q2"], ["d1", "d2"], [0.0, 0.0], {"label": "score"}, "", "search.tsv")
    with pytest.raises(ValueError, match=r"search.tsv: no row has a score above 0 \(column 'score'\)"):
        SEARCH.check_rows(rows)

"""Numbers that judge outputs, as pure functions of arrays; all are shares of 1."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.data.table import Table

Array = npt.NDArray[Any]  # outputs come in any float type

CUTS = (1, 5, 10)  # ranks at which recall is taken
BEST = 10  # ranks that MRR and nDCG look at
RETRIEVAL = (*(f"recall@{cut}" for cut in CUTS), f"mrr@{BEST}", f"ndcg@{BEST}")
CHUNK = 512  # queries compared with all documents at a time


def n_labels_of(config: Mapping[str, Any]) -> int:
    """Return how many labels a config.json names; transformers takes two where it says nothing."""
    names = config.get("id2label")
    return len(names) if names else int(config.get("num_labels", 2))


def correlations(ours: Array, theirs: Array) -> dict[str, float]:
    """Return "spearman" and "pearson" of two rows of numbers; a constant has none, which is reported as 0."""
    from scipy.stats import pearsonr, spearmanr

    if len(ours) < 2 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return {"spearman": 0.0, "pearson": 0.0}
    return {"spearman": float(spearmanr(ours, theirs).statistic), "pearson": float(pearsonr(ours, theirs).statistic)}


def unit(rows: Array) -> Array:
    """Return rows (rows, width) of length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def cosines(first: Array, second: Array) -> Array:
    """Return the cosine of each row with the same row of the other (rows,)."""
    result: Array = (unit(first) * unit(second)).sum(axis=1)  # (rows, width) -> (rows,)
    return result


def similarities(rows: Array) -> Array:
    """Return the cosines of all rows with all (rows, rows)."""
    lengths = unit(rows)
    result: Array = lengths @ lengths.T
    return result


def retrieval(
    cosines_of: Callable[[list[int], list[int]], Array], table: Table, scores: Sequence[float] | None
) -> dict[str, float]:
    """Return how well queries find their documents by cosine: the means of ``retrieval_by_query``; {} without any."""
    found = retrieval_by_query(cosines_of, table, scores)
    return {name: float(values.mean()) for name, values in found.items() if len(values)}


def retrieval_by_query(
    cosines_of: Callable[[list[int], list[int]], Array], table: Table, scores: Sequence[float] | None
) -> dict[str, Array]:
    """Return how well each query finds its documents by cosine (queries,): recall, MRR and nDCG of the best ten.

    Rows with the same first text are one query, whose documents are the second texts of its rows; all different second
    texts together are looked through. Where rows have scores, only those above 0 hold a document of the query. A tie
    counts as found last.

    Args:
        cosines_of: the cosines (queries, documents) of the first texts of some rows with the second texts of others.
        table: the texts of both.
        scores: of the rows (rows,), or None: each row holds a document of its query.
    """
    assert table.pairs is not None
    documents = {text: place for place, text in enumerate(dict.fromkeys(table.pairs))}
    rows_of: dict[str, int] = {}
    wanted: dict[str, set[int]] = {}
    for row, (query, document) in enumerate(zip(table.texts, table.pairs, strict=True)):
        if scores is None or scores[row] > 0:
            rows_of.setdefault(query, row)
            wanted.setdefault(query, set()).add(documents[document])
    place_of = {documents[text]: row for row, text in reversed(list(enumerate(table.pairs)))}
    corpus = [place_of[place] for place in range(len(documents))]  # a row of each document
    queries = list(wanted)
    found: dict[str, list[float]] = {name: [] for name in RETRIEVAL}
    for start in range(0, len(queries), CHUNK):
        part = queries[start : start + CHUNK]
        cosine = cosines_of([rows_of[query] for query in part], corpus)  # (queries, documents)
        for query, line in zip(part, cosine, strict=True):
            is_wanted = np.zeros(len(corpus), dtype=bool)
            is_wanted[sorted(wanted[query])] = True
            ahead = [
                int((line >= line[place]).sum() - (is_wanted & (line >= line[place])).sum()) for place in wanted[query]
            ]
            # The rank of each document of the query: all others that are as near, then its own before it.
            ranks = np.sort(ahead) + np.arange(1, len(ahead) + 1)
            for cut in CUTS:
                found[f"recall@{cut}"].append(float((ranks <= cut).mean()))
            found[f"mrr@{BEST}"].append(1.0 / ranks[0] if ranks[0] <= BEST else 0.0)
            ideal = sum(1.0 / np.log2(1 + rank) for rank in range(1, min(len(ranks), BEST) + 1))
            gained = sum(1.0 / np.log2(1 + rank) for rank in ranks if rank <= BEST)
            found[f"ndcg@{BEST}"].append(float(gained / ideal))
    return {name: np.asarray(values) for name, values in found.items()}

"""What a classic model does at the same bytes: TF-IDF of words and word pairs under a linear model.

A student that does not beat this is not worth its megabytes. The baseline is priced as it would be shipped:
vocabulary text, float32 idf and float32 coefficients, written to a file and measured; under a byte limit the terms of
most training rows are kept. Two texts a, b become the features |a - b|, a * b and their cosine. Embeddings are the
TF-IDF vectors themselves, judged on scored pairs only. Deterministic; refuses training rows without labels.
"""

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compressor.data.table import Table
from compressor.refused import Refused
from compressor.scoring.contract import Array, TaskSpec
from compressor.scoring.evaluate import score, tuned
from compressor.scoring.metrics import RETRIEVAL, correlations, retrieval

N_TIMED = 200
N_WARMUP = 10
_Sparse = Any  # scipy.sparse has no usable types


class Baseline(NamedTuple):
    """A baseline's score, whole size and time from text to answer on this machine."""

    name: str
    metrics: dict[str, float]
    bytes: int
    n_features: int
    p50_ms: float
    p95_ms: float


class _Model(NamedTuple):
    vectorizer: Any  # scikit-learn has no types
    weights: Array | None  # (features, outputs), or None for embeddings
    bias: Array | None  # (outputs,)

    def features(self, texts: list[str], pairs: list[str] | None) -> _Sparse:
        """Return (rows, features): the TF-IDF vectors, or what two of them say about each other."""
        first = self.vectorizer.transform(texts)
        return first if pairs is None else _pair_features(first, self.vectorizer.transform(pairs))

    def outputs(self, texts: list[str], pairs: list[str] | None) -> Array:
        """Return (rows, outputs); two classes get the columns (-x, x) so that the largest is the answer."""
        assert self.weights is not None and self.bias is not None
        values: Array = self.features(texts, pairs) @ self.weights + self.bias
        return values


def tfidf(
    train: Table,
    eval: Table,  # noqa: A002 - the recipe's word
    spec: TaskSpec,
    max_bytes: int | None,
    seed: int,
    held_out: Table | None = None,
) -> Baseline:
    """Return TF-IDF with logistic regression, ridge regression or cosine, as the task has it.

    Args:
        train: rows the terms and coefficients come from; labels are needed except for embeddings.
        eval: rows it is judged on.
        spec: the task.
        max_bytes: keep only as many terms as fit; None: all.
        seed: for the solver.
        held_out: rows that a task chooses on, where it does.
    """
    if spec.needs_labels and train.labels is None:
        raise Refused(f"{train.source}: TF-IDF needs labelled training rows. Name the labels with --label-column.")
    is_linear = spec.n_linear() > 0
    texts = train.texts + (train.pairs or [] if spec.pair or not is_linear else [])
    n_coefficients = spec.n_linear() * (2 if spec.pair else 1)
    vectorizer = _vectorizer(texts, n_coefficients, max_bytes, train.source)
    model = _Model(vectorizer, None, None)
    if is_linear:
        model = _fit(model, train, spec, seed)
        spec = tuned(lambda texts, pairs: model.outputs(texts, pairs if spec.pair else None), held_out, spec)
    metrics = _metrics(model, eval, spec)
    p50, p95 = _latency(model, eval, spec)
    n_features = len(vectorizer.vocabulary_)
    return Baseline(f"TF-IDF + {spec.baseline}", metrics, _measured_bytes(model, spec.n_linear()), n_features, p50, p95)


# Any: scikit-learn has no types.
def _vectorizer(texts: list[str], n_coefficients: int, max_bytes: int | None, source: str) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Any run of word characters is a term, one letter too: "i" and "a" matter in short texts.
    options = {"ngram_range": (1, 2), "token_pattern": r"\b\w+\b", "sublinear_tf": True, "dtype": np.float32}
    try:
        vectorizer = TfidfVectorizer(**options).fit(texts)
    except ValueError as error:  # scikit-learn's "empty vocabulary"
        raise Refused(f"{source}: holds no words for TF-IDF, only punctuation. Use --no-baselines.") from error
    if max_bytes is None:
        return vectorizer
    terms = vectorizer.get_feature_names_out()
    # idf falls with the number of rows that hold a term; ties by the alphabet, for the same choice everywhere.
    order = sorted(range(len(terms)), key=lambda index: (vectorizer.idf_[index], terms[index]))
    costs = [len(terms[index].encode()) + 1 + 4 + 4 * n_coefficients for index in order]
    fixed = 4 * (n_coefficients + n_coefficients)  # intercepts, and the cosine's coefficients of a pair
    n_kept = int(np.searchsorted(np.cumsum(costs) + fixed, max_bytes, side="right"))
    if n_kept == 0:
        raise Refused(f"{source}: no term of TF-IDF fits {max_bytes} bytes. Use a larger --max-size.")
    return TfidfVectorizer(**options, vocabulary=sorted(terms[index] for index in order[:n_kept])).fit(texts)


def _fit(model: _Model, train: Table, spec: TaskSpec, seed: int) -> _Model:
    targets = spec.targets(train)
    assert targets is not None
    spec.check_training(train)
    features = model.features(train.texts, train.pairs if spec.pair else None)
    weights, bias = spec.fit_linear(features, targets, seed)
    return _Model(model.vectorizer, _single(weights), _single(bias))


def _pair_features(first: _Sparse, second: _Sparse) -> _Sparse:
    import scipy.sparse

    product = first.multiply(second).tocsr()
    cosine = scipy.sparse.csr_matrix(product.sum(axis=1))  # rows have length 1, so this is the cosine
    return scipy.sparse.hstack([abs(first - second), product, cosine], format="csr", dtype=np.float32)


def _metrics(model: _Model, table: Table, spec: TaskSpec) -> dict[str, float]:
    targets = spec.targets(table)
    if not spec.judges(table):
        return {}
    if model.weights is not None:
        assert targets is not None
        return score(model.outputs(table.texts, table.pairs if spec.pair else None), targets, spec)
    assert table.pairs is not None
    first, second = (model.vectorizer.transform(texts) for texts in (table.texts, table.pairs))
    found = {}
    if targets is not None:
        cosines = np.asarray(first.multiply(second).sum(axis=1)).reshape(-1)  # (rows,)
        found = correlations(cosines.astype(np.float64), np.asarray(targets))
    if spec.metric in RETRIEVAL:
        found |= retrieval(lambda rows, places: (first[rows] @ second[places].T).toarray(), table, spec.relevant(table))
    return found


def _measured_bytes(model: _Model, n_outputs: int) -> int:
    """Write what a device needs to a file and return its size."""
    terms = "\n".join(model.vectorizer.get_feature_names_out()) + "\n"
    parts = [terms.encode(), _single(model.vectorizer.idf_).tobytes()]
    if model.weights is not None and model.bias is not None:
        n_first = model.weights.shape[1] - n_outputs  # of two classes the second says it all
        parts += [model.weights[:, n_first:].tobytes(), model.bias[n_first:].tobytes()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tfidf.bin"
        path.write_bytes(b"".join(parts))
        return path.stat().st_size


def _latency(model: _Model, table: Table, spec: TaskSpec) -> tuple[float, float]:
    """Return p50 and p95 of one text (or pair) to its answer in milliseconds."""
    times = []
    for run in range(N_WARMUP + N_TIMED):
        index = run % len(table)
        text = [table.texts[index]]
        pair = [table.pairs[index]] if table.pairs is not None and spec.pair else None
        start = time.perf_counter()
        if model.weights is None:
            model.vectorizer.transform(text)
        else:
            model.outputs(text, pair).argmax(axis=1)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.percentile(times[N_WARMUP:], 50)), float(np.percentile(times[N_WARMUP:], 95))


def _single(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)

"""A vector for each text: of scored pairs the correlations of the cosines, of plain texts the agreement with a teacher.

Texts without scores have only their teacher to agree with: mean cosine (equal widths) and the Spearman correlation of
the two similarity structures. Rows of a query and its document can be judged by retrieval as well: each query looks
for its own document among those of all rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.data.labels import label_numbers, number
from compressor.data.table import Table
from compressor.refused import Refused
from compressor.scoring import contract
from compressor.scoring.contract import Array, Resampled, Targets, Weights
from compressor.scoring.metrics import (
    RETRIEVAL,
    correlations,
    cosines,
    retrieval,
    retrieval_by_query,
    similarities,
    unit,
)
from compressor.scoring.resampling import correlation, means, similarity_spearman

if TYPE_CHECKING:
    from torch import Tensor

    from compressor.scoring.contract import Projecting

N_SIMILARITY_ROWS = 1000  # 499,500 pairs tell two similarity structures apart; the cost is quadratic
RELEVANCE = ("label", "labels", "score", "scores", "relevance", "relevant", "similarity")  # columns of such scores
MIN_COSINE = 0.90  # of the quantised model with the float one


class Task(contract.TaskSpec):
    """Sentence vectors; the two texts of a pair are read one by one."""

    metrics = ("spearman", "pearson", "similarity_spearman", "cosine", *RETRIEVAL)
    of_teacher = ("similarity_spearman", "cosine")
    needs_labels = False
    has_head = False
    reads_pairs = False
    model_class = "AutoModel"
    block_size = 16  # cosines feel the rounding of 4 bits more than a largest logit does, finer blocks pay
    baseline = "cosine"

    @classmethod
    def usual_metric(cls, has_scored_pairs: bool) -> str:
        """Return the correlation with the scores where there are some, else that with the teacher."""
        return "spearman" if has_scored_pairs else "similarity_spearman"

    @classmethod
    def claims(cls, task: str, config: Mapping[str, Any]) -> bool:
        """Return True: whatever makes features is a sentence encoder."""
        return True

    def targets(self, table: Table) -> Targets | None:
        """Return the scores of pairs; classes, and labels of single texts, say nothing about an embedding by itself."""
        if (
            table.pairs is None
            or table.labels is None
            or not any(number(str(label)) is not None for label in table.labels)
        ):
            return None
        return label_numbers(table.labels, table.source)  # type: ignore[arg-type]

    def is_scored(self, table: Table) -> bool:
        """Return whether there are similarities, or a column that the user names for them."""
        how = table.columns.get("how")
        is_named = isinstance(how, dict) and how.get("label") == "flag"
        return is_named or self.targets(table) is not None

    def judges(self, table: Table) -> bool:
        """Return whether pairs have scores, or are asked to be found."""
        is_found = self.metric in RETRIEVAL and table.pairs is not None
        return is_found or self.targets(table) is not None

    def check_rows(self, table: Table) -> None:
        """Refuse rows without the second texts or the scores that the metric needs."""
        otherwise = "or judge by --metric similarity_spearman, against the teacher"
        if self.metric in self.of_teacher:
            return
        if table.pairs is None:
            raise Refused(
                f"{table.source}: its rows hold one text, {self.metric} needs two: pairs with a score, or a query and "
                f"its document. Name the second with --pair-column, {otherwise}."
            )
        if self.metric not in RETRIEVAL and self.targets(table) is None:
            raise Refused(
                f"{table.source}: the rows have no similarities, which {self.metric} needs. Name them with "
                f"--label-column, {otherwise}."
            )
        relevant = self.relevant(table)
        if self.metric in RETRIEVAL and relevant is not None and not any(score > 0 for score in relevant):
            raise Refused(
                f"{table.source}: no row has a score above 0 (column {table.columns.get('label')!r}), so no query has "
                "a document to be found. Name another column with --label-column, or give rows without one."
            )

    def told(self, table: Table) -> str:
        """Return how many rows hold a document of their query, where scores say that some do not."""
        relevant = self.relevant(table) if self.metric in RETRIEVAL else None
        if relevant is None:
            return ""
        n_relevant = sum(score > 0 for score in relevant)
        return (
            f"{n_relevant:,} of {len(table):,} rows hold a document of their query (column {table.columns['label']!r})"
        )

    def relevant(self, table: Table) -> list[float] | None:
        """Return the scores that say which rows hold a document of their query: of a column named or called so."""
        how = table.columns.get("how")
        is_named = isinstance(how, dict) and how.get("label") == "flag"
        is_meant = is_named or str(table.columns.get("label")).lower() in RELEVANCE
        return self.targets(table) if is_meant else None

    def measure(self, outputs: Array, table: Table, name: str = "logits") -> dict[str, float]:
        """Return the metrics of the first texts' rows followed by the second texts', (2 rows, width)."""
        found = super().measure(outputs, table, name)
        if self.metric in RETRIEVAL and table.pairs is not None:
            found |= retrieval(_cosines_of(outputs, table), table, self.relevant(table))
        return found

    def score(self, outputs: Array, targets: Sequence[Any], name: str = "logits") -> dict[str, float]:
        """Return the correlations of the cosines with the scores."""
        return correlations(cosines(outputs[: len(targets)], outputs[len(targets) :]), np.asarray(targets))

    def agreement(self, ours: Array, theirs: Array, name: str = "logits") -> dict[str, float]:
        """Return "cosine", the mean over rows (when both are equally wide), and "similarity_spearman".

        The latter is of the similarities among the first 1,000 rows.
        """
        metrics = {"cosine": float(cosines(ours, theirs).mean())} if ours.shape == theirs.shape else {}
        if len(ours) > 2:
            upper = np.triu_indices(min(len(ours), N_SIMILARITY_ROWS), k=1)
            first, second = (similarities(rows[:N_SIMILARITY_ROWS])[upper] for rows in (ours, theirs))
            metrics["similarity_spearman"] = correlations(first, second)["spearman"]
        return metrics

    def resampled(
        self, outputs: Array, table: Table, reference: Array | None = None, name: str = "logits"
    ) -> Resampled:
        """Return the metric of draws of rows, whose texts stay together, or of queries among all documents.

        Documents are not drawn: among fewer of them every query would find its own more easily.
        """
        n_rows, metric = len(table), self.metric
        if outputs is reference and metric in self.of_teacher:  # a teacher agrees with itself
            return Resampled(n_rows, lambda counts: np.ones(len(counts)))
        outputs = np.asarray(outputs, dtype=np.float64)  # as they are measured
        if metric in RETRIEVAL:
            of_queries = retrieval_by_query(_cosines_of(outputs, table), table, self.relevant(table))[metric]
            return Resampled(len(of_queries), lambda counts: means(of_queries, counts))
        if metric not in self.of_teacher:
            targets = self.targets(table)
            assert targets is not None
            close = cosines(outputs[:n_rows], outputs[n_rows:])
            return Resampled(n_rows, correlation(metric, close, np.asarray(targets, dtype=np.float64)))
        assert reference is not None
        reference = np.asarray(reference, dtype=np.float64)
        if metric == "cosine":
            of_rows = cosines(outputs, reference).reshape(-1, n_rows).mean(axis=0)  # (texts of a row, rows) -> (rows,)
            return Resampled(n_rows, lambda counts: means(of_rows, counts))
        ours, theirs = (similarities(each[:N_SIMILARITY_ROWS]) for each in (outputs, reference))
        return Resampled(n_rows, similarity_spearman(ours, theirs, np.arange(len(ours)) % n_rows))

    def limits(self, outputs: Array) -> dict[str, float]:
        """Return the least mean cosine."""
        return {"cosine_mean": MIN_COSINE}

    def imitation_terms(
        self, ours: "Tensor", batch: dict[str, "Tensor"], weights: Weights, projection: "Projecting | None"
    ) -> dict[str, "Tensor"]:
        """Return the terms of text vectors (batch, width): their own cosines, and those with the teacher's vectors."""
        from compressor.scoring.losses import cosine_distance, similarity_mse

        terms = {}
        if weights.similarity > 0:
            terms["similarity"] = weights.similarity * similarity_mse(ours, batch["teacher_output"])
        if weights.embedding > 0:
            projected = ours if projection is None else projection(ours, batch["teacher_output"])
            terms["embedding"] = weights.embedding * cosine_distance(projected, batch["teacher_output"])
        return terms


def _cosines_of(outputs: Array, table: Table) -> Callable[[list[int], list[int]], Array]:
    """Return the function from rows to the cosines (queries, documents) of first texts with second ones."""
    first, second = unit(outputs[: len(table)]), unit(outputs[len(table) :])
    return lambda queries, places: first[queries] @ second[places].T

"""What a kind of task is: one object that a run asks instead of asking which kind it has.

A kind is one file in ``compressor/tasks`` with a class ``Task`` that derives from :class:`TaskSpec`; its name is the
file's. It says how the labels of rows become targets, which numbers judge outputs, what a student imitates, how far two
graphs may be apart, and what a classic model does for the same task. What it asks of a graph, the outputs by name, is
its head's: ``exporters/heads/<kind>.py``. ``compressor.scoring.registry`` finds both. An instance is the task of one
model: its labels, whether rows hold two texts, and the metric. torch and scikit-learn are imported where they are used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from compressor.data.table import Table
from compressor.refused import Refused, did_you_mean
from exporters.head import Head, load_head

if TYPE_CHECKING:
    from torch import Tensor

    Projecting = Callable[[Tensor, Tensor], Tensor]  # ours (batch, width), theirs -> ours in their width

Array = npt.NDArray[Any]  # outputs come in any float type
Targets = list[Any]  # class ids, numbers, or what else a kind compares outputs with; one per row
Linear = tuple[Array, Array]  # weights (features, outputs) and bias (outputs,)
TOLERANCE = 0.02  # by which an output may differ on another processor


class Weights(NamedTuple):
    """The factor of each term that is imitated; a term of factor 0 is not computed."""

    logits: float = 0.0
    labels: float = 0.0
    hidden: float = 0.0
    attention: float = 0.0
    embedding: float = 0.0
    similarity: float = 0.0
    temperature: float = 2.0

    @classmethod
    def of(cls, options: Any, **others: float) -> "Weights":  # Any: an instance of a method's own Options
        """Return the factors that a method's options have under these names, but for ``others``."""
        return cls(**{name: getattr(options, name) for name in cls._fields if hasattr(options, name)} | others)


class Resampled(NamedTuple):
    """How a metric comes out where what was scored is drawn anew, with replacement."""

    n_units: int  # that are drawn: rows, or the queries that rows hold
    score: Callable[[Array], Array]  # how often each was drawn (draws, units) -> the metric of each draw (draws,)


@dataclass(frozen=True)
class TaskSpec:
    """One kind of task with the labels of one model; the base of every kind's ``Task``."""

    labels: tuple[str, ...] = ()  # names by id, where answers have names
    pair: bool = False  # a row holds two texts
    metric: str = ""  # the number that judges: it decides on drops

    kind: ClassVar[str] = ""  # the name of its file
    metrics: ClassVar[tuple[str, ...]] = ()  # what it can be judged by, the usual one first
    of_teacher: ClassVar[tuple[str, ...]] = ()  # those of them that compare with a teacher's outputs
    has_classes: ClassVar[bool] = False  # answers have names: the model's labels are those
    has_one_class: ClassVar[bool] = False  # and one of them is right for each row
    several_labels: ClassVar[bool] = False  # a row has any number of labels
    tunes: ClassVar[bool] = False  # something is chosen on held-out rows: ``tuned``
    needs_labels: ClassVar[bool] = True  # rows to learn from and to be judged on must carry some
    has_head: ClassVar[bool] = True  # the model ends in a layer of its own for the answers, behind the encoder
    reads_pairs: ClassVar[bool] = True  # two texts of a row are one input; otherwise each is one
    model_class: ClassVar[str] = "AutoModelForSequenceClassification"  # of transformers
    problem_type: ClassVar[str | None] = None  # as a checkpoint's config.json says it
    block_size: ClassVar[int] = 32  # values that share a 4-bit scale
    target_type: ClassVar[Any] = np.float32  # of the targets, as a loss takes them
    baseline: ClassVar[str] = ""  # the linear model on top of TF-IDF

    def __init_subclass__(cls) -> None:
        """Name the kind as its file is."""
        super().__init_subclass__()
        cls.kind = cls.__module__.rpartition(".")[2]

    @classmethod
    def head(cls) -> type[Head]:
        """Return its half in the exporters."""
        return load_head(cls.kind)

    @classmethod
    def modules(cls) -> tuple[str, ...]:
        """Return the modules that it is made of, which no import names."""
        return f"compressor.tasks.{cls.kind}", f"exporters.heads.{cls.kind}"

    @classmethod
    def of(cls, labels: Sequence[str], *, pair: bool, scored: bool = True, metric: str | None = None) -> Self:
        """Return the task of one model.

        Args:
            labels: names by id; left out where answers have no names.
            pair: True when a row holds two texts.
            scored: False where the evaluation rows hold nothing to compare outputs with.
            metric: to judge by; None: the usual one.
        """
        if metric is not None and metric not in cls.metrics:
            hint = did_you_mean(metric, cls.metrics)
            raise Refused(f"--metric {metric} is none of a {cls.kind} task.{hint} Use one of {', '.join(cls.metrics)}.")
        return cls(tuple(labels) if cls.has_classes else (), pair, metric or cls.usual_metric(pair and scored))

    @classmethod
    def usual_metric(cls, has_scored_pairs: bool) -> str:
        """Return the metric where none is asked for."""
        return cls.metrics[0]

    @classmethod
    def claims(cls, task: str, config: Mapping[str, Any]) -> bool:
        """Return whether a checkpoint with this ``config.json`` is of this kind; of all kinds one must say so."""
        raise NotImplementedError

    # Rows

    def asked(self, table: Table) -> Table:
        """Return the rows as a device asks them."""
        return table if self.reads_pairs else replace(table, pairs=None)

    def targets(self, table: Table) -> Targets | None:
        """Return what outputs are compared with, one per row, or None where there is nothing."""
        raise NotImplementedError

    def judges(self, table: Table) -> bool:
        """Return whether outputs on these rows can be judged by the rows alone, without a teacher."""
        return table.labels is not None

    def is_scored(self, table: Table) -> bool:
        """Return whether evaluation rows hold something to compare outputs with."""
        return table.labels is not None

    def relevant(self, table: Table) -> list[float] | None:
        """Return the scores that say which rows hold a document of their query; None: all do."""
        return None

    def check_rows(self, table: Table) -> None:
        """Refuse evaluation rows that hold nothing for the metric."""
        if self.needs_labels and table.labels is None:
            raise Refused(
                f"{table.source}: the rows have no labels, which {self.metric} needs. Name them with --label-column."
            )

    def settled(self, tables: Sequence[Table]) -> list[Table]:
        """Return tables with labels that no part of them can be matched otherwise by; each stays the same rows."""
        return list(tables)

    def told(self, table: Table) -> str:
        """Return what a person should know of evaluation rows beside their number and columns."""
        return ""

    def target_array(self, table: Table) -> Array | None:
        """Return the targets as a loss takes them (rows,) or (rows, values); None without."""
        targets = self.targets(table)
        return None if targets is None else np.asarray(targets, dtype=self.target_type)

    @classmethod
    def collect(cls, table: Table) -> tuple[str, ...]:
        """Return the labels that training rows hold, to make a model for them; () where answers have no names."""
        return ()

    @classmethod
    def check_training(cls, table: Table) -> None:
        """Refuse training rows that nothing can be learned from."""

    # Outputs

    def measure(self, outputs: Array, table: Table, name: str = "logits") -> dict[str, float]:
        """Return the metrics of the outputs on a table; nothing where the rows have nothing to compare with.

        Args:
            outputs: one row for each input: (rows, values).
            table: the rows.
            name: of the output, where a model has several to answer with.
        """
        targets = self.targets(table)
        return {} if targets is None else self.score(outputs, targets, name)

    def score(self, outputs: Array, targets: Sequence[Any], name: str = "logits") -> dict[str, float]:
        """Return the metrics of outputs against targets."""
        raise NotImplementedError

    def agreement(self, ours: Array, theirs: Array, name: str = "logits") -> dict[str, float]:
        """Return how far a student answers like its teacher, whose outputs are ``theirs``, labels aside."""
        raise NotImplementedError

    def resampled(
        self, outputs: Array, table: Table, reference: Array | None = None, name: str = "logits"
    ) -> Resampled:
        """Return how the metric comes out on draws of the rows; on each row once it is what ``measure`` says.

        Kinds whose metrics are sums or ranks score all draws at once; what they cannot is scored draw by draw.

        Args:
            outputs: one row for each input: (rows, values).
            table: the rows.
            reference: a teacher's outputs, for metrics that compare with them.
            name: of the output.
        """
        targets = self.targets(table)
        at_once = None if targets is None else self.scored_at_once(outputs, targets, name)
        if at_once is not None:
            return Resampled(len(table), at_once)

        def scored(rows: Array) -> float:
            if self.metric in self.of_teacher:
                assert reference is not None
                return self.agreement(outputs[rows], reference[rows], name)[self.metric]
            assert targets is not None
            return self.score(outputs[rows], [targets[row] for row in rows], name)[self.metric]

        places = np.arange(len(table))
        return Resampled(
            len(table),
            lambda counts: np.asarray([scored(np.repeat(places, drawn.astype(np.int64))) for drawn in counts]),
        )

    def scored_at_once(self, outputs: Array, targets: Targets, name: str = "logits") -> Callable[[Array], Array] | None:
        """Return the function of ``Resampled`` that scores all draws together; None for a metric it does not know."""
        return None

    def tuned(self, outputs: Array, table: Table, name: str = "logits") -> Self:
        """Return the task with what is chosen on held-out rows, by a model's own outputs on them."""
        return self

    def manifest(self) -> dict[str, Any]:
        """Return what a package's manifest holds of what was tuned."""
        return {}

    def restored(self, manifest: Mapping[str, Any]) -> Self:
        """Return the task as it was tuned, from what ``manifest`` returned."""
        return self

    def margin(self, output: Sequence[float]) -> float:
        """Return how far an answer is from another one; 0 where a small difference is no other answer."""
        return 0.0

    def compared(self, outputs: Array) -> Array:
        """Return outputs as two graphs are compared by them (rows, ..., values): the largest value is the answer."""
        return outputs

    def limits(self, outputs: Array) -> dict[str, float]:
        """Return how far quantised outputs may be from the float ones, which are given, as ``Limits`` names it."""
        raise NotImplementedError

    def tolerance(self, table: Table) -> float:
        """Return by how much an output may differ on another processor."""
        return TOLERANCE

    # Losses

    def label_loss(self, logits: "Tensor", labels: "Tensor", smoothing: float = 0.0) -> "Tensor":
        """Return the loss of logits (batch, values) against targets as ``target_array`` makes them."""
        raise NotImplementedError

    def soft_loss(self, ours: "Tensor", theirs: "Tensor", temperature: float) -> "Tensor":
        """Return the loss of logits (batch, values) against a teacher's."""
        raise NotImplementedError

    def imitation_terms(
        self, ours: "Tensor", batch: dict[str, "Tensor"], weights: Weights, projection: "Projecting | None"
    ) -> dict[str, "Tensor"]:
        """Return the weighted loss terms of our outputs by name.

        Args:
            ours: logits (batch, values), or text vectors (batch, width).
            batch: ``teacher_output`` (batch, values or width), ``labels`` where rows carry some.
            weights: of the terms; a term of factor 0 is not computed.
            projection: brings our text vectors to the teacher's width, beside whose own they are, where these differ.
        """
        terms = {}
        if weights.logits > 0:
            terms["logits"] = weights.logits * self.soft_loss(ours, batch["teacher_output"], weights.temperature)
        if weights.labels > 0 and "labels" in batch:
            terms["labels"] = weights.labels * self.label_loss(ours.float(), batch["labels"])
        return terms

    # The classic model beside it

    def n_linear(self) -> int:
        """Return how many outputs a linear model has for this task; 0 where it has no linear model."""
        return 0

    def fit_linear(self, features: Any, targets: Sequence[Any], seed: int) -> Linear:  # Any: scipy's sparse matrices
        """Return the linear model of features (rows, features); its outputs are scored as a model's logits are."""
        raise NotImplementedError

"""The numbers of a small encoder that is no transformer, for its bytes and its time. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporters.refused import Refused
from exporters.shape import Shape

PREFIX = "small-"  # before the family's name in ``model_type``
SMALL = ("recurrent", "convolution", "mean")
TFIDF = "tfidf"  # words that are counted, under a linear model: no encoder, and not trained
NUMBERS = (
    "vocab_size", "embedding_size", "units", "dense", "output_size", "type_vocab_size", "max_position_embeddings",
)  # fmt: skip
NUMBERS_OF_TFIDF = ("vocab_size", "n_pairs", "columns", "max_position_embeddings")
FIRST_WORD = 2  # behind [PAD] and [UNK], which are no features
PAIR_STEP = 31337  # a prime: the words a, b fall into bucket (a * PAIR_STEP + b) % n_pairs
KERNELS = (1, 3, 5)  # tokens that a convolution sees
# Nodes, names and small constants of a cleaned graph: of a family, of dense layers, of a pair, of a widened weight.
GRAPH_BYTES, GRAPH_HEAD, GRAPH_PAIR, GRAPH_WIDENED = (
    {"recurrent": 1100, "convolution": 1100, "mean": 700},
    500,
    900,
    170,
)
GRAPH_TFIDF = 2150  # the nodes, names and small constants of TF-IDF
FLOAT_ACTIVATIONS = "float_activations"  # key of a graph's metadata: its weights are stored in few bits, and no more


@dataclass(frozen=True)
class SmallShape(Shape):
    """The numbers of a small encoder; ``hidden`` is the width that it gives, ``ffn`` that of the dense layer."""

    family: str = "recurrent"
    units: int = 0  # of the recurrent net in one direction, filters of a convolution; 0: none
    is_pair: bool = False  # the dense layer sees what two texts have in common

    @property
    def state(self) -> int:
        """Width of a token's state."""
        return state_size(self.family, self.units, self.width)

    @property
    def width(self) -> int:
        """Columns of the token table."""
        return self.embedding_size or self.hidden

    @property
    def table_rows(self) -> dict[str, int]:
        """Rows of each embedding table."""
        return {"words": self.vocab_size}

    @property
    def matrices(self) -> list[tuple[tuple[int, int], int]]:
        """((inputs, outputs), how often) of every kind of weight matrix outside the token table."""
        found = list(self._body)
        if self.n_labels:
            found += [((self.hidden * (4 if self.is_pair else 1), self.ffn), 1), ((self.ffn, self.n_labels), 1)]
        elif self.hidden != self.state:
            found.append(((self.state, self.hidden), 1))
        return found

    @property
    def _body(self) -> list[tuple[tuple[int, int], int]]:
        if self.family == "recurrent":
            return [((self.width, 3 * self.units), 2), ((self.units, 3 * self.units), 2)]
        if self.family == "convolution":
            return [((size * self.width, self.units), 1) for size in KERNELS]
        return []

    @property
    def n_multiplications(self) -> int:
        """Multiplications by weights per token; the dense layers count as if a text were 16 tokens long."""
        body = sum(rows * columns * count for (rows, columns), count in self._body)
        return body + (self.n_matrix_values - body) // (16 if self.n_labels else 1)

    @property
    def n_vector_values(self) -> int:
        """Biases."""
        body = {"recurrent": 12 * self.units, "convolution": len(KERNELS) * self.units, "mean": 0}[self.family]
        if self.n_labels:
            return body + self.ffn + self.n_labels
        return body + (self.hidden if self.hidden != self.state else 0)

    def n_graph_bytes(self, *, is_quantized: bool) -> int:
        """Return about how many bytes nodes, names and small constants of the cleaned graph take."""
        nodes = GRAPH_BYTES[self.family] + (GRAPH_HEAD if self.n_labels else 0) + (GRAPH_PAIR if self.is_pair else 0)
        return nodes + (GRAPH_WIDENED * len(self.matrices) if is_quantized else 0)

    @property
    def told(self) -> str:
        """Return ``recurrent, 2 x 96 units on 48 columns, dense 64``."""
        units = {"recurrent": f", 2 x {self.units} units", "convolution": f", {len(KERNELS)} x {self.units} filters"}
        dense = f", dense {self.ffn}" if self.n_labels else ""
        return f"{self.family}{units.get(self.family, '')} on {self.width} columns{dense}"

    def as_dict(self) -> dict[str, Any]:  # Any: numbers, names and None
        """Return the numbers by name, those that a small encoder has."""
        unused = ("heads", "layers", "token_types", "head_layers", "passes", "exchanged")
        return {name: value for name, value in self.__dict__.items() if name not in unused} | {"told": self.told}

    def config(self) -> dict[str, Any]:
        """Return the keywords of ``exporters.small.models.SmallConfig``."""
        return {
            "vocab_size": self.vocab_size,
            "embedding_size": self.width,
            "units": self.units,
            "dense": self.ffn,
            "output_size": 0 if self.n_labels or self.hidden == self.state else self.hidden,
            "type_vocab_size": 2 if self.is_pair else 1,
            "max_position_embeddings": self.positions,
        }


@dataclass(frozen=True)
class TfidfShape(SmallShape):
    """The numbers of TF-IDF under a linear model: ``width`` columns of coefficients; ``units`` is ``n_pairs``.

    ``vocab_size`` counts [PAD] and [UNK] too. A row of either table is an inverse document frequency and coefficients,
    of 8 bits each.
    """

    family: str = TFIDF

    @property
    def n_pairs(self) -> int:
        """Buckets that pairs of adjacent words are hashed into."""
        return self.units

    @property
    def table_rows(self) -> dict[str, int]:
        """Return the features: words, and pairs."""
        return {"words": self.vocab_size, "pairs": self.n_pairs}

    @property
    def n_feature_bytes(self) -> int:
        """Bytes of all rows, whatever the scheme says of matrices that are rounded."""
        return sum(self.table_rows.values()) * (1 + self.width)

    @property
    def matrices(self) -> list[tuple[tuple[int, int], int]]:
        """None: coefficients are looked up."""
        return []

    @property
    def n_multiplications(self) -> int:
        """Multiplications per token: a word and a pair, by each column."""
        return 2 * self.width

    @property
    def n_vector_values(self) -> int:
        """Scale and bias of each column."""
        return 2 * self.width

    @property
    def n_parameters(self) -> int:
        """What is counted and fitted."""
        return self.n_feature_bytes + self.n_vector_values

    def n_graph_bytes(self, *, is_quantized: bool) -> int:
        """Return about how many bytes nodes, names and small constants of the cleaned graph take."""
        return GRAPH_TFIDF

    @property
    def told(self) -> str:
        """Return ``tfidf, 12,000 words, 100,000 hashed pairs``."""
        return f"{self.family}, {self.vocab_size - FIRST_WORD:,} words, {self.n_pairs:,} hashed pairs"

    def as_dict(self) -> dict[str, Any]:  # Any: numbers and names
        """Return the numbers by name."""
        own = {"family": self.family, "n_labels": self.n_labels, "told": self.told}
        return {**self.config(), **own}

    def config(self) -> dict[str, Any]:
        """Return the keywords of ``exporters.small.tfidf.TfidfConfig``."""
        return {
            "vocab_size": self.vocab_size,
            "n_pairs": self.n_pairs,
            "columns": self.width,
            "max_position_embeddings": self.positions,
        }


def state_size(family: str, units: int, width: int) -> int:
    """Return the width of a token's state."""
    return {"recurrent": 2 * units, "convolution": len(KERNELS) * units, "mean": width}[family]


def small_shape(
    family: str, vocab_size: int, width: int, units: int, *, positions: int, n_labels: int = 0, dense: int = 0,
    output: int = 0, is_pair: bool = False,
) -> SmallShape:  # fmt: skip
    """Return the shape of a small encoder.

    Args:
        family: one of ``SMALL``.
        vocab_size: tokens.
        width: columns of the token table.
        units: of the recurrent net in one direction, filters of a convolution; "mean" has none.
        positions: tokens at most.
        n_labels: 0 for sentence vectors.
        dense: width of the layer before the one that answers.
        output: width of the sentence vectors; 0: the states'.
        is_pair: whether a classifier reads two texts.
    """
    state = state_size(family, units, width)
    hidden = state if n_labels or not output else output
    return SmallShape(
        vocab_size=vocab_size, hidden=hidden, layers=1, heads=1, ffn=dense, positions=positions, token_types=0,
        embedding_size=width, n_labels=n_labels, family=family, units=0 if family == "mean" else units,
        is_pair=is_pair and bool(n_labels),
    )  # fmt: skip


def tfidf_shape(vocab_size: int, n_pairs: int, columns: int, *, positions: int, n_labels: int) -> TfidfShape:
    """Return the shape of TF-IDF under a linear model.

    Args:
        vocab_size: words, with [PAD] and [UNK].
        n_pairs: buckets for pairs of adjacent words, one or more.
        columns: of coefficients: one for two classes, whose outputs are (-x, x).
        positions: tokens at most.
        n_labels: outputs.
    """
    return TfidfShape(
        vocab_size=vocab_size, hidden=columns, layers=1, heads=1, ffn=0, positions=positions, token_types=0,
        embedding_size=columns, n_labels=n_labels, units=n_pairs,
    )  # fmt: skip


def is_small(model_type: str) -> bool:
    """Return whether a configuration's ``model_type`` is that of a small encoder."""
    return model_type.startswith(PREFIX)


def plain_class(name: str) -> str:
    """Return the class of transformers that does the same: ``BertModel`` for ``SmallMeanModel``."""
    for family in (*SMALL, TFIDF):
        prefix = f"Small{family.capitalize()}"
        if name.startswith(prefix):
            return f"Bert{name.removeprefix(prefix)}"
    return name


def known_config(config: Mapping[str, Any]) -> Mapping[str, Any]:  # Any: the content of config.json
    """Return a configuration under the name of an architecture that readers of a graph know.

    The graph is all that such a reader runs; the name tells it which inputs to make: of BERT ids, mask and segments, of
    DistilBERT no segments.
    """
    if not is_small(str(config.get("model_type", ""))):
        return config
    kind, first = ("bert", "Bert") if config.get("type_vocab_size", 1) > 1 else ("distilbert", "DistilBert")
    names = [plain_class(str(name)).replace("Bert", first, 1) for name in config.get("architectures") or []]
    return {
        **config,
        "family": str(config["model_type"]).removeprefix(PREFIX),
        "model_type": kind,
        "architectures": names,
    }


def shape_in(config: Mapping[str, Any], n_labels: int) -> SmallShape:  # Any: the content of config.json
    """Return the shape in a small encoder's configuration."""
    family = str(config["model_type"]).removeprefix(PREFIX)
    for name in NUMBERS_OF_TFIDF if family == TFIDF else NUMBERS:
        if not isinstance(config.get(name), int) or config[name] < 0:
            got = repr(config.get(name))
            raise Refused(f"model: config.json says {got} for {name}, expected a whole number. Copy the folder again.")
    if family == TFIDF:
        size, n_pairs, columns, positions = (config[name] for name in NUMBERS_OF_TFIDF)
        return tfidf_shape(size, n_pairs, columns, positions=positions, n_labels=n_labels)
    return small_shape(
        family, config["vocab_size"], config["embedding_size"], config["units"],
        positions=config["max_position_embeddings"], n_labels=n_labels, dense=config["dense"],
        output=config["output_size"], is_pair=config["type_vocab_size"] > 1,
    )  # fmt: skip

"""The numbers of an encoder that decide its bytes and its time, and the bits of a package. Standard library only."""

import math
from dataclasses import dataclass
from typing import Any, Literal

MIN_4_BIT_VALUES = 8192  # below it a matrix has so few values that 4 bits save next to nothing


@dataclass(frozen=True)
class Shape:
    """The numbers of an encoder that decide its bytes."""

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    ffn: int
    positions: int
    token_types: int = 2
    embedding_size: int | None = None  # ELECTRA's narrower embeddings; None: the same as hidden
    n_labels: int = 0  # 0: no head (sentence embeddings)
    head_layers: int = 0  # dense hidden x hidden layers before the classifier (BERT's pooler: 1)
    # The stored layer of each pass and whether it exchanges query and key (``repetition``); (): each layer runs once.
    passes: tuple[int, ...] = ()
    exchanged: tuple[bool, ...] = ()

    @property
    def n_passes(self) -> int:
        """How many layers run: a stored layer may run more than once."""
        return len(self.passes) or self.layers

    @property
    def table_rows(self) -> dict[str, int]:
        """Rows of each embedding table."""
        return {"words": self.vocab_size, "positions": self.positions, "token types": self.token_types}

    @property
    def matrices(self) -> list[tuple[tuple[int, int], int]]:
        """((inputs, outputs), how often) of every kind of weight matrix outside the embedding tables."""
        width = self.embedding_size or self.hidden
        found = [
            ((self.hidden, self.hidden), 4 * self.layers + self.head_layers),
            ((self.hidden, self.ffn), self.layers),
            ((self.ffn, self.hidden), self.layers),
        ]
        if width != self.hidden:
            found.append(((width, self.hidden), 1))
        if self.n_labels:
            found.append(((self.hidden, self.n_labels), 1))
        return found

    @property
    def n_matrix_values(self) -> int:
        """Values in all of them."""
        return sum(rows * columns * count for (rows, columns), count in self.matrices)

    @property
    def n_multiplications(self) -> int:
        """Multiplications by weights per token: of a layer's matrices at each of its passes."""
        per_pass = 4 * self.hidden**2 + 2 * self.hidden * self.ffn
        return self.n_matrix_values + per_pass * (self.n_passes - self.layers)

    @property
    def n_vector_values(self) -> int:
        """Biases and LayerNorm gains and offsets: always kept in float32."""
        width = self.embedding_size or self.hidden
        per_layer = 4 * self.hidden + self.ffn + self.hidden + 4 * self.hidden  # q k v o, ffn in, ffn out, two norms
        rest = 2 * width + self.head_layers * self.hidden + self.n_labels
        return per_layer * self.layers + rest + (self.hidden if width != self.hidden else 0)

    @property
    def n_parameters(self) -> int:
        """Parameters of the deployed model (tables, matrices, vectors)."""
        width = self.embedding_size or self.hidden
        tables = sum(self.table_rows.values()) * width
        return tables + self.n_matrix_values + self.n_vector_values

    def as_dict(self) -> dict[str, Any]:  # Any: numbers, None and lists of them
        """Return the numbers by name, as JSON knows them; without a pattern where each layer runs once."""
        found = {name: value for name, value in self.__dict__.items() if value != ()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


@dataclass(frozen=True)
class Scheme:
    """How many bits each kind of tensor gets. ``None`` keeps float32."""

    weight_bits: Literal[4, 8] | None = 8
    embedding_bits: Literal[4, 8] | None = 8
    block_size: int = 32  # values that share one scale, for 4-bit weights and 4-bit embeddings; a power of two >= 16

    @property
    def name(self) -> str:
        """``none``, ``int8``, ``int4`` or ``int4+int8`` (4-bit weights, 8-bit embeddings)."""
        if self.weight_bits is None:
            return "none"
        if self.embedding_bits in (self.weight_bits, None):
            return f"int{self.weight_bits}"
        return f"int{self.weight_bits}+int{self.embedding_bits}"


def blocks(n_values: int, block_size: int) -> int:
    """Return how many scales a row of ``n_values`` needs."""
    return math.ceil(n_values / block_size)


def fits_4_bits(rows: int, columns: int, block_size: int) -> bool:
    """Say whether a matrix is worth 4 bits and fills its blocks; otherwise it gets 8 (a small classifier)."""
    return rows * columns >= MIN_4_BIT_VALUES and rows * columns % block_size == 0

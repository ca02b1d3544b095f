"""Budgets: what a package may cost, what a shape will cost, and which promises a measurement breaks.

Sizes are decimal bytes of the *whole* package (``7MB`` = 7,000,000; ``MiB`` is understood too). Latency is text in,
answer out, in milliseconds at a percentile. A drop is points (hundredths) of the task's metric below the teacher.
Standard library only, so that a device or a CI job can import it alone. It predicts and compares; it measures nothing.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

SIZE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
PERCENTILES = ("p50", "p95", "p99")
MIN_4_BIT_VALUES = 8192  # below it a matrix has so few values that 4 bits save next to nothing


class OverBudget(Exception):
    """A prediction or a measurement breaks a budget; ``violations`` holds one sentence for each."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations


def parse_size(text: str) -> int:
    """Return bytes: ``parse_size("7MB") == 7_000_000``, ``parse_size("1.5MiB") == 1_572_864``.

    Raises:
        ValueError: if the text is not a positive number with one of the units B, kB, MB, GB, KiB, MiB, GiB.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    unit = match.group(2).lower() or "b" if match else ""
    if match is None or unit not in SIZE_UNITS or float(match.group(1)) <= 0:
        raise ValueError(f"size: got {text!r}, expected a positive number with a unit. Write for example 7MB or 900kB.")
    return int(float(match.group(1)) * SIZE_UNITS[unit])


class LatencyLimit(NamedTuple):
    """An upper limit of one percentile of the time from text to answer."""

    percentile: Literal["p50", "p95", "p99"]
    max_ms: float

    def __str__(self) -> str:
        return f"{self.percentile}={self.max_ms:g}ms"


def parse_latency(text: str) -> LatencyLimit:
    """Return the limit in ``p95=5ms`` (``us``, ``ms`` and ``s`` are understood).

    Raises:
        ValueError: if the percentile or the time is not understood.
    """
    match = re.fullmatch(r"\s*(p50|p95|p99)\s*=\s*([0-9]*\.?[0-9]+)\s*(us|ms|s)\s*", text)
    if match is None or float(match.group(2)) <= 0:
        raise ValueError(f"latency: got {text!r}, expected a percentile and a time. Write for example p95=5ms.")
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[match.group(3)]
    return LatencyLimit(match.group(1), float(match.group(2)) * scale)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Budget:
    """What the user allows; ``None`` means no limit."""

    max_bytes: int | None = None
    latency: LatencyLimit | None = None
    max_drop: float | None = None  # points of the task's metric below the teacher


@dataclass(frozen=True)
class Measurement:
    """What was measured of a package; ``None`` means not measured."""

    n_bytes: int | None = None
    latency_ms: dict[str, float] | None = None  # {"p50": ..., "p95": ..., "p99": ...}
    drop: float | None = None  # points below the teacher; negative when the package is better


def violations(measured: Measurement, budget: Budget) -> list[str]:
    """Return one sentence per broken promise: all of them, not the first. An empty list means the budget is met."""
    broken = []
    if budget.max_bytes is not None and measured.n_bytes is not None and measured.n_bytes > budget.max_bytes:
        over = measured.n_bytes - budget.max_bytes
        broken.append(f"size: {measured.n_bytes:,} bytes, allowed {budget.max_bytes:,} (--max-size): {over:,} too many")
    if budget.latency is not None and measured.latency_ms is not None:
        got = measured.latency_ms[budget.latency.percentile]
        if got > budget.latency.max_ms:
            broken.append(
                f"latency: {budget.latency.percentile} {got:.2f} ms, allowed {budget.latency.max_ms:g} ms "
                f"(--max-latency): {got - budget.latency.max_ms:.2f} ms too slow"
            )
    if budget.max_drop is not None and measured.drop is not None and measured.drop > budget.max_drop + 1e-9:
        broken.append(
            f"quality: {measured.drop:.2f} points below the teacher, allowed {budget.max_drop:g} (--max-drop): "
            f"{measured.drop - budget.max_drop:.2f} points too many"
        )
    return broken


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
    # The stored layer of each pass and whether it exchanges query and key (exporters.passes); (): each layer runs once.
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
    def matrices(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every weight matrix outside the embedding tables."""
        width = self.embedding_size or self.hidden
        per_layer = [(self.hidden, self.hidden)] * 4 + [(self.hidden, self.ffn), (self.ffn, self.hidden)]
        found = per_layer * self.layers + [(self.hidden, self.hidden)] * self.head_layers
        if width != self.hidden:
            found.append((width, self.hidden))
        if self.n_labels:
            found.append((self.hidden, self.n_labels))
        return found

    @property
    def n_multiplications(self) -> int:
        """Multiplications by weights per token: of a layer's matrices at each of its passes."""
        per_pass = 4 * self.hidden**2 + 2 * self.hidden * self.ffn
        return sum(rows * columns for rows, columns in self.matrices) + per_pass * (self.n_passes - self.layers)

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
        return tables + sum(rows * columns for rows, columns in self.matrices) + self.n_vector_values

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

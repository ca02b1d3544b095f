"""Predict the bytes of a whole package from a shape and a scheme, before a minute is spent; standard library only.

Tables, matrices and vectors follow from how ``exporters.graph.quantize`` stores them, so they are exact:

    8 bits   values + 2 bytes per row of a table, per column of a matrix (a float16 scale)
    4 bits   values / 2 + 1 byte per block (its multiplier) + 2 bytes per column (a float16 scale); matrices in pairs
             of equal size, the odd one out in 8 bits
    float    4 x values

The rest is fitted on built packages and off by at most some hundred bytes; the tokenizer, when its bytes are not given,
by some percent of itself. ``benchmarks/predicted_bytes.py`` builds ten shapes and writes down by how much.
"""

import math
from typing import Literal

from exporters.shape import Scheme, Shape, blocks, fits_4_bits
from exporters.small.shape import SmallShape, TfidfShape

# Nodes, names and small constants of a cleaned encoder: (once, per layer, per further pass of a layer that repeats,
# whose constants are there already). Least squares over BERT encoders of 1, 3 and 6 layers, widths 128 and 384;
# RoBERTa, DistilBERT and ELECTRA differ by 1,500 bytes at most.
QUANTIZED_GRAPH, FLOAT_GRAPH = (3170, 3850, 2200), (2720, 3270, 2340)
GRAPH_4_BIT_MATRIX, GRAPH_4_BIT_TABLE = 275, 155  # on top, for each that is stored in 4 bits
# tokenizer.json: bytes per token at 1,000 tokens, and more for each doubling (tokens get longer). Vocabularies of 1,000
# to 16,000 tokens trained on SST-2, MRPC and docstrings; BPE also stores its merges.
TOKENIZER = {"wordpiece": (10.76, 0.99), "unigram": (20.8, 0.0), "bpe": (24.5, 4.3)}
# config.json, tokenizer_config.json, manifest.json with five self-test cases, and the model card.
MANIFEST_AND_CARD = 6_000
PER_LABEL = 110  # its name in configuration, manifest and graph, and its probability in five self-test cases
PER_EMBEDDING_VALUE = 52  # the vectors of five self-test cases: "-0.012345, "


def predict_bytes(
    shape: Shape,
    scheme: Scheme,
    n_tokenizer_bytes: int | None = None,
    kind: Literal["wordpiece", "unigram", "bpe"] | str = "wordpiece",
    certificates: tuple[int, int] = (0, 0),
) -> dict[str, int]:
    """Return the predicted bytes of every part; their sum is the whole package.

    Args:
        shape: of the deployed model.
        scheme: its bits.
        n_tokenizer_bytes: of tokenizer.json where it is known already; otherwise estimated from the vocabulary's size.
        kind: of the tokenizer.
        certificates: bytes that the manifest and the card hold on folded weights: (once, per layer).
    """
    if n_tokenizer_bytes is None:
        per_token, per_doubling = TOKENIZER[kind]
        per_token += per_doubling * max(0.0, math.log2(shape.vocab_size / 1000))
        n_tokenizer_bytes = round(per_token * shape.vocab_size)
    width = shape.embedding_size or shape.hidden
    per_task = PER_LABEL * shape.n_labels or PER_EMBEDDING_VALUE * shape.hidden
    once, per_layer = certificates
    tables = sum(_table(rows, width, scheme) for rows in shape.table_rows.values())
    return {
        "embeddings": shape.n_feature_bytes if isinstance(shape, TfidfShape) else tables,
        "weights": _weights(shape, scheme),
        "vectors": 4 * shape.n_vector_values,
        "graph": _graph(shape, scheme),
        "tokenizer": n_tokenizer_bytes,
        "manifest and card": MANIFEST_AND_CARD + per_task + once + per_layer * shape.layers,
    }


def _graph(shape: Shape, scheme: Scheme) -> int:
    if isinstance(shape, SmallShape):
        return shape.n_graph_bytes(is_quantized=scheme.weight_bits is not None)
    once, per_layer, per_pass = FLOAT_GRAPH if scheme.weight_bits is None else QUANTIZED_GRAPH
    layers = per_layer * shape.layers + per_pass * (shape.n_passes - shape.layers)
    width = shape.embedding_size or shape.hidden
    n_matrices = sum(_count_4_bit(shape, scheme).values())
    n_tables = sum(_is_4_bit_table(rows, width, scheme) for rows in shape.table_rows.values())
    return once + layers + GRAPH_4_BIT_MATRIX * n_matrices + GRAPH_4_BIT_TABLE * n_tables


def _count_4_bit(shape: Shape, scheme: Scheme) -> dict[int, int]:
    """Return how many matrices are stored in 4 bits, by their number of values: always an even number."""
    counts: dict[int, int] = {}
    for (rows, columns), count in shape.matrices:
        if scheme.weight_bits == 4 and fits_4_bits(rows, columns, scheme.block_size):
            counts[rows * columns] = counts.get(rows * columns, 0) + count
    return {n_values: count - count % 2 for n_values, count in counts.items()}


def _weights(shape: Shape, scheme: Scheme) -> int:
    if scheme.weight_bits is None:
        return 4 * shape.n_matrix_values
    in_8_bits = sum((rows * columns + 2 * columns) * count for (rows, columns), count in shape.matrices)
    saved = sum(
        count * (n_values - n_values // 2 - blocks(n_values, scheme.block_size))
        for n_values, count in _count_4_bit(shape, scheme).items()
    )
    return in_8_bits - saved


def _table(rows: int, width: int, scheme: Scheme) -> int:
    n_values = rows * width
    if scheme.embedding_bits is None:
        return 4 * n_values
    if _is_4_bit_table(rows, width, scheme):
        return n_values // 2 + blocks(n_values, scheme.block_size) + 2 * width
    return n_values + 2 * rows


def _is_4_bit_table(rows: int, width: int, scheme: Scheme) -> bool:
    fits = width % scheme.block_size == 0 and fits_4_bits(rows, width, scheme.block_size)
    return scheme.embedding_bits == 4 and fits

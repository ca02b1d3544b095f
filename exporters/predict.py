"""Predict the bytes of a whole package from a shape and a scheme, before a minute is spent; standard library only.

Tables, matrices and vectors follow from how ``exporters.quantize`` stores them, so they are exact:

    8 bits   values + 2 bytes per row of a table, per column of a matrix (a float16 scale)
    4 bits   values / 2 + 1 byte per block (its multiplier) + 2 bytes per column (a float16 scale)
    float    4 x values

The rest is fitted on built packages and off by at most some hundred bytes; the tokenizer, when its bytes are not given,
by some percent of itself. ``benchmarks/predicted_bytes.py`` builds ten shapes and writes down by how much.
"""

import math
from typing import Literal

from exporters.budget import Scheme, Shape, blocks, fits_4_bits

# Nodes, names and small constants of a cleaned encoder: (once, per layer), by bits of the matrices. Least squares over
# BERT encoders of 1, 2, 4 and 6 layers, widths 128 and 384; RoBERTa, DistilBERT and ELECTRA differ by 700 bytes at most.
GRAPH = {8: (3350, 2850), 4: (4100, 5560), None: (2700, 2430)}
GRAPH_4_BIT_TABLES = 315
# tokenizer.json: bytes per token at 1,000 tokens, and more for each doubling (tokens get longer). Vocabularies of 1,000
# to 16,000 tokens trained on SST-2, MRPC and docstrings; BPE also stores its merges.
TOKENIZER = {"wordpiece": (10.76, 0.99), "unigram": (20.8, 0.0), "bpe": (24.5, 4.3)}
# config.json, tokenizer_config.json, manifest.json with five self-test cases, and the model card.
MANIFEST_AND_CARD = 8_600
PER_LABEL = 45  # its name in the configuration (twice), the manifest and the graph, with quotes


def predict_bytes(
    shape: Shape,
    scheme: Scheme,
    n_tokenizer_bytes: int | None = None,
    kind: Literal["wordpiece", "unigram", "bpe"] | str = "wordpiece",
) -> dict[str, int]:
    """Return the predicted bytes of every part; their sum is the whole package.

    Args:
        shape: of the deployed model.
        scheme: its bits.
        n_tokenizer_bytes: of tokenizer.json where it is known already; otherwise estimated from the vocabulary's size.
        kind: of the tokenizer.
    """
    if n_tokenizer_bytes is None:
        per_token, per_doubling = TOKENIZER[kind]
        per_token += per_doubling * max(0.0, math.log2(shape.vocab_size / 1000))
        n_tokenizer_bytes = round(per_token * shape.vocab_size)
    once, per_layer = GRAPH[scheme.weight_bits]
    graph = once + per_layer * shape.layers + (GRAPH_4_BIT_TABLES if scheme.embedding_bits == 4 else 0)
    width = shape.embedding_size or shape.hidden
    return {
        "embeddings": sum(_table(rows, width, scheme) for rows in shape.table_rows.values()),
        "weights": sum(count * _matrix(*sizes, scheme) for sizes, count in _matrices(shape)),
        "vectors": 4 * shape.n_vector_values,
        "graph": graph,
        "tokenizer": n_tokenizer_bytes,
        "manifest and card": MANIFEST_AND_CARD + PER_LABEL * shape.n_labels,
    }


def _matrices(shape: Shape) -> list[tuple[tuple[int, int], int]]:
    """Return ((inputs, outputs), how often); what ``shape.matrices`` lists one by one."""
    width = shape.embedding_size or shape.hidden
    found = [
        ((shape.hidden, shape.hidden), 4 * shape.layers + shape.head_layers),
        ((shape.hidden, shape.ffn), shape.layers),
        ((shape.ffn, shape.hidden), shape.layers),
    ]
    if width != shape.hidden:
        found.append(((width, shape.hidden), 1))
    if shape.n_labels:
        found.append(((shape.hidden, shape.n_labels), 1))
    return found


def _matrix(rows: int, columns: int, scheme: Scheme) -> int:
    n_values = rows * columns
    if scheme.weight_bits is None:
        return 4 * n_values
    if scheme.weight_bits == 4 and fits_4_bits(rows, columns, scheme.block_size):  # noqa: PLR2004
        return n_values // 2 + blocks(n_values, scheme.block_size) + 2 * columns
    return n_values + 2 * columns


def _table(rows: int, width: int, scheme: Scheme) -> int:
    n_values = rows * width
    if scheme.embedding_bits is None:
        return 4 * n_values
    fits = width % scheme.block_size == 0 and fits_4_bits(rows, width, scheme.block_size)
    if scheme.embedding_bits == 4 and fits:  # noqa: PLR2004
        return n_values // 2 + blocks(n_values, scheme.block_size) + 2 * width
    return n_values + 2 * rows

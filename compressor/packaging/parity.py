"""On which rows torch, the float graph and the quantised one are compared, and within which limits they must agree."""

from typing import Any

from compressor.data.splits import subset
from compressor.data.table import Table, read_table

# The outputs of the graph by kind of task: the one that answers, and the one by which two graphs are compared.
OUTPUT_OF = {"classification": "probabilities", "regression": "logits", "embedding": "sentence_embedding"}
COMPARED_OF = {**OUTPUT_OF, "classification": "logits"}
MAX_ONNX_DIFFERENCE = 1e-3  # of logits or unit vectors, against torch in float32: rounding only
MIN_TOP1_AGREEMENT = 0.85  # of the quantised model with the float one; --max-drop judges the quality itself
MIN_COSINE = 0.90
# Read when no rows are given: parity, self-test cases and timing need some text.
SAMPLE_TEXTS = (
    "The new train leaves at nine and arrives before noon.",
    "I did not like the second half of this book at all.",
    "Prices rose by 3.5 % in the last quarter, more than expected.",
    "Could you tell me how to change my password?",
    "A wonderful, warm and funny story about two brothers.",
    "It rains.",
    "She said the meeting had been moved to Thursday, but nobody had told the guests who were already waiting outside.",
    "Water boils at a lower temperature on a mountain.",
)


def sample_rows(source: str | None, text_column: str | None, pair_column: str | None) -> Table:
    """Return at most 200 rows of a file, or a few English sentences when none is given."""
    if source is None:
        return Table(list(SAMPLE_TEXTS), None, None, {}, "", "sample sentences")
    table = read_table(source, text_column=text_column, pair_column=pair_column, split="validation", needs_label=False)
    return subset(table, min(200, len(table)), 0)


def compare_steps(kind: str, scheme: str, outputs: list[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare torch with the float graph, and that with the quantised one where there is one.

    Args:
        kind: of the task; it decides what has to agree.
        scheme: name of the bits, for the sentences.
        outputs: logits or embeddings (rows, values) of torch, of the float graph and of the quantised one.

    Returns:
        The comparisons as the report shows them, and one sentence per limit that is missed.
    """
    from exporters.measuring.parity import Limits, check, compare

    limits = [Limits("torch to ONNX", max_abs=MAX_ONNX_DIFFERENCE)]
    if kind == "classification":
        limits.append(Limits(f"ONNX to {scheme}", top1_agreement=MIN_TOP1_AGREEMENT))
    elif kind == "embedding":
        limits.append(Limits(f"ONNX to {scheme}", cosine_mean=MIN_COSINE))
    else:
        limits.append(Limits(f"ONNX to {scheme}", max_abs=max(float(outputs[0].std()), MAX_ONNX_DIFFERENCE)))
    rows, missed = [], []
    for before, after, limit in zip(outputs, outputs[1:], limits, strict=False):
        parity = compare([after], [before])
        rows.append({"step": limit.step, **parity._asdict()})
        missed += check(parity, limit)
    return rows, missed

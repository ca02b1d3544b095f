"""On which rows torch, the float graph and the quantised one are compared, and within which limits they must agree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.splits import subset
from compressor.data.table import Table, read_table
from compressor.tasks.metrics import Predict

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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


def compare_graphs(
    kind: str,
    predict: Predict,
    graph: Path,
    made: Mapping[str, Path],
    settings: "tuple[Tokenizer, int, Sequence[str]]",
    table: Table,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare torch with the float graph, and that with what was made of it.

    Args:
        kind: of the task; it decides what has to agree.
        predict: torch's answers.
        graph: the float graph.
        made: graphs in fewer bits or another format, by their names in the sentences.
        settings: tokenizer, tokens per input, and the graph's inputs.
        table: rows to ask.

    Returns:
        The comparisons as the report shows them, and one sentence per limit that is missed.
    """
    from exporters.measuring.answers import graph_predictor
    from exporters.measuring.parity import Limits, check, compare

    asked = [predict, *(graph_predictor(path, *settings, COMPARED_OF[kind]) for path in (graph, *made.values()))]
    pairs = table.pairs if kind != "embedding" else None
    torch, onnx, *others = (ask(table.texts, pairs) for ask in asked)
    allowed = {
        "classification": {"top1_agreement": MIN_TOP1_AGREEMENT},
        "embedding": {"cosine_mean": MIN_COSINE},
        "regression": {"max_abs": max(float(torch.std()), MAX_ONNX_DIFFERENCE)},
    }
    steps = [(torch, onnx, Limits("torch to ONNX", max_abs=MAX_ONNX_DIFFERENCE))]
    steps += [
        (onnx, other, Limits(f"ONNX to {name}", **allowed[kind])) for name, other in zip(made, others, strict=True)
    ]
    rows, missed = [], []
    for before, after, limit in steps:
        parity = compare([after], [before])
        rows.append({"step": limit.step, **parity._asdict()})
        missed += check(parity, limit)
    return rows, missed

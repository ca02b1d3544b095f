"""On which rows torch, the float graph and the quantised one are compared, and within which limits they must agree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressor.data.columns import DETECTED, Columns
from compressor.data.splits import subset
from compressor.data.table import Table, read_table
from compressor.scoring.contract import TaskSpec
from compressor.scoring.evaluate import Predict

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_ONNX_DIFFERENCE = 1e-3  # of logits or unit vectors, against torch in float32: rounding only
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


class Asked(NamedTuple):
    """How a graph is asked for its answers."""

    tokenizer: "Tokenizer"
    max_length: int  # in tokens
    inputs: Sequence[str]  # of the graph
    truncation: str  # the side on which a text that is too long loses tokens


def sample_rows(source: str | None, columns: Columns = DETECTED, *, pairs: bool = False) -> Table:
    """Return at most 200 rows of a file, or a few English sentences, or pairs of them, when none is given."""
    if source is None:
        seconds = [*SAMPLE_TEXTS[1:], SAMPLE_TEXTS[0]] if pairs else None
        return Table(list(SAMPLE_TEXTS), seconds, None, {}, "", "sample sentences")
    table = read_table(source, columns=columns, split="validation", needs_label=None)
    return subset(table, min(200, len(table)), 0)


def compare_graphs(
    task: TaskSpec,
    predict: Predict,
    graph: Path,
    made: Mapping[str, Path],
    settings: Asked,
    table: Table,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare torch with the float graph, and that with what was made of it.

    Args:
        task: decides what has to agree.
        predict: torch's answers.
        graph: the float graph.
        made: graphs in fewer bits or another format, by their names in the sentences.
        settings: how graphs are asked.
        table: rows to ask.

    Returns:
        The comparisons as the report shows them, and one sentence per limit that is missed.
    """
    from exporters.measuring.parity import Limits, check, compare

    compared, asked = task.head().compared, task.asked(table)
    predictors = [predict, *(_of_graph(path, settings, compared) for path in (graph, *made.values()))]
    torch, onnx, *others = (ask(asked.texts, asked.pairs) for ask in predictors)
    steps = [(torch, onnx, Limits("torch to ONNX", max_abs=MAX_ONNX_DIFFERENCE))]
    allowed = task.limits(torch)
    steps += [(onnx, other, Limits(f"ONNX to {name}", **allowed)) for name, other in zip(made, others, strict=True)]
    rows, missed = [], []
    for before, after, limit in steps:
        parity = compare([task.compared(after)], [task.compared(before)])
        rows.append({"step": limit.step, **parity._asdict()})
        missed += check(parity, limit)
    return rows, missed


def _of_graph(path: Path, settings: Asked, output: str) -> Predict:
    from exporters.measuring.answers import graph_predictor

    return graph_predictor(path, settings.tokenizer, settings.max_length, settings.inputs, output, settings.truncation)

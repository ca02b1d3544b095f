"""Rows for what needs some text and is given none: parity, self-test cases, timing."""

from compressor.data.splits import subset
from compressor.data.table import Table, read_table

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

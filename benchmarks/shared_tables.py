"""The tables of docs/sharing.md, from the result of shared_export."""

from collections.abc import Callable
from functools import partial
from typing import Any

FILE_HEADER = (
    "| file | bytes | bytes per parameter | products left float | distance from torch | p50 (p10) ms | peak MB |",
    "|---|---|---|---|---|---|---|",
)
MEMORY_HEADER = (
    "| hidden | file | bytes | p50 (p10) ms | peak MB | p50 (p10) ms, not packed | peak MB, not packed |",
    "|---|---|---|---|---|---|---|",
)


def shared_tables(results: dict[str, dict[str, Any]]) -> dict[str, Callable[[], str]]:
    """Return the tables by the name of their place in a page; none without the result."""
    if "shared_export" not in results:
        return {}
    result = results["shared_export"]
    return {"shared-albert": partial(albert_table, result), "shared-students": partial(students_table, result)}


def albert_table(result: dict[str, Any]) -> str:
    """Return our files and the plain path's, for one ALBERT of base shape."""
    rows = next(each["rows"] for each in result["sections"] if each["name"] == "albert")
    lines = []
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['name']} | fails: {row['failed']} | | | | | |")
            continue
        cells = (
            row["name"], f"{row['bytes_file']:,}", f"{row['bytes_per_parameter']:.3f}", str(row["float_products"]),
            f"{row['relative_error']:.4f}", _times(row, ""), f"{row['peak_mb']:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        f"{rows[0]['parameters']:,} unique parameters, random. Distance: of logits, relative, "
        f"{result['setting']['rows']} rows. {_note(result)}"
    )
    return "\n".join([*FILE_HEADER, *lines, "", note])


def students_table(result: dict[str, Any]) -> str:
    """Return stored layers, the same run twice, and as many stored layers as passes, packed and not."""
    lines = []
    for section in result["sections"]:
        _, _, hidden = section["name"].partition("hidden ")
        for row in section["rows"] if hidden else []:
            cells = (
                hidden, row["name"], f"{row['bytes_file']:,}", _times(row, ""), f"{row['peak_mb']:.1f}",
                _times(row, "_unpacked"), f"{row['peak_mb_unpacked']:.1f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*MEMORY_HEADER, *lines, "", _note(result)])


def _times(row: dict[str, Any], ending: str) -> str:
    return f"{row[f'p50_ms{ending}']:.2f} ({row[f'p10_ms{ending}']:.2f})"


def _note(result: dict[str, Any]) -> str:
    return (
        f"Processor time of one thread, {result['setting']['tokens']} tokens, all files of a shape in turn, "
        f"{result['machine'].get('cpu', 'this machine')}, onnxruntime {result['machine']['onnxruntime']}; memory above "
        f"that of a process without a model. Repeat: `{result['command']}`."
    )

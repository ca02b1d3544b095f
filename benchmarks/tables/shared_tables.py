"""The tables of docs/sharing.md, from the result of shared_export."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.tables.tables import markdown

COSTS = ["p50 (p10) ms", "MB, loading", "MB, running"]
FILE_HEADER = ["file", "bytes", "bytes per parameter", "products left float", "distance from torch", *COSTS]
STUDENT_HEADER = ["hidden", "file", "bytes", *COSTS, *(f"{each}, not packed" for each in COSTS)]


def shared_tables(results: dict[str, dict[str, Any]]) -> dict[str, Callable[[], str]]:
    """Return the tables by the name of their place in a page; none without the result."""
    if "shared_export" not in results:
        return {}
    result = results["shared_export"]
    return {"shared-albert": partial(albert_table, result), "shared-students": partial(students_table, result)}


def albert_table(result: dict[str, Any]) -> str:
    """Return our files and the plain path's, for one ALBERT of base shape."""
    rows = next(each["rows"] for each in result["sections"] if each["name"] == "albert")
    lines = [FILE_HEADER, ["---"] * len(FILE_HEADER)]
    for row in rows:
        if "failed" in row:
            lines.append([row["name"], f"fails: {row['failed']}", *[""] * (len(FILE_HEADER) - 2)])
            continue
        stored = f"{row['bytes_file']:,}", f"{row['bytes_per_parameter']:.3f}"
        answers = str(row["float_products"]), f"{row['relative_error']:.4f}"
        lines.append([row["name"], *stored, *answers, *_costs(row, "")])
    note = (
        f"{rows[0]['parameters']:,} unique parameters, random. Distance: of logits, relative, "
        f"{result['setting']['rows']} rows. {_note(result)}"
    )
    return f"{markdown(lines)}\n\n{note}"


def students_table(result: dict[str, Any]) -> str:
    """Return stored layers, the same run twice, and as many stored layers as passes, packed and not."""
    lines = [STUDENT_HEADER, ["---"] * len(STUDENT_HEADER)]
    for section in result["sections"]:
        _, _, hidden = section["name"].partition("hidden ")
        for row in section["rows"] if hidden else []:
            costs = *_costs(row, ""), *_costs(row, "_unpacked")
            lines.append([hidden, row["name"], f"{row['bytes_file']:,}", *costs])
    return f"{markdown(lines)}\n\n{_note(result)}"


def _costs(row: dict[str, Any], ending: str) -> tuple[str, str, str]:
    return _times(row, ending), f"{row[f'peak_mb{ending}']:.1f}", f"{row[f'running_mb{ending}']:.1f}"


def _times(row: dict[str, Any], ending: str) -> str:
    return f"{row[f'p50_ms{ending}']:.2f} ({row[f'p10_ms{ending}']:.2f})"


def _note(result: dict[str, Any]) -> str:
    return (
        f"Processor time of one thread, {result['setting']['tokens']} tokens, all files of a shape in turn, "
        f"{result['machine'].get('cpu', 'this machine')}, onnxruntime {result['machine']['onnxruntime']}; memory above "
        "that of a process without a model, at the peak, which loading makes, and while it runs. Repeat: "
        f"`{result['command']}`."
    )

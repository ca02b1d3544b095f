"""Rows in memory: what they may look like, and the .jsonl lines that they become, which are read like any file.

A row is a text, (text, label), (text, text, label) or a dictionary of columns; all rows of a list are of one shape. A
label is a text or a number, or in every row a list of them, where a text may have any number of labels.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from compressor.refused import Refused

# By the number of its parts: the names are those that the reader of files knows a text, a pair and a label by.
COLUMNS = {1: ("text",), 2: ("text", "label"), 3: ("text1", "text2", "label")}
SHAPES = "a text, (text, label), (text, text, label) or a dictionary"


def row_lines(role: str, rows: Sequence[Any]) -> list[str]:
    """Return a line of JSON for each row.

    Args:
        role: what the rows are for, "train" or "eval"; refusals begin with it.
        rows: as the caller gave them.

    Raises:
        Refused: for no row at all, and for the first row that is not like the others, with its number.
    """
    if not rows:
        raise Refused(f"{role}: the list is empty, expected rows. Give {SHAPES} for each row.")
    first = rows[0]
    like = None if isinstance(first, str | Mapping) or not _is_row(first) else first[-1]
    lines = []
    for number, row in enumerate(rows):
        where = f"{role}: row {number + 1} ({role}[{number}])"
        if not _is_row(row):
            raise Refused(f"{where} is {_told(row)}, expected {SHAPES}. Correct it.")
        if _shape(row) != _shape(first):
            raise Refused(f"{where} is {_told(row)}, row 1 is {_told(first)}. Give all rows in one shape.")
        columns = _columns(where, row, first) if isinstance(row, Mapping) else _parts(where, row, like)
        lines.append(json.dumps(columns, ensure_ascii=False))
    return lines


def _is_row(row: Any) -> bool:
    return isinstance(row, str) or (isinstance(row, Mapping) and bool(row)) or _n_parts(row) in (2, 3)


def _n_parts(row: Any) -> int:
    return len(row) if isinstance(row, tuple | list) else 0


def _shape(row: Any) -> tuple[type, int]:
    kind = next(kind for kind in (str, Mapping, object) if isinstance(row, kind))
    return kind, _n_parts(row)


def _parts(where: str, row: Any, like: Any) -> dict[str, Any]:
    """Return the columns of a text or a tuple; a tuple that ends in ``None`` has no label. ``like`` is row 1's."""
    parts = [row] if isinstance(row, str) else list(row)
    n_texts = max(1, len(parts) - 1)
    for text in parts[:n_texts]:
        if not isinstance(text, str) or not text.strip():
            raise Refused(f"{where} holds {_told(text)} where a text belongs. Correct it or leave out the row.")
        _check_unicode(where, text)
    names = COLUMNS[len(parts)]
    if n_texts == len(parts):
        return {"text": row}
    texts = dict(zip(names, parts[:n_texts], strict=False))
    if (parts[-1] is None) != (like is None):
        rest = "has a label, row 1 has none" if like is None else "has no label (None), row 1 has one"
        raise Refused(f"{where} {rest}. Give every row a label, or none.")
    return texts if like is None else {**texts, "label": _label(where, parts[-1], isinstance(like, list | tuple))}


def _label(where: str, given: Any, is_list: bool) -> Any:
    """Return a label, or a list of labels, as JSON can say it; ``is_list`` where row 1 has a list."""
    if isinstance(given, list | tuple) != is_list:
        likewise = "a list of labels" if is_list else "one label"
        raise Refused(f"{where} has {_told(given)} as its label, row 1 has {likewise}. Give all rows what row 1 has.")
    found = [_plain(each) for each in (given if is_list else [given])]
    for label in found:
        if is_list and not _is_name(label):
            raise Refused(f"{where} has {_told(label)} in its list of labels, expected names or ids. Correct it.")
        if not isinstance(label, str | int | float) or _is_nan(label):
            expected = "a text, a number or, in every row, a list of labels"
            raise Refused(f"{where} has {_told(given)} as its label, expected {expected}. Correct it.")
        if isinstance(label, str):
            _check_unicode(where, label)
    return found if is_list else found[0]


def _is_name(label: Any) -> bool:
    """Tell whether a label can be one of several: a quantity, and yes or no, are the names of nothing."""
    return bool(label.strip()) if isinstance(label, str) else isinstance(label, int) and not isinstance(label, bool)


def _columns(where: str, row: Mapping[Any, Any], first: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a dictionary's columns in the order of the first row; what is text and what is label is found later."""
    if row.keys() != first.keys():
        lacks, odd = [key for key in first if key not in row], [key for key in row if key not in first]
        what = f"lacks {lacks[0]!r}, which row 1 has" if lacks else f"has {odd[0]!r}, which row 1 has not"
        raise Refused(f"{where} {what}. Give all rows the same keys.")
    found = {str(key): _plain(row[key]) for key in first}
    for key, value in found.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:  # ValueError: half a surrogate pair, or a circle
            raise Refused(
                f"{where} holds {_told(row[key])} in {key!r}, expected what JSON can say. Correct the row."
            ) from error
    return found


def _plain(value: Any) -> Any:
    """Return numpy's numbers, and those of torch, as Python's."""
    return value.item() if not isinstance(value, str) and getattr(value, "shape", None) == () else value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _check_unicode(where: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"{where} holds half a surrogate pair. Correct the text.") from error


def _told(value: Any) -> str:
    """Return a few words on a value: what it is, and what is in it."""
    return f"{value!r:.60} ({type(value).__name__})"

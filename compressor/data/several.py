"""Several labels a row: a list, a text with separators, or a column of 0 and 1 for each label.

    {"text": "what a day", "labels": ["joy", "surprise"]}          a list; [] is a row without a label
    text<TAB>labels        what a day<TAB>joy|surprise             one of | ; , between them; empty: none
    text,joy,surprise      what a day,1,1                          a column of each label's own name

A separator is one for the whole column: the first of the three with which every part is a label that is known or, where
none is known yet, the first that any cell holds. Refused, with the row: a null, an object, a list of lists, a number
that is neither 0 nor 1 in the column of a label.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence

from compressor.data.columns import is_label_name, is_missing, match_name, words_of
from compressor.data.formats import Rows
from compressor.data.labels import plain_name
from compressor.refused import Refused

SEPARATORS = ("|", ";", ",")
BESIDE = re.compile(r"""(['"])\s+['"]""")  # numpy's way to write an array: ['a' 'b']
SWITCH = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def switch_columns(
    values: Mapping[str, Sequence[object]], named: str | None, known: Sequence[str], source: str
) -> list[str]:
    """Return the columns that each stand for one label; none where the labels are in one column.

    Args:
        values: cells by column.
        named: as the user named the label: one column, or several with commas between.
        known: the labels that there are; (): not known yet.
        source: the file or data set, for messages.
    """
    names = list(values)
    if named is not None:
        if named in names or "," not in named:
            return []
        parts = [part.strip() for part in named.split(",") if part.strip()]
        columns = [match_name(part, names, source, "--label-column") for part in parts]
        _check_named(columns, values, source)
        _check_all(columns, known, source)
        return columns
    if known:
        by_name = {plain_name(name): name for name in names}
        found = [by_name[plain_name(label)] for label in known if plain_name(label) in by_name]
        if _is_said(names, found):
            return []
        if any(all(_switch(cell) is not None for cell in values[name]) for name in found):
            _check_all(found, known, source)
        return found if len(found) == len(known) else []
    found = [name for name in names if _is_switch_column(name, values[name])]
    return found if len(found) > 1 and not _is_said(names, found) else []


def _is_said(names: Sequence[str], switches: Sequence[str]) -> bool:
    """Return whether a column of another form is called "labels": it goes before columns of 0 and 1."""
    return any(is_label_name(name) and name not in switches for name in names)


def _check_all(columns: Sequence[str], known: Sequence[str], source: str) -> None:
    """Refuse columns that say nothing about some label: it would count as one that no row has."""
    there = {plain_name(name) for name in columns}
    lacking = [label for label in known if plain_name(label) not in there]
    if len(known) > 1 and len(lacking) < len(known) and lacking:
        raise Refused(
            f"{source}: it has columns for {len(known) - len(lacking)} of the {len(known)} labels and none for "
            f"{lacking[0]!r}. Add a column of 0 and 1 for each label, or name the column that holds all of them with "
            "--label-column."
        )


def _check_named(columns: Sequence[str], values: Mapping[str, Sequence[object]], source: str) -> None:
    """Refuse a column that the user names twice, and one that is of something else altogether."""
    for name in columns:
        if columns.count(name) > 1:
            raise Refused(f"{source}: --label-column names {name!r} twice. Name every column once.")
        if all(_switch(cell) is None for cell in values[name]):
            raise Refused(
                f"{source}: --label-column names {name!r} among others, which holds {_told(values[name][0])}, expected "
                "0 and 1 in the column of each label. Leave it out, or name the one column that holds all labels."
            )


def from_switches(rows: Rows, columns: Sequence[str], source: str) -> list[tuple[str, ...]]:
    """Return the names of the columns that hold a 1 in each row.

    Raises:
        ValueError: for the first cell that is neither 0 nor 1.
    """
    found: list[tuple[str, ...]] = []
    for index, place in enumerate(rows.places):
        held = []
        for name in columns:
            cell = rows.values[name][index]
            is_on = _switch(cell)
            if is_on is None:
                raise Refused(
                    f"{source}, {rows.unit} {place}: the column {name!r} holds {_told(cell)}, expected 0 or 1: whether "
                    "the row has this label. Correct the row, or name the column of the labels with --label-column."
                )
            if is_on:
                held.append(name)
        found.append(tuple(held))
    return found


def from_cells(rows: Rows, column: str, known: Sequence[str], source: str) -> list[tuple[str, ...]]:
    """Return the labels in the cells of one column: lists, or texts with separators.

    Raises:
        ValueError: for the first cell that holds no labels.
    """
    names = rows.class_names.get(column)
    places = [f"{source}, {rows.unit} {place}" for place in rows.places]
    read = [_items(cell, column, place) for cell, place in zip(rows.values[column], places, strict=True)]
    if (hot := _multi_hot(read, known, column, source)) is not None:
        return hot
    if not known and all(_switch(cell) is not None for cell in rows.values[column]):
        raise Refused(
            f"{source}: the column {column!r} holds 0 and 1 only, expected the labels of a row. A single column of 0 "
            "and 1 is one of two classes: leave out --task multi_label, or name a column for each label."
        )
    texts = {item for item in read if isinstance(item, str)}
    separator = _separator(sorted(texts), known)
    found = []
    for item, place in zip(read, places, strict=True):
        if isinstance(item, str):
            parts: list[object] = [part.strip() for part in (item.split(separator) if separator else [item])]
            parts = [part for part in parts if part]
        else:
            parts = item
        found.append(tuple(dict.fromkeys(_name(part, names, column, place) for part in parts)))
    return found


def _multi_hot(
    read: Sequence[str | list[object]], known: Sequence[str], column: str, source: str
) -> list[tuple[str, ...]] | None:
    """Return the labels of lists that hold a 0 or a 1 for each label; None where the lists are of names or ids.

    A value that comes twice in a list is no id: so a whole column of lists of one length, all 0 and 1, is known.
    """
    lists = [item for item in read if isinstance(item, list)]
    width = len(lists[0]) if lists else 0
    is_even = len(lists) == len(read) and width > 1 and all(len(item) == width for item in lists)
    if not is_even or not all(
        _switch(part) is not None and not isinstance(part, str) for item in lists for part in item
    ):
        return None
    is_certain = width > 2 or any(len({_switch(part) for part in item}) == 1 for item in lists)
    if not is_certain or len(known) != width:
        raise Refused(
            f"{source}: the column {column!r} holds lists of {width} numbers 0 and 1, expected names of labels. Where "
            f"each number stands for a label, make a column of 0 and 1 with the label's name of each"
            f"{f' ({len(known)} labels are known)' if known else ''}; ids of labels are written as a|b."
        )
    return [tuple(name for name, part in zip(known, item, strict=True) if _switch(part)) for item in lists]


def _items(cell: object, column: str, place: str) -> str | list[object]:
    """Return a cell as a list of labels, or as a text that may hold several."""
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() == "nan":
            raise Refused(
                f"{place}: the label is {text!r} (column {column!r}). Fill it, or leave it empty for no label."
            )
        return _listed(text, column, place) if text.startswith("[") and text.endswith("]") else text
    if isinstance(cell, list | tuple):
        return list(cell)
    if isinstance(cell, int) and not isinstance(cell, bool):
        return [cell]
    if is_missing(cell):
        raise Refused(f"{place}: the label is missing (column {column!r}). Write [] for a row without a label.")
    raise Refused(
        f"{place}: the column {column!r} holds {_told(cell)}, expected a list of labels or a text with | ; or , "
        "between them. Correct the row."
    )


def _listed(text: str, column: str, place: str) -> list[object]:
    """Return the items of a list that was written as a text, by JSON or by Python."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            if BESIDE.search(text):  # Python would join them
                raise ValueError("no commas between the texts")
            found = ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise Refused(
                f"{place}: the column {column!r} holds {text[:60]!r}, which begins like a list and is none. Write it "
                'as JSON, ["a", "b"], or as a|b.'
            ) from error
    return list(found)


def _name(part: object, names: Sequence[str] | None, column: str, place: str) -> str:
    if isinstance(part, str) and part.strip():
        return part.strip()
    if isinstance(part, int) and not isinstance(part, bool):
        if names is None:
            return str(part)
        if 0 <= part < len(names):
            return names[part]
    raise Refused(
        f"{place}: the list in column {column!r} holds {_told(part)}, expected names of labels, or their ids. Correct "
        "the row."
    )


def _separator(texts: Sequence[str], known: Sequence[str]) -> str | None:
    used = [separator for separator in SEPARATORS if any(separator in text for text in texts)]
    if known:
        names = {plain_name(label) for label in known} | {str(number) for number in range(len(known))}
        for separator in (None, *used):
            parts = (part for text in texts for part in (text.split(separator) if separator else [text]))
            if all(plain_name(part) in names for part in parts if part.strip()):
                return separator
    return used[0] if used else None


def _switch(cell: object) -> bool | None:
    """Return whether a cell of 0 and 1 is on; None for anything else."""
    return SWITCH.get(str(cell).strip().lower()) if isinstance(cell, str | int | float) else None


def _is_switch_column(name: str, cells: Sequence[object]) -> bool:
    return words_of(name)[-1:] not in (["id"], ["ids"], ["index"], ["idx"]) and all(
        _switch(cell) is not None for cell in cells
    )


def _told(cell: object) -> str:
    return f"{cell!r:.60} ({type(cell).__name__})"

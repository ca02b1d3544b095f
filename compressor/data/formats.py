"""Turn the text of a .tsv, .csv, .jsonl or .txt file into columns, each row with its line number.

Whether the fields of a TSV are quoted is decided by the whole file (``compressor.data.quoting``); a CSV follows RFC
4180 strictly (comma, semicolon, tab or bar by Excel's first line ``sep=;``, else by its header); JSON is one object per
line or one list of objects. Lines end with LF, CRLF or CR; blank ones are skipped. Refused, with the line: a wrong
number of fields, quotes that do not close, anything that is not an object, a table without a header line, rows under
the name of another format.
"""

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from compressor.data.columns import is_known
from compressor.data.decimals import with_point
from compressor.data.labels import number
from compressor.data.quoting import ends_with_cr, split_fields
from compressor.refused import Refused

TEXT_ONLY = "(each line)"  # name of the only column of a plain text
_SAID = re.compile(r'\s*"?sep=(.)"?[\t;, ]*(\r\n|\r|\n)', re.IGNORECASE)  # Excel's word on the separator


class Rows(NamedTuple):
    """Cells by column, with the place of each row in its file."""

    values: dict[str, list[object]]
    places: Sequence[int]
    unit: str  # what a place counts: "line" or "row"
    form: str  # "tsv", "csv", ...
    class_names: dict[str, list[str]]  # names by id of the columns that a data set declares as classes
    notes: tuple[str, ...] = ()  # on how the file was read
    left_out: Mapping[str, str] = MappingProxyType({})  # the type of each column that holds neither texts nor numbers


def from_text(text: str, source: str) -> Rows:
    """Return each line as a text."""
    # Only \n ends a line: str.splitlines would also cut at \x0b, \x85 and the Unicode line separators.
    lines = [(place, line.rstrip("\r")) for place, line in enumerate(_lines(text), start=1) if line.strip()]
    _check_plain([line for _, line in lines], source)
    return Rows({TEXT_ONLY: [line for _, line in lines]}, [place for place, _ in lines], "line", "text", {})


def _check_plain(lines: Sequence[str], source: str) -> None:
    """Refuse a table and JSON under the name of a plain text: names, labels and brackets would be trained on."""
    refuse_json(lines[0], source)
    for delimiter, suffix in (("\t", ".tsv"), (";", ".csv"), (",", ".csv")):
        cells = [cell.strip().strip('"') for cell in lines[0].split(delimiter)]
        is_header = sum(map(is_known, cells)) > 1 and all(len(cell.split()) < 3 for cell in cells)
        if is_header and all(delimiter in line for line in lines[:100]):
            raise Refused(
                f"{source}: holds a table ({_preview(cells)}), expected plain text by its name. Rename it to {suffix}."
            )


def refuse_json(line: str, source: str) -> None:
    """Refuse objects under the name of something else, by their first line."""
    if not re.match(r'\s*\{\s*"', line):
        return
    try:
        is_object = isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return
    if is_object:
        raise Refused(f"{source}: holds JSON objects, whatever its name says. Rename it to .jsonl.")


def _lines(text: str) -> list[str]:
    return text.split("\n") if "\n" in text else text.split("\r")


def from_tsv(text: str, source: str, named: set[str]) -> Rows:
    """Return the columns of tab-separated lines; ``named`` are the columns that the user named."""
    if _SAID.match(text):
        return from_csv(text, source, named)
    first = next(line for line in _lines(text) if line.strip()).rstrip("\r")
    header = first.split("\t")
    if all(re.fullmatch(r'"[^"]*"', cell) for cell in header):
        return from_csv(text, source, named, delimiter="\t")
    if len(header) == 1 and any(is_known(cell) for cell in re.split("[,;]", first)) and re.search("[,;]", first):
        place = next(place for place, line in enumerate(_lines(text), start=1) if line.strip())
        raise Refused(f"{source}, line {place}: the header {first!r} holds no tab. Rename the file to .csv.")
    refuse_json(first, source)
    fields = split_fields(text)
    rows = _table(fields.rows[0][1], fields.rows[1:], source, named, "tsv", fields.note)
    return rows._replace(notes=(fields.note,) if fields.note else ())


def from_csv(text: str, source: str, named: set[str], delimiter: str | None = None) -> Rows:
    """Return the columns of a CSV; a delimiter of None is the first of ``, ; tab |`` in the header line."""
    if (said := _SAID.match(text)) is not None:
        delimiter = said[1]
        text = said[2] + text[said.end() :]  # a blank line in its place: lines are numbered as in the file
    has_cr = ends_with_cr(text)
    if delimiter is None:
        first = re.split("[\r\n]", text.lstrip(), maxsplit=1)[0]
        refuse_json(first, source)
        unquoted = re.sub(r'"[^"]*"', "", first)
        delimiter = next((char for char in ",;\t|" if char in unquoted), ",")
        if delimiter == "\t":
            return from_tsv(text, source, named)
    parts = (f"{line}\r" for line in text.split("\r")) if has_cr else io.StringIO(text, newline="")
    reader = csv.reader(parts, delimiter=delimiter, strict=True)
    rows = []
    limit = csv.field_size_limit(sys.maxsize)  # the default refuses fields over 131,072 characters
    start = 1
    try:
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip()):
                rows.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise Refused(
            f"{source}, line {start}: the quotes of this row are not those of a CSV file ({error}). "
            'Write a quote inside a quoted field twice (""), and close every quoted field.'
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise Refused(f"{source}: holds no row, only quotes and spaces.")
    return _table(rows[0][1], rows[1:], source, named, "csv")


def _table(
    header: list[str], rows: list[tuple[int, list[str]]], source: str, named: set[str], form: str, note: str = ""
) -> Rows:
    """Return columns of rows that all have the header's number of fields; ``note`` is what may be why they have not."""
    if not rows:
        raise Refused(f"{source}: holds only its first line ({_preview(header)}); rows are missing.")
    header = [cell.strip() for cell in header]
    for place, cells in rows:
        if len(cells) != len(header):
            raise Refused(
                f"{source}, line {place}: has {len(cells)} fields, the header has {len(header)} ({_preview(header)}). "
                f"Correct the row.{f' Of its quotes: {note}.' if note else ''}"
            )
    columns = list(zip(*(cells for _, cells in rows), strict=True))
    if not (named and named <= set(header)):
        _check_header(header, columns, source)
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise Refused(f"{source}: the header names the column {twice[0]!r} twice. Rename one of them.")
    values: dict[str, list[object]] = {name: list(cells) for name, cells in zip(header, columns, strict=True) if name}
    if not values:
        raise Refused(f"{source}: the header names no column. Write the names into the first line.")
    return Rows(values, [place for place, _ in rows], "line", form, {})


def _check_header(header: list[str], columns: Sequence[Sequence[str]], source: str) -> None:
    """Refuse a first line that is a row: its cells come again as values, are numbers, or are sentences."""
    known = {name for name in header if is_known(name)}
    again = any(
        name and sum(cell.strip() == name for cell in cells) > (name in known)
        for name, cells in zip(header, columns, strict=True)
    )
    odd = any(
        number(with_point(name)) is not None or len(name) > 60 or len(name.split()) > 4 for name in header if name
    )
    is_sentence = len(header) == 1 and " " in header[0]
    is_repeated = len({name for name in header if name}) < sum(bool(name) for name in header)
    if again or (not known and (odd or is_sentence or is_repeated)):
        raise Refused(
            f"{source}: the first line ({_preview(header)}) looks like a row, not like the names of the columns. "
            "Add a header line before it, for example 'text' and 'label' in the places of the text and the label."
        )


def from_json(text: str, source: str) -> Rows:
    """Return the values by key of one object per line, or of one list of objects; a missing key is None."""
    objects: list[tuple[int, object]]
    if text.lstrip().startswith("["):
        content = _json(text, f"{source}: is not JSON")
        objects, unit = list(enumerate(content if isinstance(content, list) else [content], start=1)), "row"
    else:
        lines = ((place, line) for place, line in enumerate(_lines(text), start=1) if line.strip())
        objects = [(place, _json(line, f"{source}, line {place}: is not JSON")) for place, line in lines]
        unit = "line"
    if not objects:
        raise Refused(f"{source}: holds an empty list; rows are missing.")
    values: dict[str, list[object]] = {}
    for index, (place, row) in enumerate(objects):
        if not isinstance(row, dict) or not row:
            raise Refused(
                f"{source}, {unit} {place}: is {_json_kind(row)}, expected an object such as "
                '{"text": "...", "label": "..."}.'
            )
        for name, value in row.items():
            values.setdefault(name, [None] * len(objects))[index] = value
    if not any(_is_row(row) for _, row in objects[:100]):
        raise Refused(
            f"{source}: holds lists or objects only, no texts. Expected one object per row, such as "
            '{"text": "...", "label": "..."}.'
        )
    return Rows(values, [place for place, _ in objects], unit, "json", {})


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and any(not isinstance(value, list | dict) for value in row.values())


def _json(text: str, what: str) -> object:
    try:
        content: object = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise Refused(f"{what} of a sensible depth.") from error
    except ValueError as error:
        message = re.sub(r": line 1 column (\d+) \(char \d+\)$", r" at column \1", str(error))
        raise Refused(f"{what} ({message}). Expected one object per line, or one list of objects.") from error
    return content


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise Refused("a key comes twice in one object")
    return content


def _json_kind(value: object) -> str:
    names = {dict: "an empty object", list: "a list", str: "a string", bool: "a truth value"}
    return names.get(type(value), "null" if value is None else "a number")


def _preview(cells: Sequence[str]) -> str:
    return " | ".join(cell if len(cell) <= 30 else cell[:30] + "..." for cell in cells[:8]) + (
        " | ..." if len(cells) > 8 else ""
    )

"""Whether the fields of a tab-separated file are quoted, decided by the whole file, and its rows either way.

    he said "no"<TAB>1          nothing is quoted: a quote is a letter like any other (GLUE and most TSVs)
    "a ""no"" again"<TAB>1      quoted where a field needs it (pandas' to_csv, Excel): a "no" again

Quoting is in use when every field that begins with a quote ends with one, the quotes inside are doubled, no other field
holds a quote, and at least one field needs it: it holds a tab, a line end or a quote. Excel quotes commas as well. What
fits neither is read as it stands, and said.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_FIELD = {
    end: re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"\t{end}]*))(\t|{rows}|\Z)')
    for end, rows in (("\n", "\r*\n"), ("\r", "\r"))
}
_FIRST_END = re.compile(r'(?:[^"\r\n]+|"[^"]*")*+(\r+\n|\r|\n)')
_NEEDS = re.compile(r'["\t\r\n]')
Line = tuple[int, list[str]]  # the place of a row in the file, and its fields


class Fields(NamedTuple):
    """The rows of a file, and what has to be said of their quotes ("" for nothing)."""

    rows: list[Line]
    note: str = ""


class _Quoted(NamedTuple):
    """A file read as one with quoted fields."""

    rows: list[Line]
    quoted: list[tuple[int, str]]  # line and content of each field in quotes
    has_bare_comma: bool  # in a field without quotes


def ends_with_cr(text: str) -> bool:
    """Tell whether the first line ends as those of the old Mac do, whose programs still write that."""
    found = _FIRST_END.match(text.lstrip())
    return found is not None and found[1] == "\r"


def split_fields(text: str) -> Fields:
    """Return the rows of a tab-separated file."""
    end = "\r" if ends_with_cr(text) else "\n"
    if '"' not in text:
        return Fields(_plain(text))
    read = _strict(text, end)
    if isinstance(read, int):
        return Fields(_plain(text), _unlike_the_rest(text, read))
    needing = [place for place, content in read.quoted if _NEEDS.search(content)]
    if needing and _is_clear(text, read):
        needless = [place for place, content in read.quoted if not _NEEDS.search(content) and "," not in content]
        also = f"quotes around {_fields(needless)} that need none were taken off as well" if needless else ""
        return Fields(read.rows, also)
    if needing:
        return Fields(_plain(text), f"quotes that may be those of a CSV were kept as letters: {_fields(needing)}")
    places = [place for place, _ in read.quoted]
    if not read.has_bare_comma and all("," in content for _, content in read.quoted):
        return Fields(read.rows, f"quotes around {_fields(places)} with a comma were taken off, as Excel writes them")
    return Fields(
        _plain(text),
        f"the quotes around {_fields(places)} without need were kept as letters; if they are none, give the rows "
        "as .csv",
    )


def _plain(text: str) -> list[Line]:
    lines = text.replace("\r", "\n") if "\n" not in text else text
    numbered = enumerate(lines.split("\n"), start=1)
    return [(place, line.rstrip("\r").split("\t")) for place, line in numbered if line.strip()]


def _strict(text: str, end: str) -> _Quoted | int:
    """Return the rows of a file with quoted fields, or the line of the first field that is not of that kind."""
    rows: list[Line] = []
    quoted: list[tuple[int, str]] = []
    cells: list[str] = []
    position, place, start, has_bare_comma, field = 0, 1, 1, False, _FIELD[end]
    while position < len(text):
        found = field.match(text, position)
        if found is None:
            return place
        inner, bare, behind = found.groups()
        if inner is None:
            has_bare_comma = has_bare_comma or "," in bare
            cells.append(bare if behind == "\t" else bare.rstrip("\r"))
        else:
            cells.append(inner.replace('""', '"'))
            quoted.append((place, cells[-1]))
            place += inner.count(end)
        position = found.end()
        if behind == "\t" and position < len(text):
            continue
        if behind == "\t":
            cells.append("")
        if any(cell.strip() for cell in cells):
            rows.append((start, cells))
        cells, place = [], place + 1
        start = place
    return _Quoted(rows, quoted, has_bare_comma)


def _is_clear(text: str, read: _Quoted) -> bool:
    """Tell whether only quoting explains the file: letters that open and close in other rows by chance do not."""
    if any('"' in content for _, content in read.quoted):
        return True  # doubled in the file
    plain = _plain(text)
    width = len(plain[0][1])
    return width == 1 or any(len(cells) != width for _, cells in plain)


def _unlike_the_rest(text: str, place: int) -> str:
    """Return what to say of fields that are quoted as in a CSV in a file that is not; most files have none."""
    alike = [line for line, cells in _plain(text) for cell in cells if _is_escaped(cell)]
    if not alike:
        return ""
    return (
        f"quotes were kept as letters, also those around {_fields(alike)} as in a CSV, for line {place} holds one that "
        "is not of that kind"
    )


def _is_escaped(cell: str) -> bool:
    """Tell whether a cell is in quotes, and those inside are doubled or behind a backslash, as in no usual text."""
    inner = cell[1:-1]
    is_quoted = len(cell) > 4 and cell[0] == cell[-1] == '"' and '"' in inner
    return is_quoted and '"' not in inner.replace('""', "").replace('\\"', "")


def _fields(places: Sequence[int]) -> str:
    if len(places) == 1:
        return f"1 field (line {places[0]})"
    return f"{len(places):,} fields (first in line {places[0]})"

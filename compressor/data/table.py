"""A table of texts, and the rows held out of it.

``read_table`` turns a file or a hub data set into texts, second texts and labels; what was taken for what is in
``Table.columns`` and in one line of ``describe_rows``. A bad row (empty text, missing label, NaN, a list where a text
belongs) is refused with its line. Labels stay strings, except when the column is a quantity (see
``compressor.data.labels.is_regression``), or tuples of strings where a row may have several
(``compressor.data.several``). The hash covers the content only, so that two scores are comparable, or
visibly not.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from compressor.data.columns import DETECTED, Choice, Columns, How, choose, is_missing
from compressor.data.decimals import read_decimals
from compressor.data.files import read_rows
from compressor.data.formats import TEXT_ONLY, Rows
from compressor.data.labels import Labels, is_regression, label_numbers, number
from compressor.data.several import from_cells, from_switches, switch_columns
from compressor.refused import Refused

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """Rows of one or two texts with or without labels.

    ``columns`` tells where they came from: "text", "pair" and "label" (names or None), "how" (flag, name or content for
    each), "ignored" (other columns), "format", "label_names" (the data set's own names by id, or None) and "notes".
    """

    texts: list[str]
    pairs: list[str] | None
    labels: Labels | None
    columns: dict[str, object]
    sha256: str
    source: str

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.texts)


def read_table(
    source: str,
    *,
    columns: Columns = DETECTED,
    split: str = "train",
    revision: str | None = None,
    offline: bool = False,
    needs_label: bool | None,
    several: Sequence[str] | None = None,
) -> Table:
    """Return the rows of a file or hub id.

    Args:
        source: path, or ``owner/name`` or ``owner/name:config`` on the hub.
        columns: as the user named them. Naming the text alone means one text per row, whatever other columns there
            are; a second text is found along with the first, a label by content only where it is needed.
        split: which part of a hub data set.
        revision: branch, tag or commit of a hub data set.
        offline: never ask the hub.
        needs_label: True refuses rows without a label; with False labels that are missing anywhere are left out
            altogether; None does not read labels.
        several: the labels of which a row may have any number, () where they are not known yet; None: one a row.
    """
    named = [name for name in columns if name is not None]
    rows = read_rows(source, named, split=split, revision=revision, offline=offline, lists=several is not None)
    if rows.form == "text" and (needs_label or named):
        raise no_columns(source, named)
    switches: list[str] = []  # columns that stand for a label each
    if rows.form == "text":
        choice = Choice(TEXT_ONLY, None, None, {})
    else:
        if several is not None:
            switches = switch_columns(rows.values, columns.label, several, source)
        others = {name: cells for name, cells in rows.values.items() if name not in switches}
        if switches:
            how: How = "flag" if columns.label else "name" if several else "content"
            choice = choose_of(rows, others, source, columns._replace(label=None), needs_label=False)
            choice = choice._replace(label=", ".join(switches), how={**choice.how, "label": how})
        else:
            choice = choose_of(rows, others, source, columns, needs_label=bool(needs_label))
            if needs_label is None:
                choice = choice._replace(label=None)
    labels: Labels | None
    if several is None:
        labels, kept, notes = _labels(rows, choice, source, bool(needs_label))
    else:
        labels, notes = _several(rows, choice, switches, several, source, bool(needs_label))
        kept = list(range(len(rows.places)))
    notes = [*rows.notes, *notes]
    texts = _texts(rows, choice.text, kept, source)
    pairs = _texts(rows, choice.pair, kept, source) if choice.pair is not None else None
    label_name = choice.label if labels is not None else None
    taken = (choice.text, choice.pair, label_name, *switches)
    found: dict[str, object] = {
        "text": choice.text,
        "pair": choice.pair,
        "label": label_name,
        "how": {role: how for role, how in choice.how.items() if role != "label" or label_name},
        "ignored": [
            *(name for name in rows.values if name not in taken),
            *(f"{name} ({kind})" for name, kind in rows.left_out.items()),
        ],
        "format": rows.form,
        "label_names": rows.class_names.get(label_name) if label_name else None,
        "notes": notes,
    }
    for note in notes:
        _LOG.warning("%s: %s", source, note)
    return Table(texts, pairs, labels, found, _digest(texts, pairs, labels), source)


def no_columns(source: str, named: Sequence[str]) -> Refused:
    """Return the refusal of a plain text where labels or columns are asked for."""
    what = f"no column {named[0]!r}" if named else "no labels"
    return Refused(f"{source}: is plain text with {what}. Give a .tsv, .csv, .jsonl or .parquet file.")


def choose_of(
    rows: Rows, values: Mapping[str, Sequence[object]], source: str, columns: Columns, *, needs_label: bool
) -> Choice:
    """Return which column is what, of some of the rows' columns; a refusal names those that cannot be read, too."""
    told = ", ".join(f"{name} ({kind})" for name, kind in list(rows.left_out.items())[:12])
    for role, name in columns._asdict().items():
        if name in rows.left_out:
            raise Refused(
                f"{source}: --{role}-column {name!r} is of type {rows.left_out[name]}, expected texts or numbers. "
                "Write the column as one of these."
            )
    try:
        return choose(values, source, columns=columns, needs_label=needs_label)
    except Refused as error:
        if not told:
            raise
        raise Refused(f"{error} Not read, for their types hold neither texts nor numbers: {told}.") from error


def describe_rows(table: Table) -> str:
    """Return one line that shows what was found: rows, columns, label values, and what was left aside."""
    parts = [f"{len(table):,} rows"]
    for role in ("text", "pair", "label"):
        name = table.columns[role]
        if name is not None and name != TEXT_ONLY:
            parts.append(f"{role} column '{name}'")
    if table.labels is not None:
        parts[-1] += f" ({_told_labels(table.labels)})"
    ignored, notes = table.columns["ignored"], table.columns["notes"]
    assert isinstance(ignored, list) and isinstance(notes, list)
    if ignored:
        parts.append("ignored: " + ", ".join(map(str, ignored)))
    return f"{table.source}: " + "; ".join([*parts, *notes])


def _told_labels(labels: Labels) -> str:
    if isinstance(labels[0], float):
        return "numbers"
    is_several = isinstance(labels[0], tuple)
    distinct = sorted({part for each in labels for part in (each if isinstance(each, tuple) else (str(each),))})
    shown = ", ".join(distinct[:6]) + (", ..." if len(distinct) > 6 else "")
    if not is_several:
        return f"{len(distinct)} classes: {shown}"
    n_held = sum(len(each) for each in labels if isinstance(each, tuple))
    n_without = sum(not each for each in labels)
    without = f", {n_without:,} rows without" if n_without else ""
    return f"{n_held / len(labels):.2f} of {len(distinct)} labels a row{without}: {shown}"


def select(table: Table, indices: Sequence[int]) -> Table:
    """Return some rows as a table of their own, with its own hash."""
    texts = [table.texts[index] for index in indices]
    pairs = None if table.pairs is None else [table.pairs[index] for index in indices]
    labels = None if table.labels is None else [table.labels[index] for index in indices]
    # mypy cannot see that a selection of list[str] | list[float] is of the same kind.
    return replace(table, texts=texts, pairs=pairs, labels=labels, sha256=_digest(texts, pairs, labels))  # type: ignore[arg-type]


def single_texts(table: Table) -> Table:
    """Return the table with both texts of every pair as rows of their own, each text once, without labels."""
    if table.pairs is None:
        return table
    return replace(table, texts=list(dict.fromkeys([*table.texts, *table.pairs])), pairs=None, labels=None)


def _texts(rows: Rows, column: str, kept: Sequence[int], source: str) -> list[str]:
    cells = rows.values[column]
    texts = []
    for index in kept:
        cell = cells[index]
        place = f"{source}, {rows.unit} {rows.places[index]}"
        if is_missing(cell):
            raise Refused(f"{place}: the column {column!r} holds no text. Fill it or remove the row.")
        if not isinstance(cell, str | int | float):
            raise _wrong_kind(place, column, cell, "a text")
        text = str(cell)
        if not text.isascii() and not _is_unicode(text):
            raise Refused(f"{place}: the column {column!r} holds half a surrogate pair. Correct the text.")
        texts.append(text)
    return texts


def _wrong_kind(place: str, column: str, cell: object, expected: str) -> ValueError:
    kind = "a list" if isinstance(cell, list) else "an object" if isinstance(cell, dict) else "no text"
    return Refused(f"{place}: the column {column!r} holds {kind}, expected {expected}. Correct the row.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _labels(
    rows: Rows, choice: Choice, source: str, needed: bool
) -> tuple[list[str] | list[float] | None, list[int], list[str]]:
    """Return labels, the rows kept, and notes on what was left out."""
    everything = list(range(len(rows.places)))
    if choice.label is None:
        return None, everything, []
    names = rows.class_names.get(choice.label)
    cells = [_named(cell, names) for cell in rows.values[choice.label]]
    unagreed = [i for i, cell in enumerate(cells) if cell == "-"] if choice.label == "gold_label" else []
    notes = [f"{len(unagreed)} rows left out because their gold_label is '-' (no agreement)"] if unagreed else []
    kept = sorted(set(everything) - set(unagreed))
    missing = [index for index in kept if is_missing(cells[index]) or str(cells[index]).strip().lower() == "nan"]
    if missing and not needed and choice.how["label"] != "flag":
        place = f"{rows.unit} {rows.places[missing[0]]}"
        return None, everything, [f"labels are not used because the column {choice.label!r} is empty at {place}"]
    labels = []
    for index in kept:
        cell, place = cells[index], f"{source}, {rows.unit} {rows.places[index]}"
        if index in missing[:1]:
            is_nan = str(cell).strip().lower() == "nan"
            what = f"the label is {str(cell).strip()!r}" if is_nan else "the label is missing"
            raise Refused(f"{place}: {what} (column {choice.label!r}). Fill it or remove the row.")
        if not isinstance(cell, str | int | float):
            expected = "one label (several need a model of 'tenmeg finetune --task multi_label')"
            raise _wrong_kind(place, choice.label, cell, expected)
        labels.append(str(cell).strip() if not isinstance(cell, bool) else str(cell).lower())
    if not labels:
        raise Refused(f"{source}: no row has a label (column {choice.label!r}).")
    decimals = read_decimals(labels, choice.label, lambda row: f"{source}, {rows.unit} {rows.places[kept[row]]}")
    if decimals is not None:
        told = next(label for label in labels if "," in label)
        return decimals, kept, [*notes, f"the labels are numbers with a decimal comma, such as {told}"]
    _check_numbers(labels, kept, rows, source)
    return (label_numbers(labels, source) if is_regression(labels) else labels), kept, notes


def _several(
    rows: Rows, choice: Choice, switches: Sequence[str], known: Sequence[str], source: str, needed: bool
) -> tuple[list[tuple[str, ...]] | None, list[str]]:
    """Return the labels of every row, and notes on what was left out."""
    if choice.label is None:
        return None, []
    if not switches and not needed and choice.how["label"] != "flag":
        empty = [index for index, cell in enumerate(rows.values[choice.label]) if cell is None]
        if empty:
            place = f"{rows.unit} {rows.places[empty[0]]}"
            return None, [f"labels are not used because the column {choice.label!r} is empty at {place}"]
    found = from_switches(rows, switches, source) if switches else from_cells(rows, choice.label, known, source)
    if needed and not any(found):
        raise Refused(f"{source}: no row has a label (column {choice.label!r}). Name another with --label-column.")
    return found, []


def _named(cell: object, names: Sequence[str] | None) -> object:
    """Return the class name of an id that a data set declares; -1 is its word for "no label"."""
    if names is None or not isinstance(cell, int):
        return cell
    return names[cell] if 0 <= cell < len(names) else None


def _check_numbers(labels: Sequence[str], kept: Sequence[int], rows: Rows, source: str) -> None:
    """Refuse a cell that is no number in a column of real numbers: it would turn a quantity into classes."""
    values = [number(label) for label in labels]
    n_real = sum(value is not None and value % 1 != 0 for value in values)
    if None in values and n_real > len(values) / 4:
        at = values.index(None)
        raise Refused(
            f"{source}, {rows.unit} {rows.places[kept[at]]}: the label {labels[at][:60]!r} is not a finite number, "
            "but the other labels are. Correct it or remove the row."
        )


def _digest(texts: Sequence[str], pairs: Sequence[str] | None, labels: Labels | None) -> str:
    digest = hashlib.sha256()
    for index, text in enumerate(texts):
        row = [text, pairs[index] if pairs else None, labels[index] if labels else None]
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()

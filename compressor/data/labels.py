"""Labels: whether they are classes or a quantity, and how those of a file meet those of the teacher.

A column of labels is matched as a whole by one rule, the first that explains every row: by name (``Positive`` is
``POSITIVE``, ``not_entailment`` is ``not entailment``), by the number in the teacher's names (``5`` is ``5 stars``,
``1`` is ``LABEL_1``), by id (``0`` is the first), ``false``/``true`` as 0/1, by the beginning (``neg`` is
``negative``). A label that no rule explains is refused with its row: a wrong guess would look like a bad model.

Names that differ only in case or blanks are one class to a person and would be two to a new teacher: refused. How
numbers with a comma are read is in ``compressor.data.decimals``.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from compressor.refused import Refused, did_you_mean

Labels = list[str] | list[float] | list[tuple[str, ...]]  # one for each row

MAX_INTEGER_CLASSES = 256  # more distinct integers than this are a quantity, not classes
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_GENERIC = re.compile(r"label_\d+", re.IGNORECASE)


def number(value: str | float) -> float | None:
    """Return the finite number that a cell holds, or None; ``number("1_0")`` and ``number("inf")`` are None."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    result = float(value)
    return result if math.isfinite(result) else None


def is_regression(labels: Sequence[str] | Sequence[float]) -> bool:
    """Tell whether labels are a quantity: all numbers, some with a fraction or more integers than classes can be.

    What was read as numbers (not as texts) was found to be one before.
    """
    cells: set[str | float] = {*labels}
    if cells and all(isinstance(cell, float) for cell in cells):
        return True
    distinct = {number(cell) for cell in cells}
    if not distinct or None in distinct:
        return False
    return len(distinct) > MAX_INTEGER_CLASSES or any(value is not None and value % 1 for value in distinct)


def label_numbers(labels: Sequence[str] | Sequence[float], source: str) -> list[float]:
    """Return labels as numbers, for regression and similarity."""
    values = []
    cells: list[str | float] = [*labels]
    for row, label in enumerate(cells, start=1):
        value = number(label)
        if value is None:
            raise Refused(
                f"{source}: the label {label!r} of row {row} is not a finite number, which this task needs. "
                "Correct it, or name another column with --label-column."
            )
        values.append(value)
    return values


def collect_labels(labels: Sequence[str] | Sequence[float], source: str = "the training data") -> tuple[str, ...]:
    """Return the classes in a column, sorted (by value when all are integers), to make a teacher with.

    Raises:
        ValueError: for real numbers, for one class only, and for a column with almost as many values as rows.
    """
    if is_regression(labels):
        raise Refused(f"{source}: the labels are real numbers (for example {labels[0]}), not classes.")
    check_classes(labels, source)
    names = sorted({str(label).strip() for label in labels})
    if len(names) > 20 and len(names) > len(labels) / 2:
        raise Refused(
            f"{source}: {len(names)} different labels in {len(labels)} rows are not classes. "
            "Name the column that holds the label with --label-column."
        )
    values = [number(name) for name in names]
    if None not in values:
        return tuple(str(value) for value in sorted({int(value) for value in values if value is not None}))
    check_spellings([str(label).strip() for label in labels], source)
    return tuple(names)


def check_spellings(labels: Iterable[str], source: str) -> None:
    """Refuse classes that differ only in how they are written: a new teacher would learn two of one meaning.

    Numbers are classes by their value, however they are written.
    """
    counts = Counter(labels)
    if all(number(label) is not None for label in counts):
        return
    alike: dict[str, list[str]] = {}
    for label in sorted(counts):
        alike.setdefault(_spoken(label), []).append(label)
    twice = [names for names in alike.values() if len(names) > 1]
    if twice:
        shown = "; ".join(
            " and ".join(
                f"{_visible(name)} ({counts[name]:,} rows)" for name in sorted(names, key=lambda name: -counts[name])
            )
            for names in twice[:3]
        )
        more = f" (and {len(twice) - 3} more)" if len(twice) > 3 else ""
        raise Refused(
            f"{source}: the labels {shown}{more} differ only in case, blanks or how a number or sign is written, and "
            "would be classes of their own. Write each class in one way, or give classes that differ other names."
        )


def _visible(name: str) -> str:
    """Return a quoted name in which blanks and signs that look alike are told apart."""
    shown = re.sub(" {2,}", lambda blanks: "␣" * len(blanks[0]), name)
    return repr(shown) if unicodedata.is_normalized("NFC", name) else ascii(shown)


def _spoken(label: str) -> str:
    """Return what is left of a name when it is read aloud: no case, one kind of blank, a number as its value."""
    # Format characters (zero-width spaces, byte order marks) are not seen; NFKC makes one of two ways to write a sign.
    seen = "".join(char for char in unicodedata.normalize("NFKC", label) if unicodedata.category(char) != "Cf")
    value = number(seen)
    return plain_name(" ".join(seen.split())) if value is None else str(value)


def check_classes(labels: Sequence[str] | Sequence[float], source: str = "the training data") -> None:
    """Refuse training rows that are all of one class."""
    distinct = set(labels)
    if len(distinct) < 2:
        got = f"only one class, {next(iter(distinct))!r}" if distinct else "no labelled row"
        raise Refused(f"{source}: {got}; at least two classes are needed. Give rows of every class to --train.")


def label_ids(
    labels: Sequence[str] | Sequence[float],
    id2label: Mapping[int, str],
    source: str,
    *,
    names: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
) -> list[int]:
    """Return the teacher's id of every label.

    Args:
        labels: the column, one value per row.
        id2label: the teacher's names by id.
        source: the file or data set, for messages.
        names: the data set's own names by id where it has them; used when the teacher's are only LABEL_0, LABEL_1 ...
        rows: the number of each label's row, for messages; None: counted from 1.

    Raises:
        ValueError: naming the first row whose label is unknown, the label, and the known ones.
    """
    distinct = dict.fromkeys(str(label) for label in labels)
    best: dict[str, int | None] = dict.fromkeys(distinct)
    for lookup in _lookups([id2label[index] for index in sorted(id2label)], names):
        found = {label: lookup(label) for label in distinct}
        if None not in found.values():
            return [index for label in labels if (index := found[str(label)]) is not None]
        if _n_known(found) > _n_known(best):
            best = found
    numbered = zip(rows or range(1, len(labels) + 1), map(str, labels), strict=True)
    row, unknown = next((row, label) for row, label in numbered if best[label] is None)
    raise Refused(_unknown_label(source, row, unknown, list(id2label.values())))


def _n_known(found: Mapping[str, int | None]) -> int:
    return sum(index is not None for index in found.values())


def _lookups(teacher: Sequence[str], names: Sequence[str] | None) -> Iterator[Callable[[str], int | None]]:
    """Yield the rules in the order in which they are tried."""
    exact = {name.strip(): index for index, name in enumerate(teacher)}
    yield lambda label: exact.get(label.strip())
    by_name = {plain_name(name): index for index, name in enumerate(teacher)}
    if len(by_name) < len(teacher):  # "a" and "A" are two classes here
        by_name = exact
    yield lambda label: by_name.get(plain_name(label))
    numbers = [_number_in(name) for name in teacher]
    if None not in numbers and len(set(numbers)) == len(numbers):
        by_number = {value: index for index, value in enumerate(numbers)}
        yield lambda label: None if (value := _integer(label)) is None else by_number.get(value)
        yield lambda label: by_number.get(_number_in(label)) if _GENERIC.fullmatch(label.strip()) else None
    yield lambda label: value if (value := _integer(label)) is not None and 0 <= value < len(teacher) else None
    if len(teacher) == 2:
        yield lambda label: {"false": 0, "true": 1}.get(label.strip().lower())
    is_generic = all(_GENERIC.fullmatch(name) for name in teacher)
    if is_generic and names is not None and len(names) == len(teacher):
        by_data = {plain_name(name): index for index, name in enumerate(names)}
        yield lambda label: by_data.get(plain_name(label))
    yield lambda label: _by_beginning(plain_name(label), by_name)


def plain_name(name: str) -> str:
    """Return a name without case and with one kind of word separator; the sign of "-1" is none."""
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", name.strip()).casefold()


def _integer(label: str) -> int | None:
    value = number(label)
    return int(value) if value is not None and value % 1 == 0 else None


def _number_in(name: str) -> int | None:
    """Return the only integer in a name: 5 for "5 stars", 1 for "LABEL_1", None for "top 10 of 20"."""
    if (value := _integer(name)) is not None:
        return value
    found = re.findall(r"\d+", name, re.ASCII)
    return int(found[0]) if len(found) == 1 and len(found[0]) < 10 else None


def _by_beginning(label: str, by_name: Mapping[str, int]) -> int | None:
    hits = [index for name, index in by_name.items() if len(label) >= 3 and name.startswith(label)]
    return hits[0] if len(hits) == 1 else None


def _unknown_label(source: str, row: int, unknown: str, known: list[str]) -> str:
    shown = ", ".join(known[:12]) + (f" ... ({len(known)} in all)" if len(known) > 12 else "")
    hint = did_you_mean(unknown, known)
    if all(_GENERIC.fullmatch(name) for name in known):
        hint = f" The teacher's labels carry no names, so the column must hold ids from 0 to {len(known) - 1}."
    text = unknown if len(unknown) <= 60 else unknown[:60] + "..."
    return (
        f"{source}: the label {text!r} of row {row} is unknown to the teacher, which knows: {shown}.{hint} "
        "Correct the label, or name another column with --label-column."
    )

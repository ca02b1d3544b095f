"""Find the text, the second text and the label among the columns of a table.

Flags come first, then well-known names (``sentence``, ``premise``/``hypothesis``, ``airline_sentiment``, ...), then the
content (the only column of prose; the only column of few values). What is ambiguous is refused with the columns and the
flag to use, and everything found is handed back to be shown. Naming only the text column means one text per row: a
second text is then never guessed.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from compressor.data.decimals import with_point
from compressor.data.labels import number
from compressor.refused import Refused, did_you_mean

How = Literal["flag", "name", "content"]


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Names are compared as lower-case words without separators: "Sentence_A", "sentence a" and "sentenceA" are one name.
TEXT_NAMES: tuple[frozenset[str], ...] = (
    _names(
        "text texts sentence sentences utterance utterances utt query question review reviews comment tweet message "
        "phrase content document passage post sms statement input prompt"
    ),
    _names("body description abstract article summary paragraph"),
    _names("title headline subject"),
)
COUPLES: tuple[tuple[str, str], ...] = (
    ("premise", "hypothesis"),
    ("#1string", "#2string"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("query", "text"),
    ("claim", "evidence"),
    ("anchor", "positive"),
    ("s1", "s2"),
    ("q1", "q2"),
    ("sent1", "sent2"),
    ("string1", "string2"),
)
LABEL_NAMES: tuple[frozenset[str], ...] = (
    _names("label labels goldlabel"),
    _names(
        "quality score intent sentiment class category target stars star rating overall similarity isduplicate emotion "
        "topic classindex polarity stance duplicate entailment y"
    ),
)
_NO_LABEL = _names(
    "id ids index idx genre filename file year month date time timestamp created source split lang language locale "
    "partition url link user username author name names count length confidence location timezone version"
)


class Columns(NamedTuple):
    """The columns as the user named them; None: found by name or content."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


DETECTED = Columns()  # none is named


class Choice(NamedTuple):
    """The column of each role, and how each was found."""

    text: str
    pair: str | None
    label: str | None
    how: dict[str, How]


def words_of(name: str) -> list[str]:
    """Return the lower-case words of a column name: ``words_of("reviewText") == ["review", "text"]``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[\s_\-./:]+", spaced.lower()) if word]


def is_known(name: str) -> bool:
    """Tell whether a name is one that data sets use for a text or a label."""
    key = _key(name)
    known = _names("").union(*TEXT_NAMES, *LABEL_NAMES)
    of_couple = _stem(key) != "" or any(key in couple for couple in COUPLES)
    return of_couple or key in known or bool(known.intersection(words_of(name)[-1:]))


def is_label_name(name: str) -> bool:
    """Tell whether a whole name is one that data sets use for a label."""
    return any(_key(name) in names for names in LABEL_NAMES)


def choose(
    values: Mapping[str, Sequence[object]],
    source: str,
    *,
    columns: Columns = DETECTED,
    needs_label: bool,
) -> Choice:
    """Return which column is what.

    Args:
        values: cells by column name, in the order of the file.
        source: the file or data set, for messages.
        columns: as the user named them.
        needs_label: refuse a table without a label; otherwise a label is only taken by name.
    """
    names = list(values)
    flags = {f"--{role}-column": name for role, name in columns._asdict().items()}
    named = {flag: match_name(name, names, source, flag) for flag, name in flags.items() if name is not None}
    if len(set(named.values())) < len(named):
        raise Refused(f"{source}: {' and '.join(named)} name the same column. Name a different column with each.")
    text, pair, label = (named.get(flag) for flag in flags)
    how: dict[str, How] = {flag[2:-7]: "flag" for flag in named}
    free = {name: cells for name, cells in values.items() if name not in named.values() and name}
    if text is None:
        text, found_pair, how["text"] = _find_texts(free, source, pair)
        if pair is None and found_pair is not None:
            pair, how["pair"] = found_pair, how["text"]
    free = {name: cells for name, cells in free.items() if name not in (text, pair)}
    if label is None and (found := _find_label(free, source, needs_label)) is not None:
        label, how["label"] = found
    return Choice(text, pair, label, how)


def match_name(wanted: str, names: Sequence[str], source: str, flag: str) -> str:
    """Return the column that a flag names: exactly, else ignoring case when only one fits."""
    if wanted in names:
        return wanted
    loose = [name for name in names if name.casefold() == wanted.strip().casefold()]
    if len(loose) == 1:
        return loose[0]
    hint = did_you_mean(wanted, names)
    raise Refused(f"{source}: {flag} {wanted!r} is not a column.{hint} Columns: {_listed(names)}.")


def _find_texts(values: Mapping[str, Sequence[object]], source: str, pair: str | None) -> tuple[str, str | None, How]:
    prose = {name: cells for name, cells in values.items() if _is_wordy(cells)}
    couples = _couples([*prose, *([pair] if pair else [])])
    if pair is not None:
        couples = [couple for couple in couples if couple[1] == pair]
    if len(couples) == 1:
        return couples[0][0], couples[0][1], "name"
    if len(couples) > 1:
        raise _ambiguous(source, "pairs of texts", [name for couple in couples for name in couple], values, pair=True)
    for names in TEXT_NAMES:
        # The whole name first ("text"), then its last word ("review_text").
        whole = [name for name in prose if _key(name) in names]
        last = [name for name in prose if names.intersection(words_of(name)[-1:])]
        for hits in (whole, last):
            if len(hits) == 1:
                return hits[0], None, "name"
            if hits:
                raise _ambiguous(source, "texts", hits, values, pair=True)
    return _text_by_content(prose, values, source), None, "content"


def _text_by_content(prose: Mapping[str, Sequence[object]], values: Mapping[str, Sequence[object]], source: str) -> str:
    lengths = {name: _mean(cells, len) for name, cells in prose.items() if _is_prose(cells)}
    ranked = sorted(lengths, key=lambda name: -lengths[name])
    if len(values) == 1 and prose:
        return next(iter(prose))
    if not ranked:
        raise Refused(
            f"{source}: no column looks like a text. Columns: {_listed(list(values))}. Name it with --text-column."
        )
    # Three times longer than the next: a review beside its title, not the second text of a pair.
    if len(ranked) > 1 and lengths[ranked[0]] < 3 * lengths[ranked[1]]:
        raise _ambiguous(source, "texts", ranked, values, pair=True)
    return ranked[0]


def _find_label(values: Mapping[str, Sequence[object]], source: str, needed: bool) -> tuple[str, How] | None:
    short = [name for name, cells in values.items() if _mean(_one_by_one(cells), lambda text: len(text.split())) <= 6]
    exact = [[name for name in short if _key(name) in names] for names in LABEL_NAMES]
    every = _names("").union(*LABEL_NAMES)
    last = [name for name in short if every.intersection(words_of(name)[-1:])]
    for hits in (*exact, last):
        if len(hits) == 1:
            return hits[0], "name"
        if hits and needed:
            raise _ambiguous(source, "labels", hits, values)
        if hits:
            return None
    if not needed:
        return None
    hits = [name for name in short if _is_label(name, values[name])]
    if len(hits) == 1:
        return hits[0], "content"
    if hits:
        raise _ambiguous(source, "labels", hits, values)
    others = f"the other columns are: {_listed(list(values))}" if values else "there is no other column"
    raise Refused(f"{source}: no column looks like a label; {others}. Name it with --label-column.")


def _couples(names: Sequence[str]) -> list[tuple[str, str]]:
    keys = {_key(name): name for name in names}
    found = [(keys[first], keys[second]) for first, second in COUPLES if first in keys and second in keys]
    for key, name in keys.items():
        second = {"1": "2", "a": "b"}.get(key[-1:], "")
        if _stem(key) and second and (partner := keys.get(key[:-1] + second)) is not None:
            found.append((name, partner))
    return found


def _key(name: str) -> str:
    return "".join(words_of(name))


def _stem(key: str) -> str:
    """Return "sentence" for "sentence1" or "sentenceb", "" for a key that is not one of two texts."""
    stem = key[:-1] if key[-1:] in ("1", "2", "a", "b") else ""
    return stem if any(stem in names for names in TEXT_NAMES) else ""


def _strings(cells: Sequence[object], limit: int = 1000) -> list[str]:
    """Return non-missing cells as strings, spread over the whole column: files are often sorted by label."""
    step = max(1, len(cells) // limit)
    return [str(cell) for cell in cells[::step] if not is_missing(cell)]


def _one_by_one(cells: Sequence[object]) -> list[object]:
    """Return what the cells hold, where one may hold several labels: a list, or a text with | between them."""
    parts = (cell if isinstance(cell, list) else cell.split("|") if isinstance(cell, str) else [cell] for cell in cells)
    return [part for each in parts for part in each]


def is_missing(cell: object) -> bool:
    """Tell whether a cell is empty: None, NaN or only spaces."""
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _mean(cells: Sequence[object], measure: Callable[[str], int]) -> float:
    strings = _strings(cells)
    return sum(map(measure, strings)) / max(1, len(strings))


def _is_wordy(cells: Sequence[object]) -> bool:
    """Tell whether a column can hold texts: strings, not numbers, truth values, lists or nothing."""
    if any(isinstance(cell, bool | list | dict | bytes) for cell in cells[:20]):
        return False
    strings = _strings(cells)
    return bool(strings) and sum(number(with_point(string)) is None for string in strings) > len(strings) / 2


def _is_prose(cells: Sequence[object]) -> bool:
    """Tell whether a column reads like text by its content: many different values of several words, mostly letters."""
    strings = _strings(cells)
    if not strings or len(set(strings)) < len(strings) / 2:
        return False
    joined = "".join(strings)
    # Writing without spaces (Chinese, Japanese, Thai) is told from identifiers by not being ASCII.
    spoken = sum(" " in string.strip() or not string.isascii() for string in strings)
    return spoken >= len(strings) / 2 and sum(char.isalpha() for char in joined) > len(joined) / 2


def _is_label(name: str, cells: Sequence[object]) -> bool:
    if _NO_LABEL.intersection(words_of(name)[-1:]) or name.startswith("Unnamed"):
        return False
    present = [str(cell).strip() for cell in cells if not is_missing(cell)]
    if len(present) < len(cells) / 2 or not present:
        return False
    n_distinct = len(Counter(present))
    values = [number(with_point(value)) for value in present[:1000]]
    if None not in values and any(value % 1 for value in values if value is not None):
        return True
    few = max(2, len(present) // 10, min(len(present) // 2, 10))
    return 2 <= n_distinct <= few and n_distinct < len(present)


def _ambiguous(
    source: str, what: str, hits: Sequence[str], values: Mapping[str, Sequence[object]], *, pair: bool = False
) -> ValueError:
    flags = "--text-column (and --pair-column for two texts a row)" if pair else "--label-column"
    others = [name for name in values if name not in hits]
    rest = f" Other columns: {_listed(others)}." if others else ""
    return Refused(f"{source}: several columns could be the {what}: {_listed(hits)}. Choose with {flags}.{rest}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return shown + (f" ... ({len(names)} in all)" if len(names) > 20 else "")

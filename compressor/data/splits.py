"""Rows held out, dealt into folds or drawn, by seed: rows with the same texts always stay together."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.data import files, signatures
from compressor.data.columns import Columns, match_name
from compressor.data.table import Table, choose_of, no_columns, read_table, select
from compressor.files import user_path
from compressor.refused import Refused

SMALL = 4 << 20  # bytes of a file that is read twice: once to refuse it early


def read_rows(
    section: Any,
    seed: int,
    *,
    offline: bool,
    needs_label: tuple[bool, bool],
    several: Sequence[str] | None = None,
    learn: Callable[[Table], Sequence[str]] | None = None,
) -> tuple[Table, Table]:
    """Return training and evaluation rows.

    Args:
        section: the [data] of a recipe, whose module stands on the same floor as this one.
        seed: of what is drawn and held out.
        offline: never ask the hub.
        needs_label: of each, whether a label must be there.
        several: as ``read_table`` takes it.
        learn: is shown all rows of the training file and returns the labels that evaluation rows are read with.
    """
    columns = Columns(section.text_column, section.pair_column, section.label_column)
    how: dict[str, Any] = {"columns": columns, "offline": offline, "several": several}
    train = read_table(section.train, **how, needs_label=needs_label[0])
    if section.max_rows is not None:
        train = subset(train, section.max_rows, seed)
    if learn is not None:
        how["several"] = learn(train)
    if section.eval is None:
        return split_holdout(train, section.holdout, seed)
    return train, read_table(section.eval, **how, split="validation", needs_label=needs_label[1])


def check_rows(source: str, columns: Columns, needs_label: bool = False) -> None:
    """Refuse at once what no kind of task could read: a path, a file or a named column that is not there.

    A large file is looked at by its first bytes only, and a hub is not asked.
    """
    path = user_path(source)
    if path.is_dir():
        return files.check_folder(path, source)
    if not path.is_file():
        files.hub_id(source)
        return None
    if path.stat().st_size > SMALL:
        with path.open("rb") as file:
            signatures.look(file, source)
        return None
    named = [name for name in columns if name is not None]
    rows = files.read_rows(source, named, split="train", revision=None, offline=True, lists=True)
    if rows.form == "text":
        if needs_label or named:
            raise no_columns(source, named)
        return None
    if columns.label and "," in columns.label and columns.label not in rows.values:  # several, of 0 and 1
        for part in filter(None, map(str.strip, columns.label.split(","))):
            match_name(part, list(rows.values), source, "--label-column")
    else:
        choose_of(rows, rows.values, source, columns, needs_label=False)
    return None


def split_holdout(table: Table, share: float, seed: int) -> tuple[Table, Table]:
    """Return (train, held out): about ``share`` of the rows, of every class alike, chosen by seed.

    Rows with the same texts stay on the same side, so that no held-out row was trained on; every class keeps a row in
    train. Both parts keep the order of the table.
    """
    if not 0 < share < 1:
        raise Refused(f"{table.source}: the share of rows to hold out is {share}, expected between 0 and 1.")
    groups = twins_of(table)
    classes = _by_class(table, groups)
    generator = np.random.default_rng(seed)
    held: list[int] = []
    n_wanted = 0.0
    for name in sorted(classes):
        members = [classes[name][index] for index in generator.permutation(len(classes[name]))]
        # The running total carries the rounding over, so that many small classes still add up to the share.
        n_wanted += share * sum(map(len, members))
        for group in members[1:]:
            if len(held) + len(group) <= round(n_wanted):
                held += group
    if not held and len(groups) > 1:
        held = next((members[-1] for members in classes.values() if len(members) > 1), [])
    if not held and len(groups) > 1 and table.labels and isinstance(table.labels[0], tuple):
        held = groups[-1]  # every row has a label of its own
    if not held:
        raise Refused(
            f"{table.source}: {len(table)} rows are too few to hold some out for evaluation. Give a file with --eval."
        )
    chosen = set(held)
    return select(table, [i for i in range(len(table)) if i not in chosen]), select(table, sorted(chosen))


def together(first: Table, second: Table) -> Table:
    """Return the rows of two parts of one table, the first part's first."""
    texts = [*first.texts, *second.texts]
    pairs = None if first.pairs is None else [*first.pairs, *(second.pairs or [])]
    labels: Any = None if first.labels is None else [*first.labels, *(second.labels or [])]
    whole = replace(first, texts=texts, pairs=pairs, labels=labels)
    return select(whole, range(len(texts)))  # with its own hash


def subset(table: Table, n: int, seed: int) -> Table:
    """Return ``n`` rows chosen by seed in the order of the table, or the table itself when it has no more."""
    if n <= 0:
        raise Refused(f"{table.source}: {n} rows were asked for, expected at least 1.")
    if n >= len(table):
        return table
    return select(table, sorted(map(int, np.random.default_rng(seed).permutation(len(table))[:n])))


def fold_numbers(table: Table, n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of every row (rows,), from 0: as even as can be, over every class alike, chosen by seed.

    Rows with the same texts are in the same fold, so that no teacher has seen a row's twin.

    Raises:
        ValueError: if there are fewer different rows than folds.
    """
    classes = _by_class(table, check_folds(table, n_folds))
    generator = np.random.default_rng(seed)
    folds, n_dealt = np.zeros(len(table), dtype=np.int64), 0
    for name in sorted(classes):
        for index in generator.permutation(len(classes[name])):
            folds[classes[name][index]] = n_dealt % n_folds  # the deal goes on from class to class
            n_dealt += 1
    return folds


def check_folds(table: Table, n_folds: int) -> list[list[int]]:
    """Return the rows with the same texts, a group for each different text.

    Raises:
        ValueError: if there are fewer different rows than folds.
    """
    groups = twins_of(table)
    if len(groups) < n_folds:
        raise Refused(
            f"option out_of_fold = {n_folds} is more than the {len(groups)} different rows of {table.source}, expected "
            f"at most as many. Use out_of_fold = {max(2, len(groups))} or less."
        )
    return groups


def twins_of(table: Table) -> list[list[int]]:
    """Return the rows with the same texts, a group for each different text, in the order of the table."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row, text in enumerate(table.texts):
        groups.setdefault((text, table.pairs[row] if table.pairs else ""), []).append(row)
    return list(groups.values())


def _by_class(table: Table, groups: list[list[int]]) -> dict[str, list[list[int]]]:
    """Return the groups by the class of their first row: all scores are of one, several labels of their rarest."""
    classes: dict[str, list[list[int]]] = {}
    counted = Counter(label for labels in table.labels or [] if isinstance(labels, tuple) for label in labels)
    for group in groups:
        label = table.labels[group[0]] if table.labels is not None else None
        if isinstance(label, tuple):
            label = min(label, key=lambda each: (counted[each], each), default="")
        classes.setdefault(label if isinstance(label, str) else "", []).append(group)
    return classes

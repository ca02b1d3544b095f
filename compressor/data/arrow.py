"""Columns of Parquet, of Arrow files and of data sets of ``datasets``.

Texts of every Arrow type, bytes that are UTF-8 (Spark and Impala write those), whole, real and decimal numbers, truth
values, and dictionaries of these are read; so are lists of one where one value belongs. Every other column is left out
and named with its type. What unpacks to more than ``compressor.data.signatures.unpacked_limit`` is refused on the way.
"""

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compressor.data.formats import Rows
from compressor.data.signatures import refuse_size, unpacked_limit
from compressor.refused import Refused

if TYPE_CHECKING:
    import pyarrow

MOST_ROWS = 1 << 20  # of a packed file, or as many as it has bytes times 200: columns without bytes have any number
BATCH_ROWS = 256  # that are unpacked before their bytes are counted


def from_parquet(data: bytes, source: str, lists: bool) -> Rows:
    """Return the columns of a Parquet file; ``lists`` keeps those of lists."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        facts, schema = file.metadata, file.schema_arrow
        n_bytes = sum(facts.row_group(index).total_byte_size for index in range(facts.num_row_groups))
        if max(n_bytes, facts.num_rows) > unpacked_limit(len(data)):
            raise refuse_size(source, len(data))
        table = _gathered(file.iter_batches(batch_size=BATCH_ROWS), schema, len(data), source)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _unreadable(error, source, "Parquet") from error
    return from_arrow(table, declared_classes(schema), source, "parquet", lists)


def from_ipc(data: bytes, source: str, lists: bool) -> Rows:
    """Return the columns of an Arrow file, with its footer (Feather) or as a stream (``datasets``)."""
    import pyarrow
    import pyarrow.ipc

    try:
        if data.startswith(b"ARROW1"):
            file = pyarrow.ipc.open_file(pyarrow.BufferReader(data))
            batches: Any = (file.get_batch(index) for index in range(file.num_record_batches))
        else:
            file = batches = pyarrow.ipc.open_stream(pyarrow.BufferReader(data))
        table = _gathered(batches, file.schema, len(data), source)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _unreadable(error, source, "Arrow") from error
    return from_arrow(table, declared_classes(table.schema), source, "arrow", lists)


def _unreadable(error: Exception, source: str, what: str) -> Refused:
    if isinstance(error, Refused):
        return error
    return Refused(f"{source}: is not a readable {what} file ({first_line(error)}).")


def _gathered(
    batches: "Iterable[pyarrow.RecordBatch]", schema: "pyarrow.Schema", n_packed: int, source: str
) -> "pyarrow.Table":
    """Return the table of the batches, as long as they stay within what the file may unpack to."""
    import pyarrow

    kept, n_bytes, n_rows, limit = [], 0, 0, unpacked_limit(n_packed)
    for batch in batches:
        n_bytes, n_rows = n_bytes + batch.nbytes, n_rows + batch.num_rows
        if n_bytes > limit or n_rows > max(MOST_ROWS, 200 * n_packed):
            raise refuse_size(source, n_packed)
        kept.append(batch)
    return pyarrow.Table.from_batches(kept, schema)


def declared_classes(schema: "pyarrow.Schema") -> dict[str, list[str]]:
    """Return the class names that ``datasets`` wrote into the file's metadata."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        inner = {name: _inner(spec) for name, spec in features.items()}
        return {name: list(map(str, spec["names"])) for name, spec in inner.items() if "names" in spec}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # written by another tool


def _inner(spec: Any) -> Any:  # Any: JSON
    """Return what a list is of, of the ways in which ``datasets`` has written that."""
    return spec[0] if isinstance(spec, list) and spec else spec.get("feature", spec)


def from_arrow(table: "pyarrow.Table", classes: Mapping[str, list[str]], source: str, form: str, lists: bool) -> Rows:
    """Return the columns of texts and numbers, with ``lists`` those of lists of them, and the types of the others."""
    values: dict[str, list[object]] = {}
    left_out: dict[str, str] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        cells = _cells(column, lists)
        if cells is None:
            left_out[name] = _told(column.type)
        else:
            values[name] = cells
    if not table.num_rows or not values:
        others = ", ".join([*values, *(f"{name} ({kind})" for name, kind in left_out.items())])
        raise Refused(f"{source}: holds no rows of text. Columns: {others or 'none'}.")
    names = {name: classes[name] for name in classes if name in values}
    return Rows(values, range(1, table.num_rows + 1), "row", form, names, left_out=left_out)


def _told(kind: "pyarrow.DataType") -> str:
    words = " ".join(str(kind).split())
    return words if len(words) <= 60 else f"{words[:57]}..."


def _cells(column: "pyarrow.ChunkedArray", lists: bool) -> list[object] | None:
    """Return the cells of a column, None if they are neither texts nor numbers."""
    import pyarrow
    import pyarrow.types as kinds

    kind = column.type
    while isinstance(kind, pyarrow.BaseExtensionType):
        kind = kind.storage_type
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        kind = kind.value_type
    inner = kind.value_type if _is_list(kind, kinds) else kind
    if kinds.is_dictionary(inner):
        inner = inner.value_type
    if not _is_plain(inner, kinds):
        return None
    cells: list[object] = column.to_pylist()
    if inner is not kind and not lists:
        if any(cell is not None and len(cell) > 1 for cell in cells):  # type: ignore[arg-type]
            return None  # several values where one belongs
        cells = [cell[0] if cell else None for cell in cells]  # type: ignore[index]
    try:
        return [_plain(cell) for cell in cells]
    except UnicodeDecodeError:
        return None


def _is_list(kind: "pyarrow.DataType", kinds: ModuleType) -> bool:
    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(kinds, test)(kind) for test in tests if hasattr(kinds, test))


def _is_plain(kind: "pyarrow.DataType", kinds: ModuleType) -> bool:
    tests = (
        "is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_binary_view",
        "is_fixed_size_binary", "is_integer", "is_floating", "is_boolean", "is_decimal",
    )  # fmt: skip
    return any(getattr(kinds, test)(kind) for test in tests if hasattr(kinds, test))


def _plain(cell: object) -> object:
    """Return a cell as text or number: bytes are UTF-8, decimals are read as the numbers they are."""
    if isinstance(cell, bytes):
        return cell.decode("utf-8")
    if isinstance(cell, Decimal):
        return int(cell) if cell.as_tuple().exponent == 0 else float(cell)
    return [_plain(each) for each in cell] if isinstance(cell, list) else cell


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, as a sentence."""
    lines = str(error).strip().splitlines()
    line = (lines[0] if lines else type(error).__name__)[:200]
    return line if line.endswith(".") else f"{line}."

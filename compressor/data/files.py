"""Read a file or a hub data set into columns.

``.tsv`` ``.csv`` ``.jsonl`` ``.ndjson`` ``.json`` ``.txt`` ``.text`` (see ``compressor.data.formats``) and
``.parquet``, each also ``.gz``; UTF-8 with or without a byte order mark. What is no file is a hub id, read through
``datasets``.
Refused: a folder, an unknown file type, an empty file, another encoding (with the line), a damaged file, a hub that
does not answer.
"""

import difflib
import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.formats import Rows, from_csv, from_json, from_text, from_tsv
from compressor.files import user_path
from compressor.refused import Refused

if TYPE_CHECKING:
    import pyarrow

_LOG = logging.getLogger(__name__)
KNOWN_SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".text")
_HUB_ID = re.compile(r"(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?::(?P<config>[\w.-]+))?", re.ASCII)


def read_rows(
    source: str, named: Iterable[str], *, split: str, revision: str | None, offline: bool, lists: bool = False
) -> Rows:
    """Return the rows of a file, or of a hub id (``owner/name`` or ``owner/name:config``) when there is no such file.

    Args:
        source: path or hub id.
        named: columns that the user named; a header that holds them all is taken for one.
        split: which part of a hub data set.
        revision: branch, tag or commit of a hub data set.
        offline: use only what is already in the hub cache.
        lists: of a Parquet file or a hub data set keep columns of lists of texts and numbers, too.
    """
    path = user_path(source)
    if path.is_dir():
        raise Refused(f"{source}: is a folder, expected a file. Name the file inside it: {_inside(path)}.")
    if path.is_file():
        return _parse(path, source, set(named), lists)
    match = _HUB_ID.fullmatch(source)
    if match is None or _suffix(path) in KNOWN_SUFFIXES:
        raise FileNotFoundError(_missing(path, source))
    return _from_hub(source, match["name"], match["config"], split, revision, offline, lists)


def _parse(path: Path, source: str, named: set[str], lists: bool) -> Rows:
    suffix = _suffix(path)
    if suffix not in KNOWN_SUFFIXES:
        known = ", ".join(KNOWN_SUFFIXES)
        raise Refused(f"{source}: unknown file type {suffix!r}, expected {known}, each also .gz. Rename the file.")
    data = _unzipped(path.read_bytes(), source) if path.suffix.lower() == ".gz" else path.read_bytes()
    if not data:
        raise Refused(f"{source}: is empty. Give a file with rows.")
    if suffix == ".parquet":
        return _from_parquet(data, source, lists)
    text = _decoded(data, source)
    if not text.strip():
        raise Refused(f"{source}: holds only blank lines. Give a file with rows.")
    if suffix == ".tsv":
        return from_tsv(text, source, named)
    if suffix == ".csv":
        return from_csv(text, source, named)
    if suffix in (".txt", ".text"):
        return from_text(text)
    return from_json(text, source)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _unzipped(data: bytes, source: str) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"{source}: is not a whole gzip file ({error}). Copy or compress it again.") from error


def _decoded(data: bytes, source: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refused(f"{source}: is UTF-16, expected UTF-8. Convert it: iconv -f UTF-16 -t UTF-8 FILE.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refused(
            f"{source}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8. "
            "Convert the file, for example: iconv -f LATIN1 -t UTF-8 FILE."
        ) from error


def _from_parquet(data: bytes, source: str, lists: bool) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Refused(f"{source}: is not a readable Parquet file ({_first_line(error)}).") from error
    return _from_arrow(table, _declared_classes(table.schema), source, "parquet", lists)


def _declared_classes(schema: "pyarrow.Schema") -> dict[str, list[str]]:
    """Return the class names that ``datasets`` wrote into the file's metadata."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        inner = {name: _inner(spec) for name, spec in features.items()}
        return {name: list(map(str, spec["names"])) for name, spec in inner.items() if "names" in spec}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # written by another tool


def _inner(spec: Any) -> Any:  # Any: JSON
    """Return what a list is of, of the ways in which ``datasets`` has written that."""
    return spec[0] if isinstance(spec, list) else spec.get("feature", spec)


def _from_arrow(table: "pyarrow.Table", classes: Mapping[str, list[str]], source: str, form: str, lists: bool) -> Rows:
    import pyarrow.types as kinds

    values: dict[str, list[object]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        is_list = lists and (kinds.is_list(column.type) or kinds.is_large_list(column.type))
        inner = column.type.value_type if is_list or kinds.is_dictionary(column.type) else column.type
        tests = (kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_floating, kinds.is_boolean)
        if any(test(inner) for test in tests):
            values[name] = column.to_pylist()
    if not table.num_rows or not values:
        raise Refused(f"{source}: holds no rows of text. Columns: {', '.join(table.column_names) or 'none'}.")
    return Rows(values, range(1, table.num_rows + 1), "row", form, {n: classes[n] for n in classes if n in values})


def _from_hub(
    source: str, name: str, config: str | None, split: str, revision: str | None, offline: bool, lists: bool
) -> Rows:
    import datasets

    is_cut_off = offline or not _is_hub_reachable(name)
    try:
        with _only_cache(is_cut_off):
            data = datasets.load_dataset(name, config, split=split, revision=revision)
    except Exception as error:  # the hub, HTTP and builder layers raise a dozen unrelated types
        unreachable = "in the hub cache, and the hub cannot be reached" if is_cut_off else "on the hub"
        where = "in the hub cache (--offline)" if offline else unreachable
        raise Refused(
            f"{source}: is no file here, and could not be read as a data set {where}: {_first_line(error)} "
            "Check the name and the network, or give a file (.tsv .csv .jsonl .parquet .txt)."
        ) from error
    inner = {name: getattr(feature, "feature", feature) for name, feature in data.features.items()}
    classes = {n: feature.names for n, feature in inner.items() if isinstance(feature, datasets.ClassLabel)}
    return _from_arrow(data.with_format("arrow")[:], classes, source, "hub", lists)


def _is_hub_reachable(name: str) -> bool:
    """Ask once: left to itself the hub client repeats a hopeless question for half a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, timeout=10)
    except HfHubHTTPError:
        return True  # it answered, if only "no": its own message is the better one
    except Exception as error:  # noqa: BLE001 - the errors of whichever HTTP library the hub client uses
        _LOG.info("the hub does not answer: %s", error)
        return False
    return True


@contextmanager
def _only_cache(is_cut_off: bool) -> Iterator[None]:
    """Keep ``datasets`` from asking the hub: its download options do not, and the environment is read at import."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if is_cut_off:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    line = (lines[0] if lines else type(error).__name__)[:200]
    return line if line.endswith(".") else f"{line}."


def _inside(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if _suffix(path) in KNOWN_SUFFIXES)
    return ", ".join(names[:8]) or f"it holds no {' '.join(KNOWN_SUFFIXES)} file"


def _missing(path: Path, source: str) -> str:
    if not path.parent.is_dir():
        return f"{source}: does not exist, nor does the folder {path.parent}. Check the path."
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=2)
    return f"{source}: does not exist." + (f" Did you mean {' or '.join(near)}?" if near else " Check the path.")

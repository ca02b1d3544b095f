"""Read a file, a folder of ``datasets`` or a hub data set into columns.

``.tsv`` ``.csv`` ``.jsonl`` ``.ndjson`` ``.json`` ``.txt`` ``.text`` (see ``compressor.data.formats``), ``.parquet``
and ``.arrow`` (``compressor.data.arrow``), each also ``.gz``; UTF-8 with or without a byte order mark. The first bytes
decide (``compressor.data.signatures``): gzip, Parquet and Arrow are read as what they are under any name. A folder is
one that ``save_to_disk`` wrote; what is neither is a hub id, read through ``datasets``.
Refused: another folder, an unknown file type, an empty file, another encoding (with the line), a damaged file, a hub
that does not answer.
"""

import difflib
import io
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.data.arrow import first_line, from_arrow, from_ipc, from_parquet
from compressor.data.formats import Rows, from_csv, from_json, from_text, from_tsv
from compressor.data.signatures import decoded, look, unpacked
from compressor.files import user_path
from compressor.refused import Refused

_LOG = logging.getLogger(__name__)
_ARROW_SUFFIXES = {"parquet": (".parquet", ".pq"), "arrow": (".arrow", ".feather", ".ipc")}
_WHAT = {"parquet": "a Parquet file", "arrow": "an Arrow file"}
_DESCRIPTIONS = ("dataset_info.json", "state.json", "dataset_dict.json")  # of save_to_disk, beside the rows
KNOWN_SUFFIXES = (".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather", ".txt", ".text")
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
        return _from_folder(path, source, split, lists)
    if path.is_file():
        return _parse(path, source, set(named), lists)
    match = hub_id(source)
    return _from_hub(source, match["name"], match["config"], split, revision, offline, lists)


def hub_id(source: str) -> re.Match[str]:
    """Return the parts of a hub id, of what is no file here."""
    match = _HUB_ID.fullmatch(source)
    if match is None or _suffix(user_path(source)) in KNOWN_SUFFIXES:
        raise FileNotFoundError(_missing(user_path(source), source))
    return match


def _parse(path: Path, source: str, named: set[str], lists: bool) -> Rows:
    with path.open("rb") as file:
        form = look(file, source)
    is_packed, suffix, notes = form == "gzip", _suffix(path), []
    data = unpacked(path, source) if is_packed else path.read_bytes()
    if is_packed:
        form = look(io.BytesIO(data), source)
        if form == "gzip":
            raise Refused(f"{source}: is compressed with gzip twice. Unpack it once: gunzip FILE.")
    if is_packed != (path.suffix.lower() == ".gz") and data:
        notes.append(f"it is {'' if is_packed else 'not '}compressed with gzip, whatever its name says")
    if form in _ARROW_SUFFIXES:
        if suffix not in _ARROW_SUFFIXES[form]:
            notes.append(f"it is {_WHAT[form]}, whatever its name says, and was read as one")
        read = from_parquet if form == "parquet" else from_ipc
        rows = read(data, source, lists)
    else:
        rows = _from_text(data, suffix, source, named)
    notes += _part_notes(path)
    return rows._replace(notes=(*rows.notes, *notes))


def _from_text(data: bytes, suffix: str, source: str, named: set[str]) -> Rows:
    if suffix not in KNOWN_SUFFIXES:
        known = ", ".join(KNOWN_SUFFIXES)
        raise Refused(f"{source}: unknown file type {suffix!r}, expected {known}, each also .gz. Rename the file.")
    if not data:
        raise Refused(f"{source}: is empty. Give a file with rows.")
    for form, suffixes in _ARROW_SUFFIXES.items():
        if suffix in suffixes:
            raise Refused(f"{source}: is not a readable {form.capitalize()} file (it begins otherwise). Copy it again.")
    text = decoded(data, source)
    if not text.strip():
        raise Refused(f"{source}: holds only blank lines. Give a file with rows.")
    if suffix == ".tsv":
        return from_tsv(text, source, named)
    if suffix == ".csv":
        return from_csv(text, source, named)
    if suffix in (".txt", ".text"):
        return from_text(text, source)
    if user_path(source).name in _DESCRIPTIONS and not text.lstrip().startswith("["):
        raise Refused(
            f"{source}: describes a data set that save_to_disk wrote, and holds no rows. Give its folder: "
            f"{user_path(source).parent}."
        )
    return from_json(text, source)


def _part_notes(path: Path) -> list[str]:
    """Return what to say of a file that is one of several parts of a data set."""
    part = re.search(r"-\d{5}-of-(\d{5})\.", path.name)
    is_part = part is not None and int(part[1]) > 1
    return [f"it is one of {int(part[1])} parts of a data set"] if part is not None and is_part else []


def check_folder(path: Path, source: str) -> None:
    """Refuse a folder that ``datasets`` did not write."""
    if not any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise Refused(f"{source}: is a folder, expected a file. Name the file inside it: {_inside(path)}.")


def _from_folder(path: Path, source: str, split: str, lists: bool) -> Rows:
    """Return the rows of a folder that ``datasets`` wrote with save_to_disk."""
    check_folder(path, source)
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets and Arrow raise a dozen unrelated types
        raise Refused(
            f"{source}: is a folder of save_to_disk that cannot be read ({first_line(error)}) Save it again."
        ) from error
    if isinstance(data, datasets.DatasetDict):
        if split not in data:
            raise Refused(
                f"{source}: is a folder of save_to_disk without a split {split!r}. Name the folder of one inside it: "
                f"{', '.join(f'{source}/{name}' for name in data)}."
            )
        data = data[split]
    return _from_dataset(data, source, "arrow", lists)


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


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
            f"{source}: is no file here, and could not be read as a data set {where}: {first_line(error)} "
            "Check the name and the network, or give a file (.tsv .csv .jsonl .parquet .txt)."
        ) from error
    return _from_dataset(data, source, "hub", lists)


def _from_dataset(data: Any, source: str, form: str, lists: bool) -> Rows:  # Any: a Dataset, not imported for --help
    import datasets

    inner = {name: getattr(feature, "feature", feature) for name, feature in data.features.items()}
    classes = {n: feature.names for n, feature in inner.items() if isinstance(feature, datasets.ClassLabel)}
    return from_arrow(data.with_format("arrow")[:], classes, source, form, lists)


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


def _inside(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if _suffix(path) in KNOWN_SUFFIXES)
    return ", ".join(names[:8]) or f"it holds no {' '.join(KNOWN_SUFFIXES)} file"


def _missing(path: Path, source: str) -> str:
    if not path.parent.is_dir():
        return f"{source}: does not exist, nor does the folder {path.parent}. Check the path."
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=2)
    return f"{source}: does not exist." + (f" Did you mean {' or '.join(near)}?" if near else " Check the path.")

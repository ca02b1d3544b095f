"""What a file is by its first bytes, before any parser and whatever its name says; text is decoded here.

Rows are text in UTF-8, Parquet or Arrow, each perhaps compressed with gzip. Everything else that people give by mistake
is refused by its own name with what to do: workbooks, archives, pickles, data bases, pages of the web, pointers of
git-lfs, UTF-16 and UTF-32 with and without a mark. What unpacks to more than ``unpacked_limit`` is not unpacked.
"""

import gzip
import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

from compressor.refused import Refused

Form = Literal["gzip", "parquet", "arrow", "text"]
GIB = 1 << 30
MOST_UNPACKED, LEAST_UNPACKED, MOST_TIMES = 4 * GIB, GIB // 16, 200
_HEAD = 4096
_UNPACK = "Unpack it, and give the file with the rows"
_AS_CSV = "Save it as CSV UTF-8 (.csv)"
_AS_TABLE = "Write the rows as .parquet, .csv or .jsonl"
# (first bytes, at which place, what it is, what to do)
_FOREIGN: tuple[tuple[bytes, int, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0, "an Excel workbook or another old Office file", _AS_CSV),
    (b"SQLite format 3\0", 0, "an SQLite data base", _AS_TABLE),
    (b"%PDF-", 0, "a PDF document", "Give the rows as .csv, .jsonl or .txt"),
    (b"version https://git-lfs.github.com/spec/", 0, "a git-lfs pointer, not the file itself",
     "Fetch the file: git lfs pull"),
    (b"BZh", 0, "compressed with bzip2", "Unpack it: bunzip2 FILE"),
    (b"\xfd7zXZ\0", 0, "compressed with xz", "Unpack it: unxz FILE"),
    (b"\x28\xb5\x2f\xfd", 0, "compressed with Zstandard", "Unpack it: unzstd FILE"),
    (b"\x04\x22\x4d\x18", 0, "compressed with LZ4", "Unpack it: unlz4 FILE"),
    (b"\x1f\x9d", 0, "compressed with compress", "Unpack it: uncompress FILE"),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", 0, "a RAR archive", _UNPACK),
    (b"ustar", 257, "a tar archive", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file", _AS_TABLE),
    (b"\x93NUMPY", 0, "a NumPy array", _AS_TABLE),
    (b"Obj\x01", 0, "an Avro file", _AS_TABLE),
    (b"ORC\n", 0, "", ""),  # a text
    (b"ORC", 0, "an ORC file", _AS_TABLE),
    (b"FEA1", 0, "a Feather file of version 1", _AS_TABLE),
    (b"PARE", 0, "an encrypted Parquet file", "Write it without encryption"),
    (b"RDX", 0, "a file of R", _AS_TABLE),
    (b"GGUF", 0, "the weights of a model", "Give the rows"),
    (b"\x89PNG\r\n", 0, "a picture", "Give the rows"),
    (b"\xff\xd8\xff", 0, "a picture", "Give the rows"),
)  # fmt: skip
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(?[dl]p\d+\n|c[\w.]+\n\w+\np\d+\n|[\]}]q\0")  # the last: of old versions
_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_MARKS = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
# Two printable characters of ASCII, as the names of columns begin, in each of the codes without a mark.
_UNMARKED = (
    ("UTF-32LE", rb"(?:[\t\n\r -~]\0\0\0){2}"), ("UTF-32BE", rb"(?:\0\0\0[\t\n\r -~]){2}"),
    ("UTF-16LE", rb"(?:[\t\n\r -~]\0){2}"), ("UTF-16BE", rb"(?:\0[\t\n\r -~]){2}"),
)  # fmt: skip


def look(file: BinaryIO, source: str) -> Form:
    """Return what a file is; what holds no rows that can be read is refused by its name."""
    head = file.read(_HEAD)
    file.seek(max(0, file.seek(0, io.SEEK_END) - 4))
    tail = file.read()
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"PAR1") and (tail == b"PAR1" or b"\0" in head):
        return "parquet"
    if head.startswith((b"ARROW1\0", b"\xff\xff\xff\xff")):
        return "arrow"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise Refused(f"{source}: is {_archive(file)}.")
    body = head.removeprefix(b"\xef\xbb\xbf")
    for magic, place, what, do in _FOREIGN:
        is_binary = not magic.isascii() or place or not magic.isalnum() or _is_binary(body)
        if body[place : place + len(magic)] == magic and is_binary:
            if not what:
                break
            raise Refused(f"{source}: is {what}. {do}.")
    if _PICKLE.match(head) and tail[-1:] == b".":
        raise Refused(f"{source}: is a pickle, which can run code when it is read. {_AS_TABLE}.")
    if _PAGE.match(body):
        raise Refused(f"{source}: is a page of the web (HTML), not the file behind its link. Download the file itself.")
    _check_encoding(head, source)
    return "text"


def _is_binary(head: bytes) -> bool:
    return re.search(rb"[\0-\x08\x0e-\x1f]", head) is not None


def _archive(file: BinaryIO) -> str:
    """Return what a ZIP archive is, and what to do."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a damaged ZIP archive or Excel workbook. Copy it again, and give the rows in it as .csv"
    if any(name.startswith("xl/") for name in names):
        return f"an Excel workbook. {_AS_CSV}"
    if "content.xml" in names:
        return f"an OpenDocument file. {_AS_CSV}"
    if any(name.startswith("word/") for name in names):
        return "a Word document. Save it as plain text in UTF-8 (.txt)"
    if any(name.endswith("data.pkl") for name in names):
        return f"a file of torch.save, which can run code when it is read. {_AS_TABLE}"
    if names and all(name.endswith(".npy") for name in names):
        return f"a file of NumPy arrays. {_AS_TABLE}"
    inside = ", ".join(name for name in names[:4] if not name.endswith("/"))
    return f"a ZIP archive{f' of {inside}' if inside else ''}. {_UNPACK}"


def _check_encoding(head: bytes, source: str) -> None:
    for mark, name in _MARKS:
        if head.startswith(mark):
            raise Refused(f"{source}: is {name}, expected UTF-8. Convert it: iconv -f {name} -t UTF-8 FILE.")
    for name, pattern in _UNMARKED:
        if re.match(pattern, head):
            raise _unmarked(name, source)
    if b"\0" in head:  # Greek and Cyrillic without a mark: the half of each letter that names its script is a control
        for name, half in (("UTF-16LE", head[1::2]), ("UTF-16BE", head[::2])):
            if len(re.findall(rb"[\0-\x08\x0e-\x1f]", half)) > len(half) / 2:
                raise _unmarked(name, source)


def _unmarked(name: str, source: str) -> Refused:
    return Refused(
        f"{source}: is {name} without a byte order mark, expected UTF-8. Convert it: iconv -f {name} -t UTF-8 FILE."
    )


def decoded(data: bytes, source: str) -> str:
    """Return the text of a file in UTF-8, without byte order marks at its beginning."""
    try:
        return data.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        for name in ("UTF-16LE", "UTF-16BE"):
            if _reads_as(data, name):
                raise _unmarked(name, source) from error
        if b"\0" in data[:_HEAD]:
            raise Refused(
                f"{source}: is no text, but a binary file of an unknown kind. Give a .tsv, .csv, .jsonl, .parquet or "
                ".txt file in UTF-8."
            ) from error
        line = data.count(b"\n", 0, error.start) + 1
        raise Refused(
            f"{source}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8. "
            "Convert the file, for example: iconv -f LATIN1 -t UTF-8 FILE."
        ) from error


def _reads_as(data: bytes, name: str) -> bool:
    """Tell whether bytes are text of a script without ASCII, by its letters and by its blanks, which are."""
    try:
        text = data[: len(data) // 2 * 2][:_HEAD].decode(name)
    except UnicodeDecodeError:
        return False
    return any(char in text for char in "\n\t ,") and sum(char.isalpha() for char in text) > len(text) / 2


def unpacked_limit(n_packed: int) -> int:
    """Return the most bytes that a packed file of a size may unpack to: 200 times as many, 64 MiB at least."""
    return min(MOST_UNPACKED, max(LEAST_UNPACKED, MOST_TIMES * n_packed))


def refuse_size(source: str, n_packed: int) -> Refused:
    """Return the refusal of a file that unpacks to more than its limit."""
    limit = unpacked_limit(n_packed) / (1 << 20)
    return Refused(
        f"{source}: unpacks to more than {limit:,.0f} MiB, expected at most {MOST_TIMES} times its own size and "
        f"{MOST_UNPACKED // GIB} GiB. If it is none made to fill the memory, unpack it, or give fewer rows."
    )


def unpacked(path: Path, source: str) -> bytes:
    """Return the content of a gzip file; its size is found before any of it is kept."""
    n_packed = path.stat().st_size
    limit, n_unpacked = unpacked_limit(n_packed), 0
    try:
        with gzip.open(path) as file:
            while part := file.read(1 << 20):
                n_unpacked += len(part)
                if n_unpacked > limit:
                    raise refuse_size(source, n_packed)
            file.seek(0)
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"{source}: is not a whole gzip file ({error}). Copy or compress it again.") from error

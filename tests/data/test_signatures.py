"""The first bytes decide: what is read whatever its name, what is refused as what it is, and what would fill memory."""

import gzip
import io
import pickle
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from compressor.data.table import Table, describe_rows, read_table
from compressor.recipe.recipe import read

BODY = "text;label\n" + "".join(f"some film {row};{row % 2}\n" for row in range(20))
TEXTS, LABELS = [f"some film {row}" for row in range(20)], [str(row % 2) for row in range(20)]


def table_of(path: Path, content: bytes | None = None) -> Table:
    if content is not None:
        path.write_bytes(content)
    return read_table(str(path), needs_label=True)


def parquet(**columns: object) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def arrow(as_stream: bool) -> bytes:
    table, out = pyarrow.table({"text": TEXTS, "label": LABELS}), io.BytesIO()
    with (pyarrow.ipc.new_stream if as_stream else pyarrow.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name in names:
            file.writestr(name, BODY)
    return out.getvalue()


READ = {
    "gzip as .csv": ("a.csv", gzip.compress(BODY.encode()), "it is compressed with gzip, whatever its name says"),
    "CSV as .gz": ("a.csv.gz", BODY.encode(), "it is not compressed with gzip, whatever its name says"),
    "Parquet as .csv": ("a.csv", parquet(text=TEXTS, label=LABELS), "it is a Parquet file, whatever its name says"),
    "Parquet without suffix": ("part-0", parquet(text=TEXTS, label=LABELS), "it is a Parquet file, whatever"),
    "Arrow file as .tsv": ("a.tsv", arrow(False), "it is an Arrow file, whatever its name says"),
    "Arrow stream": ("a.arrow", arrow(True), ""),
    "Feather": ("a.feather", arrow(False), ""),
    "two marks": ("a.csv", b"\xef\xbb\xbf\xef\xbb\xbf" + BODY.encode(), ""),
}


@pytest.mark.parametrize("case", READ)
def test_read_as_what_it_is_and_said(case: str, tmp_path: Path) -> None:
    name, content, note = READ[case]
    table = table_of(tmp_path / name, content)
    assert (table.texts, table.labels) == (TEXTS, LABELS)
    assert note in describe_rows(table) and bool(note) == bool(table.columns["notes"])


REFUSED = {
    "xlsx": (archive("[Content_Types].xml", "xl/workbook.xml"), r"is an Excel workbook\. Save it as CSV UTF-8"),
    "docx": (archive("word/document.xml"), "is a Word document"),
    "ods": (archive("mimetype", "content.xml"), "is an OpenDocument file"),
    "torch": (archive("archive/data.pkl"), "is a file of torch.save, which can run code"),
    "zip": (archive("rows.csv"), r"is a ZIP archive of rows.csv\. Unpack it"),
    "cut zip": (archive("rows.csv")[:60], "is a damaged ZIP archive"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "old Office file"),
    **{f"pickle {n}": (pickle.dumps(["a", {"b": 1}], n), "is a pickle, which can run code") for n in range(6)},
    "pdf": (b"%PDF-1.7\n", "is a PDF"),
    "html": (b"\xef\xbb\xbf\n <!doctype HTML><p>", "is a page of the web"),
    "html of <html>": (b"<html lang=en>", "is a page of the web"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer.*git lfs pull"),
    "xz": (b"\xfd7zXZ\0\0\0", "compressed with xz"),
    "bzip2": (b"BZh91AY&SY\0\0", "compressed with bzip2"),
    "zstd": (b"\x28\xb5\x2f\xfd\0\0", "compressed with Zstandard"),
    "hdf": (b"\x89HDF\r\n\x1a\n\0", "is an HDF5 file"),
    "numpy": (b"\x93NUMPY\1\0", "is a NumPy array"),
    "tar": (bytes(257).replace(b"\0", b"a") + b"ustar\x0000", "is a tar archive"),
    "UTF-16": (BODY.encode("utf-16"), "is UTF-16, expected UTF-8.*iconv -f UTF-16 -t UTF-8"),
    "UTF-16LE": (BODY.encode("utf-16-le"), "is UTF-16LE without a byte order mark.*iconv -f UTF-16LE"),
    "UTF-16BE": (BODY.encode("utf-16-be"), "is UTF-16BE without a byte order mark.*iconv -f UTF-16BE"),
    "UTF-32": (BODY.encode("utf-32"), "is UTF-32, expected UTF-8.*iconv -f UTF-32 -t UTF-8"),
    "UTF-32LE": (BODY.encode("utf-32-le"), "is UTF-32LE without"),
    "UTF-32BE": (BODY.encode("utf-32-be"), "is UTF-32BE without"),
    "UTF-16 of Cyrillic": ("этот фильм\nплохой\n".encode("utf-16-le"), "is UTF-16LE without"),
    "UTF-16 of Chinese": ("这部电影很好看。\n不好\n".encode("utf-16-be"), "is UTF-16BE without"),
    "gzip twice": (gzip.compress(gzip.compress(BODY.encode())), "compressed with gzip twice"),
    "cut Parquet": (parquet(text=TEXTS)[:-20], "is not a readable Parquet file"),
    "JSON": (b'{"text": "a b", "label": 1}\n', r"holds JSON objects.*Rename it to \.jsonl"),
}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_as_what_it_is_under_any_name(case: str, suffix: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(str(path), needs_label=None)
    assert "\n" not in str(caught.value)
    if not content.startswith(b"\x1f\x8b"):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(content))
        with pytest.raises(ValueError, match=message):
            read_table(f"{path}.gz", needs_label=None)


def test_a_data_base_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "rows.csv") as connection:
        connection.execute("create table rows (text)")
    with pytest.raises(ValueError, match="is an SQLite data base"):
        table_of(tmp_path / "rows.csv")


@pytest.mark.parametrize("first", ["BZhukov wrote", "PK is a nation", "ORCs are green", "PAR1 is a level", "Objects"])
def test_a_text_may_begin_like_a_file(first: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{first}\nand more\n")
    assert read_table(str(tmp_path / "a.txt"), needs_label=None).texts == [first, "and more"]


def test_a_table_is_no_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("id\ttext\tlabel\n1\ta b\t1\n")
    with pytest.raises(ValueError, match=r"a.txt: holds a table \(id \| text \| label\).*Rename it to .tsv"):
        read_table(str(tmp_path / "a.txt"), needs_label=None)


def test_folders_of_save_to_disk_are_read(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": [int(label) for label in LABELS]}, features=features)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=data, test=data.select(range(4))).save_to_disk(str(tmp_path / "two"))
    for place in ("one", "two", "two/train", "one/data-00000-of-00001.arrow"):
        table = table_of(tmp_path / place)
        assert table.texts == TEXTS and table.labels == ["yes" if label == "1" else "no" for label in LABELS]
    with pytest.raises(ValueError, match=r"without a split 'validation'\. Name the folder of one .*two/test"):
        read_table(str(tmp_path / "two"), split="validation", needs_label=True)
    for name in ("one/dataset_info.json", "one/state.json", "two/dataset_dict.json"):
        with pytest.raises(ValueError, match=r"describes a data set that save_to_disk wrote.* Give its folder: .*"):
            table_of(tmp_path / name)


BOMB = """
import resource, sys
from compressor.data.table import read_table
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_table(sys.argv[1], needs_label=None)
except ValueError as error:
    print(error, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, sep="|")
"""


def test_what_unpacks_without_end_stops_early(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.csv.gz", "wb", compresslevel=1) as file:
        for _ in range(400):
            file.write(b"a" * (1 << 20))
    (tmp_path / "bomb.parquet").write_bytes(parquet(text=["x" * 100_000] * 20_000))
    for name in ("bomb.csv.gz", "bomb.parquet"):
        done = subprocess.run([sys.executable, "-c", BOMB, str(tmp_path / name)], capture_output=True, text=True)
        said, _, n_mebibytes = done.stdout.partition("|")
        assert "unpacks to more than" in said and "at most 200 times its own size and 4 GiB" in said
        assert int(n_mebibytes) < 300


def test_a_recipe_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfversion = 1\n")
    assert read(tmp_path / "a.toml") == {"version": 1}

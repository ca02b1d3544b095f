"""The bad inputs that concern files of rows that are something else, and labels that can be read in two ways."""

import gzip
import io
import json
import pickle
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.faults import bad_files as bad
from benchmarks.faults.bad_files import Case, Make
from benchmarks.support.tiny import Tiny, make_rows

FINETUNE = "finetune --model {{teacher}} --train {{here}}/{name} --output {{out}}"
COMPRESS = "compress --teacher {{teacher}} --train {{here}}/{name} --output {{out}}"
FILES, LABELS = "Rows that are something else", "Labels of a new teacher"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
BODY = "text;label\n" + "".join(f"{text};{label}\n" for text, label in make_rows(60, seed=2))


def scores(*labels: str) -> Make:
    """Return what writes a semicolon CSV whose scores are these, in turn."""
    rows = [f"{text};{labels[number % len(labels)]}" for number, (text, _) in enumerate(make_rows(60, seed=2))]
    return bad.text_file("rows.csv", "\r\n".join(["text;score", *rows]) + "\r\n")


def classes(*labels: str) -> Make:
    """Return what writes a TSV whose labels are these, in turn."""
    rows = [f"{text}\t{labels[number % len(labels)]}" for number, (text, _) in enumerate(make_rows(60, seed=2))]
    return bad.text_file("rows.tsv", "\n".join(["text\tlabel", *rows]) + "\n")


def archive(*names: str) -> bytes:
    """Return a ZIP archive of files with these names."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, BODY)
    return content.getvalue()


def data_base(here: Path, _tiny: Tiny) -> None:
    """Write an SQLite data base under the name of a CSV."""
    connection = sqlite3.connect(here / "rows.csv")
    connection.execute("create table rows (text, label)")
    connection.commit()
    connection.close()


def parquet(name: str, **columns: Any) -> Make:
    """Return what writes a Parquet file of texts and these columns (Any: what pyarrow takes)."""

    def make(here: Path, _tiny: Tiny) -> None:
        import pyarrow
        import pyarrow.parquet

        texts = {"text": [text for text, _ in make_rows(60, seed=2)]}
        pyarrow.parquet.write_table(pyarrow.table({**texts, **columns}), here / name)

    return make


def bomb(here: Path, _tiny: Tiny) -> None:
    """Write 100 KB of gzip that unpack to 100 MB."""
    (here / "rows.csv.gz").write_bytes(gzip.compress(b"text;label\n" + b"a" * 100_000_000))


def several(here: Path, _tiny: Tiny) -> None:
    """Write rows with several labels each, one of them in two ways."""
    rows = [{"text": text, "labels": ["joy", "Anger" if label else "anger"]} for text, label in make_rows(60, seed=2)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def compress(name: str) -> str:
    """Return the command that compresses with a file."""
    return COMPRESS.format(name=name)


def finetune(name: str) -> str:
    """Return the command that makes a teacher with a file."""
    return FINETUNE.format(name=name)


ROWS = [
    Case(FILES, "a pointer of git-lfs", compress("rows.txt"),
         r"rows\.txt: is a git-lfs pointer, not the file itself\. Fetch the file: git lfs pull",
         bad.text_file("rows.txt", LFS)),
    Case(FILES, "UTF-16 without a mark", compress("rows.csv"),
         r"is UTF-16LE without a byte order mark, expected UTF-8\. Convert it: iconv -f UTF-16LE -t UTF-8",
         bad.text_file("rows.csv", BODY.encode("utf-16-le"))),
    Case(FILES, "UTF-32", compress("rows.csv"), r"is UTF-32, expected UTF-8\. Convert it: iconv -f UTF-32 -t UTF-8",
         bad.text_file("rows.csv", BODY.encode("utf-32"))),
    Case(FILES, "an Excel workbook under the name of a CSV", compress("rows.csv"),
         r"rows\.csv: is an Excel workbook\. Save it as CSV UTF-8",
         bad.text_file("rows.csv", archive("[Content_Types].xml", "xl/workbook.xml"))),
    Case(FILES, "an old Excel workbook", compress("rows.xls"),
         r"is an Excel workbook or another old Office file\. Save",
         bad.text_file("rows.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))),
    Case(FILES, "a ZIP archive", compress("rows.csv"), r"is a ZIP archive of train\.csv\. Unpack it, and give the file",
         bad.text_file("rows.csv", archive("train.csv"))),
    Case(FILES, "a pickle", compress("rows.csv"), r"is a pickle, which can run code .* Write the rows as \.parquet",
         bad.text_file("rows.csv", pickle.dumps(make_rows(9, seed=2)))),
    Case(FILES, "an SQLite data base", compress("rows.csv"), r"is an SQLite data base\. Write the rows as", data_base),
    Case(FILES, "a PDF", compress("rows.txt"), r"is a PDF document\. Give the rows as \.csv",
         bad.text_file("rows.txt", b"%PDF-1.7\n%\xe2\xe3\n")),
    Case(FILES, "a page of the web", compress("rows.csv"),
         r"is a page of the web \(HTML\), .* Download the file itself",
         bad.text_file("rows.csv", "<!DOCTYPE html>\n<html><body>Not found</body></html>\n")),
    Case(FILES, "Zstandard", compress("rows.csv"), r"is compressed with Zstandard\. Unpack it: unzstd",
         bad.text_file("rows.csv", b"\x28\xb5\x2f\xfd" + bytes(60))),
    Case(FILES, "gzip in gzip", compress("rows.csv.gz"), r"is compressed with gzip twice\. Unpack it once: gunzip",
         bad.text_file("rows.csv.gz", gzip.compress(gzip.compress(BODY.encode())))),
    Case(FILES, "JSON lines under the name of a text", compress("rows.txt"),
         r"holds JSON objects, whatever its name says\. Rename it to \.jsonl",
         bad.text_file("rows.txt", '{"text": "a film", "label": 1}\n')),
    Case(FILES, "a table under the name of a text", compress("rows.txt"),
         r"holds a table \(text \| label\), expected plain text by its name\. Rename it to \.csv",
         bad.text_file("rows.txt", BODY)),
    Case(FILES, "a file of save_to_disk that describes", compress("dataset_info.json"),
         r"describes a data set that save_to_disk wrote, and holds no rows\. Give its folder",
         bad.text_file("dataset_info.json", '{"description": "", "features": {}}')),
    Case(FILES, "a Parquet file that was cut", compress("rows.parquet"),
         r"rows\.parquet: is not a readable Parquet file",
         bad.text_file("rows.parquet", b"PAR1" + bytes(90))),
    Case(FILES, "gzip that unpacks to a thousand times its size", compress("rows.csv.gz"),
         r"unpacks to more than 64 MiB, expected at most 200 times its own size and 4 GiB\. .* give fewer rows", bomb),
    Case(FILES, "a label of several values in Parquet", finetune("rows.parquet"),
         r"no column looks like a label; .* Not read, .*: label \(list<element: int64>\)",
         parquet("rows.parquet", label=[[0, 1]] * 60)),
    Case(FILES, "a text column of a type that holds none", f"{compress('rows.parquet')} --text-column body",
         r"--text-column 'body' is of type struct<en: string>, expected texts or numbers\. Write the column",
         parquet("rows.parquet", body=[{"en": "a film"}] * 60)),
    Case(FILES, "Parquet under the name of a CSV", f"{compress('rows.csv')} --dry-run", "",
         parquet("rows.csv", label=[0, 1] * 30), code=0, keeps=r"out(/recipe\.toml)?"),
    Case(FILES, "gzip under the name of a CSV", f"{compress('rows.csv')} --dry-run", "",
         bad.text_file("rows.csv", gzip.compress(BODY.encode())), code=0, keeps=r"out(/recipe\.toml)?"),
    Case(LABELS, "one class in two spellings", finetune("rows.tsv"),
         r"the labels 'Positive' \(30 rows\) and 'positive' \(15 rows\) differ only in case, .* Write each class in",
         classes("Positive", "negative", "Positive", "positive")),
    Case(LABELS, "one class with two blanks", finetune("rows.tsv"),
         r"the labels 'very␣␣good' \(15 rows\) and 'very good' \(15 rows\) differ only in .* Write each class in one",
         classes("very good", "bad", "very  good", "bad")),
    Case(LABELS, "one of several labels in two spellings", f"{finetune('rows.jsonl')} --task multi_label",
         r"the labels 'Anger' \(\d+ rows\) and 'anger' \(\d+ rows\)|'anger' \(\d+ rows\) and 'Anger'", several),
    Case(LABELS, "separators of thousands", finetune("rows.csv"),
         r"line 2: the label '1\.234,5' \(column 'score'\) has separators of thousands, expected a number without",
         scores("1.234,5", "0,5")),
    Case(LABELS, "commas and points", finetune("rows.csv"),
         r"line 3: the label '0\.5' .* is written with a point and '1,5' with a comma, .* Write all of the column",
         scores("1,5", "0.5")),
    Case(LABELS, "commas before three digits", finetune("rows.csv"),
         r"line 2: the label '1,234' .* may be 1234 or 1\.234\. Write the column without separators",
         scores("1,234", "5,678")),
    Case(LABELS, "a word among decimal commas", finetune("rows.csv"),
         r"line 3: the label 'n/a' .* is not a number, but the other labels are\. Correct it or remove the row",
         scores("1,5", "n/a", "0,5")),
]  # fmt: skip

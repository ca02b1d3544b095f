"""Files written whole or not at all, and their hashes."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield another name to write a file or folder under, which becomes ``path`` when all went well."""
    unfinished = path.with_name(f"{path.name}.tmp")
    yield unfinished
    unfinished.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write sorted, indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # any JSON value
    """Return the content of a file that we have written."""
    return json.loads(path.read_text(encoding="utf-8"))


def user_path(name: str | os.PathLike[str]) -> Path:
    """Return a path as a user writes it, with ``~`` as their home; a ``~`` that is nobody's home stays as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of a checkpoint's configuration, tokenizer and weight files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        is_wanted = path.suffix in (".json", ".safetensors", ".model", ".txt", ".bin")
        if path.is_file() and is_wanted and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            found[path.relative_to(folder).as_posix()] = sha256_file(path)
    return found


@contextlib.contextmanager
def new_folder(out_dir: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to write into that becomes ``out_dir`` when all went well, and vanishes otherwise."""
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f"--output {out_dir} is a file, expected a folder. Choose another --output.")
    if out_dir.is_dir() and any(out_dir.iterdir()) and not overwrite:
        raise FileExistsError(f"--output {out_dir} is not empty. Choose another, or give --overwrite to replace it.")
    part = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(part, ignore_errors=True)  # of a command that was killed
    part.mkdir(parents=True)
    try:
        yield part
        if out_dir.is_dir():
            shutil.rmtree(out_dir)
        part.rename(out_dir)
    finally:
        shutil.rmtree(part, ignore_errors=True)

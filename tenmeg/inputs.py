"""What a function is given, as files: names stay names; a model and rows that are in memory are written.

They go into a folder named by its content, so that the same call finds the same files and a run goes on where it was;
a folder that an earlier run reads is never written over.
"""

import atexit
import functools
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from compressor.files import sha256_file
from compressor.refused import Refused
from tenmeg.rows import row_lines

# What to do with models of other libraries, by the name of a class that they come from.
HINTS = {
    "PeftModel": "Give model.merge_and_unload(), a plain model.",
    "Pipeline": "Give its parts: its .model, and tokenizer= its .tokenizer.",
    "PreTrainedTokenizerBase": "Give the model there, and this as tokenizer=.",
    "SentenceTransformer": "Save it with its save_pretrained, and give the folder.",
}
HASH_LENGTH = 12  # of a folder's name
OURS = re.compile(f"[0-9a-f]{{{HASH_LENGTH}}}")


@dataclass(frozen=True)
class Inputs:
    """A model and rows by their roles, checked; ``read_inputs`` makes one."""

    names: Mapping[str, str]  # paths and hub ids
    models: Mapping[str, tuple[Any, Any]]  # model and tokenizer
    rows: Mapping[str, list[str]]  # lines of JSON

    @property
    def is_live(self) -> bool:
        """Whether anything has to be written."""
        return bool(self.models or self.rows)

    def written(self, root: Path) -> dict[str, str]:
        """Write what is in memory into a folder of ``root``, whole or not at all; return the name of every role."""
        part = root / "partial"
        shutil.rmtree(part, ignore_errors=True)  # of a call that was killed
        part.mkdir(parents=True)
        try:
            for role, (model, tokenizer) in self.models.items():
                _save(model, tokenizer, part / role)
            for role, lines in self.rows.items():
                (part / f"{role}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            folder = root / _content(part)
            if not folder.is_dir():
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        models = {role: str(folder / role) for role in self.models}
        return {**self.names, **models, **{role: str(folder / f"{role}.jsonl") for role in self.rows}}


def read_inputs(models: Mapping[str, Any], tokenizer: Any, rows: Mapping[str, Any]) -> Inputs:
    """Check what the caller gave, before anything is written.

    Raises:
        Refused: for a model or rows of an unknown kind, and for a model without its tokenizer or the reverse.
    """
    names: dict[str, str] = {}
    live: dict[str, tuple[Any, Any]] = {}
    lines: dict[str, list[str]] = {}
    for role, model in models.items():
        if model is None or isinstance(model, str | PathLike):
            names |= {} if model is None else {role: str(model)}
            if tokenizer is not None:
                got = f"a {role} by name brings its own" if model is not None else f"there is no {role} that it is of"
                raise Refused(f"tokenizer: {got}. Leave out tokenizer=, or give the model that it belongs to.")
        else:
            _check_model(role, model, tokenizer)
            live[role] = model, tokenizer
    for role, given in rows.items():
        if isinstance(given, list):
            lines[role] = row_lines(role, given)
        elif given is None or isinstance(given, str | PathLike):
            names |= {} if given is None else {role: str(given)}
        else:
            raise Refused(
                f"{role}: got a {type(given).__name__}, expected a path, a hub id or a list of rows. "
                "Make a list of (text, label) tuples, of dictionaries or of texts of it."
            )
    return Inputs(names, live, lines)


@contextmanager
def beside(inputs: Inputs, output: Path, is_kept: Callable[[str], bool]) -> Iterator[dict[str, str]]:
    """Yield the name of every role, with what is in memory written to a hidden folder beside ``output``.

    Afterwards the folders there that ``is_kept`` does not ask for, by their names, are removed.
    """
    if not inputs.is_live:
        yield {**inputs.names}
        return
    place = output.resolve()  # "." has no name to put the folder beside
    if not place.name:
        raise Refused(f"output: {output} is no folder to write to. Choose another output.")
    root = place.with_name(f".{place.name}.inputs")
    try:
        names = inputs.written(root)
        with _own_words(inputs, names):
            yield names
    finally:
        for folder in root.iterdir() if root.is_dir() else ():
            if OURS.fullmatch(folder.name) and not is_kept(folder.name):
                shutil.rmtree(folder)
        if root.is_dir() and not any(root.iterdir()):
            root.rmdir()


@contextmanager
def for_now(inputs: Inputs, root: Path | None = None) -> Iterator[dict[str, str]]:
    """Yield the name of every role, with what is in memory written to a temporary folder, or to ``root``."""
    with tempfile.TemporaryDirectory(prefix="tenmeg-") as folder:
        names = inputs.written(root or Path(folder)) if inputs.is_live else {**inputs.names}
        with _own_words(inputs, names):
            yield names


@functools.cache
def until_exit() -> Path:
    """Return a folder that is there as long as the process."""
    folder = tempfile.mkdtemp(prefix="tenmeg-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@contextmanager
def _own_words(inputs: Inputs, names: Mapping[str, str]) -> Iterator[None]:
    """Let a refusal speak of train and eval, not of files that the caller has never seen."""
    try:
        yield
    except Refused as error:
        text = str(error)
        for role in inputs.rows:
            text = text.replace(names[role], role)
        if text == str(error):
            raise
        raise Refused(text) from error


def _check_model(role: str, model: Any, tokenizer: Any) -> None:
    classes = _classes(model)
    if "PreTrainedModel" not in classes:
        hint = next((HINTS[name] for name in classes if name in HINTS), "Save it to a folder and give that.")
        raise Refused(
            f"{role}: got a {type(model).__name__}, expected a folder, a hub id or a transformers model. {hint}"
        )
    if tokenizer is None:
        raise Refused(f"{role}: a {type(model).__name__} comes without a tokenizer. Give its own as tokenizer=.")
    if "PreTrainedTokenizerBase" not in _classes(tokenizer):
        raise Refused(
            f"tokenizer: got a {type(tokenizer).__name__}, expected a transformers tokenizer. Give the one that the "
            f"{role} was trained with."
        )


def _classes(value: Any) -> list[str]:
    """Return the names of the classes that a value is of: transformers is not imported to look at something else."""
    return [] if isinstance(value, type) else [each.__name__ for each in type(value).__mro__]


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _settle(folder / "tokenizer.json")


def _settle(file: Path) -> None:
    """Take out how the tokenizer was last called: it would make another model of the same one, and is never read."""
    if not file.is_file():
        return
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(file))


def _content(folder: Path) -> str:
    """Return a short hash of all files of a folder and their names."""
    files = {each.relative_to(folder).as_posix(): sha256_file(each) for each in folder.rglob("*") if each.is_file()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:HASH_LENGTH]

"""English text that every Python machine has: the docstrings of the standard library and of the installed packages.

Files are only parsed, never imported. A docstring is split into its first sentence and the rest; modules are divided
into training and held-out ones by a hash of their name, so no module is on both sides and the division is the same
everywhere.
"""

import ast
import hashlib
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SKIPPED_FOLDERS = ("test", "tests", "testing", "idlelib", "lib2to3", "site-packages", "_vendor", "vendored")
HELD_OUT_SHARE = 0.10
ENOUGH = 30_000  # docstrings: a fraction of a minute of parsing, and as many as the demonstration can use
MIN_WORDS, MAX_WORDS = 4, 48
MARKUP = re.compile(r"^\s*(>>>|\.\.\s|:\w+|@\w+|[-=~^*#+]{3,}|\|)")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")


class Docstring(NamedTuple):
    """A docstring in two parts."""

    name: str  # module.object
    first: str  # its first sentence
    rest: str  # the prose after it, empty when there is none
    is_held_out: bool


def docstrings() -> list[Docstring]:
    """Return the docstrings found here, each text once, in the order of their names."""
    found: dict[str, Docstring] = {}
    for module, path in _modules():
        digest = hashlib.sha256(module.encode()).digest()
        is_held_out = int.from_bytes(digest[:4]) < HELD_OUT_SHARE * 2**32
        if len(found) >= ENOUGH:
            break
        for name, text in _docstrings_in(path, module):
            first, rest = split(text)
            if first and first not in found:
                found[first] = Docstring(name, first, rest, is_held_out)
    return sorted(found.values())


def split(text: str) -> tuple[str, str]:
    """Return the first sentence and the rest of the prose; markup, examples and parameter tables are left out."""
    sentences = list(_sentences(text))
    if not sentences or not _is_english(sentences[0]):
        return "", ""
    return sentences[0], " ".join(sentence for sentence in sentences[1:] if _is_english(sentence))


def sentences_of(docstring: Docstring) -> list[str]:
    """Return the sentences of both parts."""
    return [docstring.first, *SENTENCE.split(docstring.rest)] if docstring.rest else [docstring.first]


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.splitlines()
        if any(MARKUP.match(line) for line in lines) or any(line.startswith("    ") for line in lines):
            continue
        plain = re.sub(r":\w+:`~?([^`]*)`", r"\1", " ".join(line.strip() for line in lines)).replace("``", "")
        yield from SENTENCE.split(re.sub(r"\s+", " ", plain).strip())


def _is_english(sentence: str) -> bool:
    words = sentence.split()
    n_plain = sum(word.strip(".,;:!?()'\"`").isalpha() for word in words)
    return MIN_WORDS <= len(words) <= MAX_WORDS and sentence.isascii() and n_plain >= 0.7 * len(words)


def _modules() -> Iterator[tuple[str, Path]]:
    roots = dict.fromkeys(Path(sysconfig.get_paths()[key]) for key in ("stdlib", "purelib", "platlib"))
    found: dict[str, Path] = {}
    for root in roots:
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            if not any(part in SKIPPED_FOLDERS or part.startswith("test_") for part in parts):
                found.setdefault(".".join(parts), path)
    # By hash: an even sample of all packages, the same on every machine that has the same ones.
    return iter(sorted(found.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest()[4:]))


def _docstrings_in(path: Path, module: str) -> Iterator[tuple[str, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text and len(text) < 20_000:
                yield f"{module}.{getattr(node, 'name', '')}".rstrip("."), text

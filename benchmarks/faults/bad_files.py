"""How the bad inputs of ``benchmarks.faults.bad_cases`` are made: small changes of a good teacher, table or package."""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.support.tiny import Tiny, make_rows, write_rows

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "sentiment"
NO_SEAL = "0" * 64
Make = Callable[[Path, Tiny], object]


def nothing(_here: Path, _tiny: Tiny) -> None:
    """Make nothing."""


def at_rest(_here: Path) -> AbstractContextManager[None]:
    """Change nothing while the command runs."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Case:
    """One input: its name, the command, what makes it, and what must come of it."""

    group: str
    name: str
    command: str  # {teacher} {several} {train} {dev} {package}: good; {here}: the case's folder; {out}: not there yet
    says: str = ""  # a regular expression that the sentence matches: got, expected, what to do
    make: Make = nothing
    code: int = 1
    keeps: str = ""  # a regular expression of the files that may be new afterwards
    around: Callable[[Path], AbstractContextManager[None]] = at_rest  # holds while the command runs
    own_process: bool = False
    needs_hub: bool = False  # told to ask a hub that is not there


def text_file(name: str, content: str | bytes) -> Make:
    """Return what writes one file."""

    def make(here: Path, _tiny: Tiny) -> None:
        (here / name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)

    return make


def rows_file(name: str, change: Callable[[list[str]], list[str]], n_rows: int = 60) -> Make:
    """Return what writes good rows, changed: the first line is the header."""

    def make(here: Path, _tiny: Tiny) -> None:
        write_rows(here / name, make_rows(n_rows, seed=2))
        lines = (here / name).read_text(encoding="utf-8").splitlines()
        (here / name).write_text("\n".join(change(lines)) + "\n", encoding="utf-8", errors="surrogateescape")

    return make


def cut_gzip(here: Path, tiny: Tiny) -> None:
    """Write a .gz that ends too early."""
    (here / "rows.tsv.gz").write_bytes(gzip.compress(tiny.train.read_bytes())[:-50])


def teacher(change: Callable[[Path], object]) -> Make:
    """Return what copies the teacher and changes the copy."""

    def make(here: Path, tiny: Tiny) -> None:
        shutil.copytree(tiny.teacher, here / "teacher")
        change(here / "teacher")

    return make


def configured(**changes: Any) -> Make:  # any JSON
    """Return what changes keys of the teacher's config.json; None removes a key."""

    def change(folder: Path) -> None:
        content = _read(folder / "config.json") | changes
        _write(folder / "config.json", {key: value for key, value in content.items() if value is not None})

    return teacher(change)


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Make:
    """Return what copies the teacher's tokenizer.json and changes the copy."""

    def make(here: Path, tiny: Tiny) -> None:
        content = _read(tiny.teacher / "tokenizer.json")
        change(content)
        _write(here / "tokenizer.json", content)

    return make


def without_padding(content: dict[str, Any]) -> None:
    """Call the padding token something else."""
    content["added_tokens"][0]["content"] = "[FILL]"
    content["model"]["vocab"]["[FILL]"] = content["model"]["vocab"].pop("[PAD]")


def without_a_letter(content: dict[str, Any]) -> None:
    """Spell the tokens of one letter otherwise, so that nothing reads it."""
    vocab = content["model"]["vocab"]
    for token in [token for token in vocab if "q" in token or "w" in token]:
        vocab[f"{token}0000"] = vocab.pop(token)


def cut_weights(folder: Path) -> None:
    """Leave the first half of the weights."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_weights_but(name: str, content: bytes) -> Callable[[Path], None]:
    """Replace model.safetensors."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content)

    return change


def no_tokenizer(folder: Path) -> None:
    """Remove the tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def missing_shard(folder: Path) -> None:
    """Say that the weights are in two files, and have one."""
    names = {
        "bert.embeddings.word_embeddings.weight": "model-00001-of-00002.safetensors",
        "x": "model-00002-of-00002.safetensors",
    }
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    _write(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})


def fewer_words(folder: Path) -> None:
    """Cut the table of word embeddings to 300 rows, and say so."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    save_file({**tensors, name: tensors[name][:300].copy()}, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", _read(folder / "config.json") | {"vocab_size": 300})


def lost_weights(folder: Path) -> None:
    """Leave out one tensor of the first layer."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.encoder.layer.0.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def nan_weights(folder: Path) -> None:
    """Write a NaN into the last tensor of the file, in place."""
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:start])
    first, _ = header["bert.encoder.layer.0.output.dense.weight"]["data_offsets"]
    content[start + first : start + first + 4] = struct.pack("<f", float("nan"))
    path.write_bytes(content)


def package(change: Callable[[Path], object]) -> Make:
    """Return what copies a good package and changes the copy."""

    def make(here: Path, _tiny: Tiny) -> None:
        shutil.copytree(GOLDEN, here / "package")
        change(here / "package")

    return make


def manifest(change: Callable[[dict[str, Any]], object]) -> Make:
    """Return what changes the manifest and seals it again, so that only the change is wrong."""

    def act(folder: Path) -> None:
        content = _read(folder / "manifest.json")
        change(content)
        text = json.dumps(content | {"manifest_sha256": NO_SEAL}, indent=2, sort_keys=True)
        digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
        (folder / "manifest.json").write_text(text.replace(NO_SEAL, digest), encoding="utf-8")

    return package(act)


def flipped(name: str, place: int) -> Make:
    """Return what flips one bit of a file of the package."""

    def act(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 1
        (folder / name).write_bytes(content)

    return package(act)


def doubled_key(folder: Path) -> None:
    """Name a key of the manifest twice."""
    path = folder / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"kind":', '"kind": "x",\n  "kind":'), encoding="utf-8")


def other_run(here: Path, _tiny: Tiny) -> None:
    """Put the mark of a run of another recipe into the output folder."""
    (here / "out").mkdir()
    _write(here / "out" / "run.json", {"version": 1, "recipe_sha256": NO_SEAL})


def full_output(here: Path, _tiny: Tiny) -> None:
    """Put somebody's file into the output folder."""
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text("three years of work", encoding="utf-8")


def damaged_run(here: Path, tiny: Tiny) -> None:
    """Damage the mark of the run in the output folder."""
    full_output(here, tiny)
    (here / "out" / "run.json").write_text("{", encoding="utf-8")


def recipe(text: str) -> Make:
    """Return what writes a recipe; {teacher} and {train} are filled in."""

    def make(here: Path, tiny: Tiny) -> None:
        content = text.replace("{teacher}", str(tiny.teacher)).replace("{train}", str(tiny.train))
        (here / "recipe.toml").write_text(content, encoding="utf-8")

    return make


def can_mount() -> bool:
    """Return whether a small file system can be mounted here."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None


@contextlib.contextmanager
def small_disk(here: Path, n_bytes: int = 300_000) -> Iterator[None]:
    """Give the output folder a file system of its own, full after ``n_bytes``; else let no file be larger than that."""
    place = here / "out"
    if not can_mount():
        import resource

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes // 3, limits[1]))  # a child inherits it
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

"""Open a tenmeg package, make it prove itself, and answer: text in, label or labels, value or embedding out.

This file is the whole reader: one idea. Copy it alone to any machine with onnxruntime, tokenizers and numpy:

    package = runtime.load("package")
    package.predict("a fine film").label

It refuses, each with its own sentence, damaged, missing, added or duplicate files, paths that leave the folder, newer
formats, models and tokenizers that do not load, and a self-test with other ids or outputs on this machine. It repairs,
downloads and writes nothing. Hashes find damage and accidents, not forgers. README.md describes the format.
"""

import ctypes
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers

# Read when onnxruntime is imported. Without it, onnxruntime >= 1.29 on Linux and macOS asks for a host of its maker and
# keeps an id and events in the home folder; this reader neither talks nor writes. Set to 0 by hand, it stays 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

FORMAT, FORMAT_VERSION, MANIFEST = "tenmeg-package", 2, "manifest.json"
FEWEST_LABELS = {"classification": 2, "multi_label": 1}  # of the kinds that have any
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PATH_PART = re.compile(r"[A-Za-z0-9_-]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")  # so no ".", no ".." and no hidden file
FIELDS: dict[str, type] = dict.fromkeys(("kind", "task", "output", "model", "tokenizer"), str)
FIELDS |= {"pair": bool, "max_length": int, "files": dict, "self_test": dict}
SEAL = re.compile(rb'"manifest_sha256"\s*:\s*"([0-9a-f]{64})"')


class Refused(ValueError):
    """What cannot be answered, in one sentence: what, got, expected, what to do."""


class PackageError(Refused):
    """The folder is not a package that this reader accepts; the message is one sentence and what to do."""


class Prediction(NamedTuple):
    """One answer; what the package's kind does not have is ``None``."""

    label: str | None = None  # of one that is right
    score: float | None = None  # probability of the label
    scores: dict[str, float] | None = None  # probability of every label
    labels: list[str] | None = None  # of any number: those whose probability reaches their threshold
    value: float | None = None  # regression
    embedding: np.ndarray | None = None  # float32 (hidden,)


@dataclass(frozen=True)
class Package:
    """An opened package, made by ``load``. Several threads may use it at once."""

    manifest: dict[str, Any]  # Any: JSON, its fields checked by ``read_manifest``
    n_bytes: int  # of the whole package
    _tokenizer: tokenizers.Tokenizer
    _template: list[tuple[int | None, int, int]]  # (which text or None, special token, type id)
    _session: Any  # onnxruntime has no types

    def encode(self, text: str, pair: str | None = None) -> list[int]:
        """Return the token ids that the model sees, special tokens included, cut to ``max_length``."""
        return self._columns(text, pair)["input_ids"]

    def predict(self, text: str, pair: str | None = None) -> Prediction:
        """Return the answer to one text, or to two where the package compares two."""
        return ANSWERS[self.manifest["kind"]](self._run(text, pair), self.manifest)

    def outputs(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Return the main output as float32 (texts, values); every text runs alone, as on a device."""
        seconds = [None] * len(texts) if pairs is None else pairs
        return np.stack([self._run(text, second) for text, second in zip(texts, seconds, strict=True)])

    def _columns(self, text: str, pair: str | None) -> dict[str, list[int]]:
        if self.manifest["pair"] != (pair is not None):
            needs = "two texts. Give the second one (--pair)" if pair is None else "one text. Leave out --pair"
            raise Refused(f"text: this package takes {needs}.")
        try:
            texts = [text] if pair is None else [text, pair]
            found = [self._tokenizer.encode(one, add_special_tokens=False).ids for one in texts]
        except (TypeError, UnicodeError) as error:  # tokenizers answers a lone surrogate with TypeError
            raise Refused("text: expected a string of valid Unicode. Give the text as UTF-8.") from error
        except Exception as error:  # the Rust library raises plain Exception
            raise PackageError(f"package: the tokenizer cannot cut this text ({_line(error)}).") from error
        n_kept = _cut([len(ids) for ids in found], self.manifest["max_length"] - len(self._template) + len(found))
        is_left = self.manifest.get("truncation") == "left"
        kept = [ids[len(ids) - n :] if is_left else ids[:n] for ids, n in zip(found, n_kept, strict=True)]
        tokens, types = [], []
        for which, special, type_id in self._template:
            part = [special] if which is None else kept[which]
            tokens += part
            types += [type_id] * len(part)
        return dict(zip(INPUTS, (tokens, [1] * len(tokens), types), strict=True))

    def _run(self, text: str, pair: str | None) -> np.ndarray:
        columns = self._columns(text, pair)
        feeds = {name: np.array([columns[name]], dtype=np.int64) for name in self.manifest["inputs"]}  # (1, tokens)
        try:
            return self._session.run([self.manifest["output"]], feeds)[0][0]  # (1, values) -> (values,)
        except Exception as error:  # onnxruntime has a dozen unrelated exception types
            raise PackageError(f"package: the model cannot run on this text ({_line(error)}).") from error


def _classification(output: np.ndarray, manifest: dict[str, Any]) -> Prediction:
    scores = dict(zip(manifest["labels"], output.tolist(), strict=True))
    label = manifest["labels"][int(output.argmax())]
    return Prediction(label=label, score=scores[label], scores=scores)


def _multi_label(output: np.ndarray, manifest: dict[str, Any]) -> Prediction:
    scores = dict(zip(manifest["labels"], output.tolist(), strict=True))
    reached = zip(scores, output >= np.array(manifest["thresholds"]), strict=True)
    return Prediction(scores=scores, labels=[label for label, is_reached in reached if is_reached])


def _regression(output: np.ndarray, _manifest: dict[str, Any]) -> Prediction:
    return Prediction(value=float(output[0]))


def _embedding(output: np.ndarray, _manifest: dict[str, Any]) -> Prediction:
    return Prediction(embedding=output)


# What a kind of task answers: one function of the model's output (values,) for each that this reader knows.
ANSWERS: dict[str, Callable[[np.ndarray, dict[str, Any]], Prediction]] = {
    "classification": _classification,
    "multi_label": _multi_label,
    "regression": _regression,
    "embedding": _embedding,
}


def _cut(counts: list[int], limit: int) -> list[int]:
    """Return how many tokens of each text stay: the longer gives way first, as in tokenizers' ``longest_first``."""
    # theirs also keeps every combination of what it cuts off: 6 seconds and 2 GB for two texts of 50 kB
    if sum(counts) <= limit or len(counts) == 1:
        return [min(count, limit) for count in counts]
    shorter = min(*counts, limit // 2)
    return [shorter, limit - shorter] if counts[0] <= counts[1] else [limit - shorter, shorter]


def load(
    path: str | Path,
    *,
    threads: int = 1,
    verify: bool = True,
    self_test: bool = True,
    prepack: bool = True,
    providers: list[str] | None = None,
) -> Package:
    """Return the package in a folder; ``PackageError`` if anything is not exactly what its manifest says.

    One thread is best for models of this size. ``verify=False`` compares names and sizes but no hashes,
    ``self_test=False`` runs no case; ``prepack=False`` is slower and needs less memory while the model is loaded (the
    weights and their packed copies are there together); ``providers`` are onnxruntime's, the CPU when left out.
    """
    manifest, n_bytes = read_manifest(Path(path), verify=verify)
    tokenizer_json = _read_files(Path(path), manifest, verify=verify)
    n_bytes += sum(entry["bytes"] for entry in manifest["files"].values())
    session = _open_session(Path(path), manifest, threads, prepack, providers)
    package = Package(manifest, n_bytes, *_open_tokenizer(tokenizer_json, manifest), session)
    if self_test:
        _self_test(package)
    return package


def read_manifest(folder: Path, *, verify: bool = True) -> tuple[dict[str, Any], int]:
    """Return the checked manifest of a package folder, and its size in bytes; opens no other file."""
    if not folder.is_dir():
        raise PackageError(f"package: {folder} is not a folder. Give the folder with {MANIFEST}; unpack a zip first.")
    raw = _read_plain_file(folder, MANIFEST)
    try:
        manifest = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"package: {MANIFEST} is not proper JSON: {error}. Rebuild the package.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PackageError(f"package: {MANIFEST} does not say format '{FORMAT}'. This folder is something else.")
    version: Any = manifest.get("format_version")
    _require(type(version) is int and version > 0, "format_version", version, "a whole number from 1")
    if version > FORMAT_VERSION:
        raise PackageError(f"package: format {version} is newer than this reader's {FORMAT_VERSION}. Update edge_demo.")
    if verify:
        seals = SEAL.findall(raw)
        if len(seals) != 1 or hashlib.sha256(raw.replace(seals[0], b"0" * 64)).hexdigest().encode() != seals[0]:
            raise PackageError(f"package: {MANIFEST} does not match its own sha256. It is damaged or was edited.")
    _check_fields(manifest)
    _check_paths(manifest)
    return manifest, len(raw)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Refused(f"it has {name!r} twice")
        found[name] = value
    return found


def _require(is_right: bool, name: str, got: object, expected: str) -> None:
    if not is_right:
        raise PackageError(f"package: {MANIFEST}: {name} is {str(got)[:80]!r}, expected {expected}. Rebuild it.")


def _is_list(value: object, *types: type) -> bool:
    return isinstance(value, list) and all(type(item) in types for item in value)


def _check_fields(manifest: dict[str, Any]) -> None:
    """Check every field that this reader uses; fields it does not know are left alone."""
    get: Callable[[str], Any] = manifest.get
    kind, labels, inputs, files, test = map(get, ("kind", "labels", "inputs", "files", "self_test"))
    for name, wanted in FIELDS.items():
        _require(type(get(name)) is wanted, name, get(name), f"of type {wanted.__name__}")
    _require(kind in ANSWERS, "kind", kind, f"one of {', '.join(ANSWERS)}")
    cut = get("truncation")  # left out by packages that cut on the right, as all of version 1 do
    _require("truncation" not in manifest or cut == "left", "truncation", cut, "'left', or left out")
    is_right = cut is None or manifest["format_version"] > 1
    _require(is_right, "format_version", 1, "2, because texts are cut on the left")
    _require(_is_list(labels, str) and len(set(labels)) == len(labels), "labels", labels, "a list of different names")
    fewest = FEWEST_LABELS.get(kind, 0)
    _require(len(labels) >= fewest if fewest else not labels, "labels", labels, f"those of {kind}")
    if kind == "multi_label":
        limits = get("thresholds")
        is_right = _is_list(limits, int, float) and len(limits) == len(labels) and all(0 <= x <= 1 for x in limits)
        _require(is_right, "thresholds", limits, "a number from 0 to 1 for each label")
    _require(_is_list(inputs, str) and set(inputs) <= set(INPUTS), "inputs", inputs, f"a list from {', '.join(INPUTS)}")
    for path, entry in files.items():
        is_right = isinstance(entry, dict) and type(entry.get("bytes")) is int and type(entry.get("sha256")) is str
        _require(is_right, f"files: {path!r}", entry, "bytes and sha256")
    cases, tolerance = test.get("cases"), test.get("tolerance")
    _require(_is_list([tolerance], int, float) and 0 < tolerance < 1e9, "tolerance", tolerance, "a number above 0")
    _require(_is_list(cases, dict) and len(cases) > 0, "self_test", test, "one case or more, or nothing is proved")
    for number, case in enumerate(cases, 1):
        texts = [case.get("text"), case.get("text_pair") if get("pair") else ""]
        is_right = _is_list(texts, str) and _is_list(case.get("ids"), int) and _is_list(case.get("output"), int, float)
        _require(is_right, f"self_test case {number}", case, "text, text_pair, ids and output")


def _check_paths(manifest: dict[str, Any]) -> None:
    seen = {MANIFEST: MANIFEST}
    for path in manifest["files"]:
        parts = re.split(r"[/\\]", path)
        if parts[0] == "" or ".." in parts or path[1:2] == ":":
            raise PackageError(f"package: the path {path!r} leaves the folder. Do not use this package.")
        if not all(PATH_PART.fullmatch(part) for part in path.split("/")):
            raise PackageError(f"package: the path {path!r} is not plain (letters, digits, . _ - between slashes).")
        if path.lower() in seen:
            raise PackageError(f"package: {path!r} and {seen[path.lower()]!r} are the same file twice. Rebuild it.")
        seen[path.lower()] = path
    for name in ("model", "tokenizer"):
        _require(manifest[name] in manifest["files"], name, manifest[name], "one of the files listed")


def _read_plain_file(folder: Path, path: str, n_bytes: int | None = None) -> bytes:
    """Return the bytes of a file that is really there: no link on the way to it, no pipe, no device."""
    place = folder
    try:
        for part in path.split("/"):
            place = place / part
            found = place.lstat()
            if stat.S_ISLNK(found.st_mode):
                raise PackageError(f"package: {path} is behind a symbolic link. Copy the real files (cp -rL).")
        if not stat.S_ISREG(found.st_mode):
            raise PackageError(f"package: {path} is not an ordinary file. Rebuild the package.")
        if n_bytes not in (None, found.st_size):
            raise PackageError(f"package: {path} has {found.st_size} bytes, expected {n_bytes}. Copy it again.")
        return place.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PackageError(f"package: {path} is missing from {folder}. Copy or rebuild the package.") from error
    except OSError as error:
        raise PackageError(f"package: {path} cannot be read ({error.strerror}). Check its permissions.") from error


def _read_files(folder: Path, manifest: dict[str, Any], *, verify: bool) -> bytes:
    """Compare every file with the manifest; return the bytes of the tokenizer."""
    tokenizer_json = b""
    for path, entry in manifest["files"].items():
        content = _read_plain_file(folder, path, entry["bytes"])
        if verify and hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise PackageError(f"package: {path} does not match its sha256. It is damaged or was edited; rebuild it.")
        if path == manifest["tokenizer"]:
            tokenizer_json = content
    for place in folder.rglob("*"):
        path = place.relative_to(folder).as_posix()
        if path not in {MANIFEST, *manifest["files"]} and (place.is_symlink() or not place.is_dir()):
            raise PackageError(f"package: {path} is not listed in the manifest. Remove it from the package.")
    return tokenizer_json


def _open_tokenizer(content: bytes, manifest: dict[str, Any]) -> tuple[tokenizers.Tokenizer, list[Any]]:
    """Return the tokenizer, and where its post-processor puts special tokens and texts (``Package._template``)."""
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        probe = tokenizer.encode("a", "a" if manifest["pair"] else None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may also panic, which is no Exception
        raise PackageError(f"package: {manifest['tokenizer']} does not load ({_line(error)}). Rebuild it.") from error
    which, limit = probe.sequence_ids, manifest["max_length"]
    _require(limit > which.count(None), "max_length", limit, f"more than {which.count(None)} tokens")
    slots = enumerate(zip(which, probe.ids, probe.type_ids, strict=True))
    return tokenizer, [slot for place, slot in slots if slot[0] is None or slot[0] not in which[:place]]


def _open_session(
    folder: Path, manifest: dict[str, Any], threads: int, prepack: bool, providers: list[str] | None
) -> Any:
    wanted = providers or ["CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong is raised; onnxruntime would print it as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
    try:
        # From the file: of bytes onnxruntime would keep a second copy.
        session = onnxruntime.InferenceSession(str(folder / manifest["model"]), options, providers=wanted)
    except Exception as error:  # onnxruntime has a dozen unrelated exception types
        raise PackageError(f"package: onnxruntime cannot load {manifest['model']} ({_line(error)}).") from error
    if session.get_providers()[: len(wanted)] != wanted:
        raise Refused(f"providers: asked for {', '.join(wanted)}, onnxruntime only has {session.get_providers()}.")
    inputs = {item.name: item.type for item in session.get_inputs()}
    expected = dict.fromkeys(manifest["inputs"], "tensor(int64)")
    _require(inputs == expected, "inputs", manifest["inputs"], f"those of the model: {inputs}")
    outputs = [item.name for item in session.get_outputs()]
    _require(manifest["output"] in outputs, "output", manifest["output"], f"one of the model's: {', '.join(outputs)}")
    _return_freed_memory()
    return session


def _return_freed_memory() -> None:
    """Give the system back what loading has freed, which glibc keeps: about the weights once more."""
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # Windows
        return
    if trim is not None:
        trim(0)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _self_test(package: Package) -> None:
    labels, tolerance = package.manifest["labels"], package.manifest["self_test"]["tolerance"]
    for number, case in enumerate(package.manifest["self_test"]["cases"], 1):
        where = f"package: self-test case {number} ({case['text'][:40]!r})"
        texts = case["text"], case.get("text_pair")
        try:
            ids, output, expected = package.encode(*texts), package._run(*texts), np.array(case["output"], np.float64)
        except (ValueError, OverflowError) as error:
            raise PackageError(f"{where} does not run: {error}") from error
        if ids != case["ids"]:
            raise PackageError(f"{where} gives other token ids. This tokenizers version or the tokenizer is wrong.")
        if output.shape != expected.shape or (labels and len(labels) != len(expected)):
            raise PackageError(f"{where} gives {output.shape} values, not {expected.shape}. The model is not this one.")
        largest = float(np.abs(output - expected).max(initial=0.0))
        if not largest <= tolerance:  # "not": a NaN is wrong too
            raise PackageError(f"{where} is off by {largest:.3g}, allowed {tolerance:g}. Do not trust it here.")
        if package.manifest["kind"] != "classification":
            continue
        # below the tolerance a lead is a tie, which another processor may break the other way
        if np.ptp(np.sort(expected)[-2:]) > tolerance and output.argmax() != expected.argmax():
            raise PackageError(f"{where} gives another label than {labels[expected.argmax()]!r}. Do not trust it here.")

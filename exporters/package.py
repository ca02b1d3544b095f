"""Write a package: the folder that a device opens, and one deterministic archive of it.

The layout is the one transformers.js reads (``config.json``, ``tokenizer.json``, ``tokenizer_config.json``,
``onnx/model_quantized.onnx``) plus a model card and ``manifest.json``, which says what the package is, how good it was
measured to be, which bytes belong to it, and what it must answer to a few texts. ``edge_demo/README.md`` is the
normative page; this writer and the reader in ``edge_demo`` share no code.

Nothing that changes from run to run goes in (no times, no latencies, no paths of this machine): the same inputs give
the same bytes. It refuses an output folder in use, tokenizer files with truncation or padding left on, and information
that its own self-test cases contradict. Needs numpy, tokenizers and onnxruntime for ``make_cases`` only.
"""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from exporters.head import load_head
from exporters.refused import Refused
from exporters.repetition import plain_config
from exporters.small.shape import known_config

FORMAT = "tenmeg-package"
FORMAT_VERSION = 1
LEFT_VERSION = 2  # where long texts are cut on the left: a reader of version 1 would cut them on the right
ARCHIVE_FOLDER = "package"  # what the archive unpacks into
ARCHIVE_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can say
NO_SEAL = "0" * 64


class SelfTestCase(NamedTuple):
    """One text with the token ids and the main output that every device must reproduce."""

    text: str
    text_pair: str | None
    ids: list[int]
    output: list[float]


@dataclass(frozen=True)
class PackageInfo:
    """What the caller knows of the package. ``Any`` in the mappings: they are JSON for people, read by no code."""

    kind: str  # of the task, a file in exporters/heads
    max_length: int  # tokens, special ones included
    inputs: tuple[str, ...]  # of the model: input_ids, attention_mask and, where the family has them, token_type_ids
    output: str  # the model's output that is the answer: probabilities, one value, or the sentence embedding
    labels: tuple[str, ...] = ()  # by id, of kinds whose answers have names
    chosen: Mapping[str, Any] = field(default_factory=dict)  # of the kind's own: {"thresholds": [0.5, ...]}
    truncation: str = "right"  # where a text that is too long loses tokens, or "left"
    pooling: Mapping[str, Any] | None = None  # {"mode": "mean", "normalize": true}; already inside the model
    quality: Mapping[str, Any] = field(default_factory=dict)  # metric, value, teacher, rows, data_sha256
    scheme: Mapping[str, Any] = field(default_factory=dict)  # name, and counts of what was quantised
    teacher: Mapping[str, Any] = field(default_factory=dict)  # name, revision, hashes
    inheritance: Sequence[Mapping[str, Any]] = ()  # per stage that made weights of the teacher's: its fold, certified
    recipe_sha256: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 0.02  # absolute, for outputs of the self-test on another processor


@dataclass(frozen=True)
class Manifest:
    """All of ``manifest.json``; ``dumps`` seals it."""

    task: str
    kind: str
    labels: list[str]
    pair: bool
    max_length: int
    inputs: list[str]
    output: str
    model: str
    tokenizer: str
    pooling: dict[str, Any] | None  # Any here and below: see PackageInfo
    files: dict[str, dict[str, int | str]]
    quality: dict[str, Any]
    scheme: dict[str, Any]
    teacher: dict[str, Any]
    inheritance: list[dict[str, Any]]
    recipe_sha256: str | None
    versions: dict[str, str]
    self_test: dict[str, Any]
    chosen: dict[str, Any]  # its entries, and that texts are cut on the left, stand beside the other fields
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    def dumps(self) -> str:
        """Return the text of ``manifest.json``, with the digest of that very text inside (see ``seal``)."""
        fields = asdict(self)
        text = json.dumps(fields.pop("chosen") | fields | {"manifest_sha256": NO_SEAL}, **JSON_STYLE)  # type: ignore[arg-type]
        # Lists of numbers on one line; a string cannot match, because JSON strings hold no raw newline.
        text = re.sub(r"\[\n\s+([-+.\deE,\s]+?)\n\s+\]", lambda found: f"[{' '.join(found.group(1).split())}]", text)
        return seal(text + "\n")


JSON_STYLE: dict[str, Any] = {"sort_keys": True, "indent": 2, "ensure_ascii": False, "allow_nan": False}


def seal(text: str) -> str:
    """Return the manifest's text with ``manifest_sha256`` set: sha256 of the text with 64 zeros in that place."""
    blank, n_found = re.subn(r'("manifest_sha256": ")[0-9a-f]{64}"', rf'\g<1>{NO_SEAL}"', text)
    if n_found != 1:
        raise Refused(f"package: expected one manifest_sha256 in the manifest, got {n_found}. Name no field so.")
    digest = hashlib.sha256(blank.encode("utf-8")).hexdigest()
    return blank.replace(f'"manifest_sha256": "{NO_SEAL}"', f'"manifest_sha256": "{digest}"')


def write_package(
    model_path: Path,
    tokenizer_dir: Path,
    config: Mapping[str, Any],  # Any: the Hugging Face config
    info: PackageInfo,
    cases: Sequence[SelfTestCase],
    card: str,
    out_dir: Path,
) -> Path:
    """Write the package folder ``out_dir`` and return it; it appears complete or not at all.

    Raises:
        FileExistsError: if ``out_dir`` is already in use.
        FileNotFoundError: if the model or a tokenizer file is missing.
        ValueError: if the parts contradict each other.
    """
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise FileExistsError(f"package: {out_dir} exists and is not empty. Choose another --output or delete it.")
    pair = _check(info, cases)
    model = "onnx/model.onnx" if info.scheme.get("name") == "none" else "onnx/model_quantized.onnx"
    known = known_config(plain_config(config))
    contents = {
        model: _read(model_path),
        "tokenizer.json": _tokenizer_json(tokenizer_dir),
        "tokenizer_config.json": _read(tokenizer_dir / "tokenizer_config.json"),
        # _name_or_path is where the checkpoint lay on the machine that made it. Layers that repeat do so in the graph:
        # its readers need the plain architecture, which is the one they know.
        "config.json": _dump({key: value for key, value in known.items() if key != "_name_or_path"}),
        "README.md": card.encode("utf-8"),
    }
    manifest = _manifest(info, cases, pair, model, contents)
    contents["manifest.json"] = manifest.dumps().encode("utf-8")
    temporary = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    for path, content in contents.items():
        (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        (temporary / path).write_bytes(content)
    if out_dir.exists():
        out_dir.rmdir()
    temporary.rename(out_dir)
    return out_dir


def _manifest(
    info: PackageInfo, cases: Sequence[SelfTestCase], pair: bool, model: str, contents: Mapping[str, bytes]
) -> Manifest:
    head = load_head(info.kind)
    files: dict[str, dict[str, int | str]] = {
        path: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in contents.items()
    }
    return Manifest(
        task=head.task,
        kind=head.read_as or info.kind,
        labels=list(info.labels),
        pair=pair,
        max_length=info.max_length,
        inputs=list(info.inputs),
        output=info.output,
        model=model,
        tokenizer="tokenizer.json",
        pooling=dict(info.pooling) if info.pooling else None,
        files=files,
        quality=dict(info.quality),
        scheme=dict(info.scheme),
        teacher=dict(info.teacher),
        inheritance=[dict(each) for each in info.inheritance],
        recipe_sha256=info.recipe_sha256,
        versions=dict(info.versions),
        self_test={
            "tolerance": info.tolerance,
            # six decimals are far below any tolerance, and half the bytes
            "cases": [case._asdict() | {"output": [round(float(x), 6) for x in case.output]} for case in cases],
        },
        chosen=dict(info.chosen) | ({} if info.truncation == "right" else {"truncation": info.truncation}),
        format_version=FORMAT_VERSION if info.truncation == "right" else LEFT_VERSION,
    )


def _check(info: PackageInfo, cases: Sequence[SelfTestCase]) -> bool:
    """Check that the cases are those of such a package; return whether it takes two texts."""
    n_labels, n_values = len(info.labels), {len(case.output) for case in cases}
    head = load_head(info.kind)
    if n_labels < head.fewest_labels or len(set(info.labels)) < n_labels or (n_labels and not head.fewest_labels):
        wants = f"{head.fewest_labels} or more different ones" if head.fewest_labels else "none"
        raise Refused(f"package: a {info.kind} package has labels {list(info.labels)}, expected {wants}.")
    if not cases:
        raise Refused("package: no self-test cases given. Give at least one text, or no device can check itself.")
    wanted = head.n_values or n_labels  # 0: as many as it likes
    expected = {wanted} if wanted else n_values
    if n_values != expected or len(n_values) != 1:
        raise Refused(f"package: the self-test outputs have {sorted(n_values)} values, expected {sorted(expected)}.")
    takes_pair = {case.text_pair is not None for case in cases}
    if len(takes_pair) != 1:
        raise Refused("package: some self-test cases have a second text and some have none. Use one kind.")
    if not 1e-5 <= info.tolerance < float("inf"):
        raise Refused(f"package: the self-test tolerance is {info.tolerance}, expected 0.00001 or more.")
    return takes_pair.pop()


def _tokenizer_json(tokenizer_dir: Path) -> bytes:
    content = _read(tokenizer_dir / "tokenizer.json")
    tokenizer = json.loads(content)
    left_on = [name for name in ("truncation", "padding") if tokenizer.get(name) is not None]
    if left_on:
        raise Refused(
            f"package: {tokenizer_dir / 'tokenizer.json'} has {' and '.join(left_on)} on, expected null. "
            "The runtime truncates to max_length by itself; save the tokenizer with it off."
        )
    return content


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"package: {path} does not exist. Export and quantise the model first.")
    return path.read_bytes()


def _dump(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, **JSON_STYLE) + "\n").encode("utf-8")


def make_cases(
    model_path: Path, tokenizer_dir: Path, info: PackageInfo, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> list[SelfTestCase]:
    """Run the model on ``texts`` (with ``pairs``) and return what it answered, as self-test cases."""
    import tokenizers  # here, because writing a package needs no runtime

    from exporters.measuring.answers import asker

    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    ask = asker(model_path, tokenizer, info.max_length, info.inputs, info.output, info.truncation)
    seconds: Sequence[str | None] = pairs or [None] * len(texts)
    cases = []
    for text, pair in zip(texts, seconds, strict=True):
        ids, output = ask(text, pair)
        cases.append(SelfTestCase(text, pair, ids, [float(value) for value in output]))
    return cases


def write_archive(package_dir: Path, zip_path: Path) -> Path:
    """Write the package as a zip whose bytes depend on nothing but the package; it unpacks into ``package/``."""
    paths = {path.relative_to(package_dir).as_posix(): path for path in package_dir.rglob("*") if path.is_file()}
    temporary = zip_path.with_name(f".{zip_path.name}.partial")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in sorted(paths.items()):
            entry = zipfile.ZipInfo(f"{ARCHIVE_FOLDER}/{name}", ARCHIVE_DATE)
            entry.create_system = 3  # Unix, whatever wrote it
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes(), compresslevel=9)
    temporary.replace(zip_path)
    return zip_path


def package_bytes(package_dir: Path) -> int:
    """Return the bytes of the whole package: every file in the folder."""
    return sum(path.stat().st_size for path in package_dir.rglob("*") if path.is_file())

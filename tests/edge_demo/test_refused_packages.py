"""What is not exactly a package is refused, each case with its own sentence, and never with another exception."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_demo import runtime
from exporters.package import NO_SEAL, seal
from tests.golden.make import build_package

MODEL, TOKENIZER = "onnx/model_quantized.onnx", "tokenizer.json"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="session")
def intact(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("intact")
    return build_package("classification", root / "package", root / "work")


@pytest.fixture
def package(intact, tmp_path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "package"))


def read(package: Path) -> dict[str, Any]:
    return json.loads((package / "manifest.json").read_text(encoding="utf-8"))


def write(package: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose own sha256 is right, so that only what the test changed is wrong."""
    text = json.dumps(manifest | {"manifest_sha256": NO_SEAL})
    (package / "manifest.json").write_text(seal(text), encoding="utf-8")


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A change of the manifest, sealed again."""

    def act(package: Path) -> None:
        manifest = read(package)
        change(manifest)
        write(package, manifest)

    return act


def listed(package: Path, path: str, content: bytes) -> None:
    """Put a file into the package and into its manifest."""
    (package / path).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edited(lambda manifest: manifest["files"].update({path: entry}))(package)


def put(key: str, value: object) -> Callable[[Path], None]:
    return edited(lambda manifest: manifest.update({key: value}))


def put_case(key: str, value: object) -> Callable[[Path], None]:
    return edited(lambda manifest: manifest["self_test"]["cases"][0].update({key: value}))


def also_listed(path: str) -> Callable[[Path], None]:
    return edited(lambda manifest: manifest["files"].update({path: manifest["files"]["config.json"]}))


def flip(path: str, place: int = 40) -> Callable[[Path], None]:
    def act(package: Path) -> None:
        content = bytearray((package / path).read_bytes())
        content[place] ^= 1
        (package / path).write_bytes(content)

    return act


def linked(path: str, target: str) -> Callable[[Path], None]:
    def act(package: Path) -> None:
        outside = package.parent / "outside"
        shutil.move(package / path, outside)
        (package / path).symlink_to(target.format(outside=outside))

    return act


def duplicate_key(package: Path) -> None:
    text = (package / "manifest.json").read_text(encoding="utf-8")
    (package / "manifest.json").write_text(text.replace('"kind":', '"kind": "regression", "kind":'), encoding="utf-8")


def model_reads_outside(package: Path) -> None:
    """A model whose weights lie in a file outside the package."""
    model = onnx.load(package / MODEL)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "words_scale")
    (package.parent / "weights").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../weights")
    listed(package, MODEL, model.SerializeToString())


def pipe(package: Path) -> None:
    (package / "README.md").unlink()
    os.mkfifo(package / "README.md")


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"is not a folder"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), r"manifest\.json is missing from"),
    "missing file": (lambda p: (p / "config.json").unlink(), r"config\.json is missing from"),
    "missing folder": (lambda p: shutil.rmtree(p / "onnx"), r"onnx/model_quantized\.onnx is missing from"),
    "not JSON": (lambda p: (p / "manifest.json").write_text("{"), r"is not proper JSON: Expecting"),
    "not UTF-8": (lambda p: (p / "manifest.json").write_bytes(b'"\xff"'), r"is not proper JSON: 'utf-8'"),
    "too deep": (lambda p: (p / "manifest.json").write_text("[" * 10**5), r"is not proper JSON: maximum recursion"),
    "duplicate key": (duplicate_key, r"it has 'kind' twice"),
    "something else": (put("format", "zip"), r"does not say format 'tenmeg-package'"),
    "a list": (lambda p: (p / "manifest.json").write_text("[]"), r"does not say format 'tenmeg-package'"),
    "newer format": (put("format_version", 3), r"format 3 is newer than this reader's 2\. Update"),
    "no version": (put("format_version", "1"), r"format_version is '1', expected a whole number"),
    "edited manifest": (flip("manifest.json", 20), r"manifest\.json does not match its own sha256"),
    "flipped model byte": (flip(MODEL), r"model_quantized\.onnx does not match its sha256"),
    "flipped card byte": (flip("README.md"), r"README\.md does not match its sha256"),
    "longer file": (lambda p: (p / "config.json").write_text("{}"), r"config\.json has 2 bytes, expected \d+"),
    "absolute path": (also_listed("/etc/passwd"), r"'/etc/passwd' leaves"),
    "path upwards": (also_listed("onnx/../../x"), r"'onnx/\.\./\.\./x' leaves the folder"),
    "windows path": (also_listed("C:/x"), r"'C:/x' leaves the folder"),
    "backslashes": (also_listed("..\\x"), r"'\.\.\\\\x' leaves the folder"),
    "path with a dot": (also_listed("./config.json"), r"'\./config\.json' is not plain"),
    "double slash": (also_listed("onnx//x"), r"'onnx//x' is not plain"),
    "not ASCII": (also_listed("cafe\u0301"), r"'cafe\u0301' is not plain"),
    "same file by case": (also_listed("Config.JSON"), r"'Config\.JSON' and 'config\.json' are the same file twice"),
    "lists itself": (also_listed("manifest.json"), r"'manifest\.json' and 'manifest\.json' are the same file twice"),
    "unlisted file": (lambda p: (p / "onnx" / "extra.bin").write_text("x"), r"onnx/extra\.bin is not listed"),
    "unlisted hidden file": (lambda p: (p / ".DS_Store").write_text("x"), r"\.DS_Store is not listed"),
    "unlisted link": (lambda p: (p / "more").symlink_to("/tmp"), r"more is not listed"),
    "link outside": (linked("config.json", "{outside}"), r"config\.json is behind a symbolic link"),
    "folder link outside": (linked("onnx", "../outside"), r"onnx/model_quantized\.onnx is behind a symbolic link"),
    "manifest link": (linked("manifest.json", "{outside}"), r"manifest\.json is behind a symbolic link"),
    "pipe": (pipe, r"README\.md is not an ordinary file"),
    "unknown kind": (put("kind", "translation"), r"kind is 'translation', expected one of classification"),
    "missing key": (edited(lambda m: m.pop("max_length")), r"max_length is 'None', expected of type int"),
    "one label": (put("labels", ["only"]), r"labels is .*, expected those of classification"),
    "equal labels": (put("labels", ["a", "a"]), r"labels is .*, expected a list of different names"),
    "unknown input": (put("inputs", ["pixels"]), r"inputs is .*, expected a list from input_ids"),
    "file entry": (edited(lambda m: m["files"].update(x={})), r"files: 'x' is '\{\}', expected bytes and sha256"),
    "model not listed": (put("model", "other.onnx"), r"model is 'other\.onnx', expected one of the files listed"),
    "no tolerance": (edited(lambda m: m["self_test"].update(tolerance=0)), r"tolerance is '0', expected a number"),
    "no cases": (edited(lambda m: m["self_test"].update(cases=[])), r"expected one case or more"),
    "case without ids": (put_case("ids", "x"), r"self_test case 1 is .*, expected text, text_pair, ids and output"),
    "short limit": (put("max_length", 2), r"max_length is '2', expected more than 2 tokens"),
    "no model": (lambda p: listed(p, MODEL, b"not a model"), r"onnxruntime cannot load .*INVALID_PROTOBUF"),
    "weights outside": (model_reads_outside, r"onnxruntime cannot load .*External data path"),
    "no tokenizer": (lambda p: listed(p, TOKENIZER, b"{}"), r"tokenizer\.json does not load"),
    "other inputs": (put("inputs", ["input_ids"]), r"inputs is .*, expected those of the model"),
    "other output": (put("output", "answer"), r"output is 'answer', expected one of the model's: probabilities"),
    "wrong ids": (put_case("ids", [2, 9, 3]), r"case 1 \('A good film!'\) gives other token ids"),
    "wrong output": (put_case("output", [0.1, 0.9]), r"case 1 \('A good film!'\) is off by 0\.08\d*, allowed 0\.005"),
    "swapped output": (put_case("output", [0.98, 0.02]), r"is off by 0\.96"),
    "wrong width": (put_case("output", [0.2, 0.3, 0.5]), r"gives \(2,\) values, not \(3,\)"),
    "third label": (put("labels", ["a", "b", "c"]), r"gives \(2,\) values, not \(2,\)"),
    "not a number": (put_case("output", [float("nan"), 0.5]), r"is off by nan"),
    "wrong pair": (put_case("text_pair", "b"), r"does not run: text: this package takes one text"),
    "invalid text": (put_case("text", "\ud800"), r"does not run: text: expected a string of valid Unicode"),
}


def refusal(package: Path) -> str:
    with pytest.raises(runtime.PackageError) as caught:
        runtime.load(package)
    return str(caught.value)


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_with_its_own_sentence(name, package, capfd):
    act, match = REFUSALS[name]
    act(package)
    sentence = refusal(package)
    assert re.search(match, sentence)
    assert sentence.startswith("package: ") and "\n" not in sentence
    others = {other for _, other in REFUSALS.values() if other != match}
    assert [other for other in others if re.search(other, sentence)] == []
    assert capfd.readouterr().err == ""


def test_an_archive_is_answered_with_what_to_do(tmp_path):
    (tmp_path / "package.zip").write_bytes(b"PK")
    assert "unpack a zip first" in refusal(tmp_path / "package.zip")


def test_another_label_is_refused_even_within_the_tolerance(package):
    edited(lambda m: m["self_test"].update(tolerance=0.97))(package)
    put_case("output", [0.987, 0.013])(package)
    assert "gives another label than 'negative'" in refusal(package)


def test_a_tie_may_be_broken_either_way(package):
    edited(lambda m: m["self_test"]["cases"][2].update(output=[0.501, 0.499]))(package)
    assert runtime.load(package).predict("").score == pytest.approx(0.5)


def test_token_ids_beyond_the_table_are_refused_not_crashed_on(package, capfd):
    content = (package / TOKENIZER).read_text(encoding="utf-8")
    ids = re.search(r'"good":(\d+)', content)
    listed(package, TOKENIZER, content.replace(ids.group(0), '"good":9999').encode())
    assert "self-test case 1 ('A good film!') does not run" in refusal(package)
    reader = runtime.load(package, self_test=False)
    with pytest.raises(runtime.PackageError, match="cannot run on this text"):
        reader.predict("good")
    assert capfd.readouterr().err == ""


def test_hashes_and_cases_are_skipped_when_told_so(package):
    put_case("ids", [2, 9, 3])(package)
    flip("manifest.json", -10)(package)
    flip("README.md")(package)
    assert runtime.load(package, verify=False, self_test=False).predict("good").label == "positive"


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_flipped_byte_anywhere_is_refused(intact, tmp_path_factory, data):
    copy = tmp_path_factory.getbasetemp() / "flipped"
    if not copy.exists():
        shutil.copytree(intact, copy)
    path = data.draw(st.sampled_from(sorted(path for path in copy.rglob("*") if path.is_file())))
    content = path.read_bytes()
    place, mask = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    path.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
    try:
        refusal(copy)
    finally:
        path.write_bytes(content)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_anywhere_in_the_manifest_is_accepted_or_refused(intact, tmp_path_factory, data):
    copy = tmp_path_factory.getbasetemp() / "changed"
    if not copy.exists():
        shutil.copytree(intact, copy)
    manifest = read(intact)
    node: Any = manifest
    while True:
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        if not (isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans())):
            break
        node = node[key]
    node[key] = data.draw(JSON_VALUES)
    write(copy, manifest)
    try:
        runtime.load(copy)
    except runtime.PackageError as error:
        assert str(error).startswith("package: ")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from([MODEL, TOKENIZER]), start=st.integers(0, 3000), junk=st.binary(max_size=40))
def test_any_model_and_tokenizer_are_accepted_or_refused(intact, tmp_path_factory, path, start, junk):
    copy = tmp_path_factory.getbasetemp() / "junk"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(intact, copy)
    content = (copy / path).read_bytes()
    listed(copy, path, content[:start] + junk + content[start + len(junk) :])
    try:
        runtime.load(copy)
    except runtime.PackageError as error:
        assert str(error).startswith("package: ")

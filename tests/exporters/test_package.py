"""The writer: deterministic bytes, nothing of this machine, and no package that contradicts itself."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edge_demo import runtime
from exporters.package import PackageInfo, SelfTestCase, make_cases, package_bytes, seal, write_archive, write_package
from tests.golden.make import KINDS, PAIRS, TEXTS, build_package, write_parts

ROOT = Path(__file__).parents[2]
CASE = SelfTestCase("good", None, [2, 97, 3], [0.1, 0.9])
LAYOUT = ["README.md", "config.json", "manifest.json", "onnx", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> tuple[Path, PackageInfo]:
    """A folder with model.onnx and the tokenizer, and what a package of them says."""
    work_dir = tmp_path_factory.mktemp("parts")
    return work_dir, write_parts("classification", work_dir)


def written(work: tuple[Path, PackageInfo], out_dir: Path, info: PackageInfo | None = None, cases=None) -> Path:
    work_dir, own_info = work
    info = info or own_info
    cases = make_cases(work_dir / "model.onnx", work_dir, own_info, TEXTS) if cases is None else cases
    config = {"model_type": "bert", "_name_or_path": str(work_dir)}
    return write_package(work_dir / "model.onnx", work_dir, config, info, cases, "# A card\n", out_dir)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_layout_is_the_one_transformers_js_reads(work, tmp_path):
    out_dir = written(work, tmp_path / "out")
    assert sorted(path.name for path in out_dir.iterdir()) == LAYOUT
    assert [path.name for path in (out_dir / "onnx").iterdir()] == ["model_quantized.onnx"]
    plain = written(work, tmp_path / "plain", replace(work[1], scheme={"name": "none"}))
    assert [path.name for path in (plain / "onnx").iterdir()] == ["model.onnx"]
    assert runtime.load(plain).predict("good").label == "positive"


@pytest.mark.parametrize("kind", KINDS.values())
def test_same_inputs_give_the_same_bytes(kind, tmp_path):
    first, second = (build_package(kind, tmp_path / name / "p", tmp_path / name / "w") for name in ("a", "b"))
    assert contents(first) == contents(second)


def test_nothing_of_this_machine_is_inside(work, tmp_path):
    everything = b"".join(contents(written(work, tmp_path / "out")).values())
    for secret in (str(work[0]), str(tmp_path), str(Path.home()), "_name_or_path"):
        assert secret.encode() not in everything


def test_manifest_lists_every_byte(work, tmp_path):
    out_dir = written(work, tmp_path / "out")
    files = json.loads((out_dir / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert {path: entry["bytes"] for path, entry in files.items()} == {
        path: len(content) for path, content in contents(out_dir).items() if path != "manifest.json"
    }
    assert package_bytes(out_dir) == sum(map(len, contents(out_dir).values()))


def test_every_key_of_the_manifest_is_on_the_format_page(work, tmp_path):
    page = (ROOT / "edge_demo" / "README.md").read_text(encoding="utf-8")
    manifest = json.loads((written(work, tmp_path / "out") / "manifest.json").read_text(encoding="utf-8"))
    assert [key for key in manifest if not re.search(rf"\b{key}\b", page)] == []


def test_manifest_keeps_a_list_of_numbers_on_one_line(work, tmp_path):
    text = (written(work, tmp_path / "out") / "manifest.json").read_text(encoding="utf-8")
    assert '"ids": [2, 3],' in text and text.endswith("}\n")


def test_a_label_that_looks_like_the_seal_does_no_harm(work, tmp_path):
    labels = (f'"manifest_sha256": "{"0" * 64}"', "[\n  1\n]")
    package = runtime.load(written(work, tmp_path / "out", replace(work[1], labels=labels)))
    assert tuple(package.manifest["labels"]) == labels


def test_seal_wants_exactly_one_place():
    with pytest.raises(ValueError, match="expected one manifest_sha256 in the manifest, got 0"):
        seal("{}")


def test_cases_are_what_the_runtime_answers(tmp_path):
    info = write_parts("regression", tmp_path)
    cases = make_cases(tmp_path / "model.onnx", tmp_path, info, TEXTS, PAIRS)
    out_dir = write_package(tmp_path / "model.onnx", tmp_path, {}, info, cases, "", tmp_path / "out")
    package = runtime.load(out_dir)
    for case in cases:
        assert package.encode(case.text, case.text_pair) == case.ids
        assert package.predict(case.text, case.text_pair).value == pytest.approx(case.output[0], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "cases", "match"),
    [
        ({"kind": "translation"}, [CASE], "kind of task 'translation' is not known, expected one of"),
        ({"labels": ("a",)}, [CASE], r"labels \['a'\], expected 2 or more different ones"),
        ({"labels": ("a", "a")}, [CASE], "expected 2 or more different ones"),
        ({"kind": "regression"}, [CASE], r"a regression package has labels .*, expected none"),
        ({}, [], "no self-test cases given"),
        ({}, [CASE._replace(output=[1.0])], r"outputs have \[1\] values, expected \[2\]"),
        ({"kind": "regression", "labels": ()}, [CASE], r"outputs have \[2\] values, expected \[1\]"),
        ({"kind": "embedding", "labels": ()}, [CASE, CASE._replace(output=[1.0])], r"have \[1, 2\] values"),
        ({}, [CASE, CASE._replace(text_pair="b")], "some self-test cases have a second text and some have none"),
        ({"tolerance": 0.0}, [CASE], r"tolerance is 0\.0, expected 0\.00001 or more"),
        ({"quality": {"value": float("nan")}}, [CASE], "not JSON compliant"),
        ({"quality": {"manifest_sha256": "0" * 64}}, [CASE], "expected one manifest_sha256"),
    ],
)
def test_contradictions_are_refused_and_nothing_is_written(work, tmp_path, change, cases, match):
    with pytest.raises(ValueError, match=match):
        written(work, tmp_path / "out", replace(work[1], **change), cases)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_named(work, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.onnx does not exist"):
        write_package(tmp_path / "no.onnx", work[0], {}, work[1], [CASE], "", tmp_path / "out")


def test_a_tokenizer_with_truncation_left_on_is_refused(work, tmp_path):
    shutil.copytree(work[0], tmp_path / "parts")
    path = tmp_path / "parts" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json has truncation on, expected null"):
        written((tmp_path / "parts", work[1]), tmp_path / "out", cases=[CASE])


def test_a_folder_in_use_is_never_overwritten(work, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        written(work, tmp_path / "out")
    assert contents(tmp_path / "out") == {"thesis.txt": b"mine"}


def test_leftovers_of_a_killed_run_do_no_harm(work, tmp_path):
    (tmp_path / ".out.partial" / "onnx").mkdir(parents=True)
    (tmp_path / ".out.partial" / "onnx" / "half.onnx").write_text("", encoding="utf-8")
    (tmp_path / "out").mkdir()
    runtime.load(written(work, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_archive_bytes_depend_on_the_package_alone(work, tmp_path):
    first = write_archive(written(work, tmp_path / "a" / "out"), tmp_path / "first.zip")
    other = written(work, tmp_path / "b" / "other")
    for path in other.rglob("*"):
        path.chmod(0o700)
    (other / "config.json").touch()
    assert write_archive(other, tmp_path / "second.zip").read_bytes() == first.read_bytes()


def test_archive_unpacks_into_a_package_that_opens(work, tmp_path):
    out_dir = written(work, tmp_path / "out")
    with zipfile.ZipFile(write_archive(out_dir, tmp_path / "x.zip")) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        archive.extractall(tmp_path / "unpacked")
    assert contents(tmp_path / "unpacked" / "package") == contents(out_dir)
    runtime.load(tmp_path / "unpacked" / "package")


def test_writing_a_package_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'onnx', 'onnxruntime', 'numpy', 'tokenizers'}"
    code = f"import sys, exporters.package; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "[]\n"

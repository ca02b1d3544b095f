"""A tokenizer that loses the beginning of a long text does so from the teacher to the package."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from compressor.cli import main
from edge_demo import runtime
from exporters.package import seal
from tests.models.sentence_folders import LONG, edit_json

TURN = "such a dull tedious clumsy awful film is what this was at the start , then the ending was wonderful and clever"
TEXTS = [LONG, TURN, "a film"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("left") / "teacher"
    shutil.copytree(tiny_teacher_dir, folder)
    edit_json(folder / "tokenizer_config.json", truncation_side="left", model_max_length=12)
    return folder


def answers(folder: Path, texts: list[str]) -> Any:
    """What transformers answers, one text at a time."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        found = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0] for text in texts]
    return torch.stack(found).softmax(-1).numpy()


def tenmeg(*words: Any) -> None:
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr


@pytest.fixture(scope="module")
def package(teacher: Path) -> Path:
    out = teacher.with_name("package")
    tenmeg("export", teacher, "--output", teacher.with_name("export"), "--quantize", "none")
    tenmeg("package", teacher.with_name("export"), "--output", out)
    return out


def test_the_package_answers_as_transformers(teacher: Path, package: Path) -> None:
    opened = runtime.load(package)
    assert (opened.manifest["format_version"], opened.manifest["truncation"]) == (2, "left")
    assert np.abs(opened.outputs(TEXTS) - answers(teacher, TEXTS)).max() <= 1e-4
    saved = json.loads((package / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["truncation_side"] == "left"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": 1}, r"format_version is '1', expected 2, because texts are cut on the left"),
        ({"truncation": "middle"}, r"truncation is 'middle', expected 'left', or left out"),
    ],
)
def test_a_manifest_that_old_readers_would_misread_is_refused(
    package: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    shutil.copytree(package, tmp_path / "package")
    path = tmp_path / "package" / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(seal(json.dumps(content, indent=2, sort_keys=True)), encoding="utf-8")
    with pytest.raises(runtime.PackageError, match=says):
        runtime.load(tmp_path / "package")


@pytest.mark.slow
def test_a_run_cuts_student_and_package_on_the_left(teacher: Path, tiny_rows: Any, tmp_path: Path) -> None:
    rows = ("--train", tiny_rows.train, "--eval", tiny_rows.dev, "--max-size", "90kB", "--epochs", "1")
    tenmeg("compress", "--teacher", teacher, *rows, "--no-baselines", "--output", tmp_path / "out")
    manifest = runtime.load(tmp_path / "out" / "package").manifest
    assert (manifest["format_version"], manifest["truncation"], manifest["max_length"]) == (2, "left", 12)
    [student] = (tmp_path / "out" / "steps").glob("train-*/model")
    said = json.loads((student / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert said["truncation_side"] == "left"
    package = runtime.load(tmp_path / "out" / "package")
    assert np.abs(package.outputs(TEXTS) - answers(student, TEXTS)).max() < 0.1  # int8

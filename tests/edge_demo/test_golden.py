"""The golden packages are promises: released once, opened by every later reader for ever."""

import json
from pathlib import Path

import pytest

from edge_demo import runtime
from exporters.package import package_bytes
from tests.golden.make import KINDS, build_package

GOLDEN_DIR = Path(__file__).parents[1] / "golden"
SEALS = {  # new ones only for a new format version
    "sentiment": "c8655e7f61adcc86bb6cc553de50debb8d23533db3337f0d6dea7daf283aa751",
    "similarity": "0e18fd22a7523ffdb495eb4fda1bcd2daea74a8ab1eb9989a167db89a53ddc46",
    "sentences": "5355cdf29906cd0c7a5e003777902b1c0387b9c0ea660c0f1078864789545190",
}


@pytest.mark.parametrize("name", KINDS)
def test_golden_package_loads_and_proves_itself(name):
    package = runtime.load(GOLDEN_DIR / name)
    assert (package.manifest["format_version"], package.manifest["kind"]) == (1, KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_golden_package_is_the_one_that_was_released(name):
    assert runtime.load(GOLDEN_DIR / name).manifest["manifest_sha256"] == SEALS[name]


def test_golden_packages_answer():
    sentiment = runtime.load(GOLDEN_DIR / "sentiment")
    assert [sentiment.predict(text).label for text in ("A lovely film.", "it was DULL")] == ["positive", "negative"]
    similarity = runtime.load(GOLDEN_DIR / "similarity")
    same, other = (similarity.predict("a warm story", text).value for text in ("a warm story", "boring plot"))
    assert same == pytest.approx(5, abs=1e-3) and other < 3
    assert runtime.load(GOLDEN_DIR / "sentences").predict("a warm story").embedding.shape == (8,)


def test_golden_packages_are_small():
    assert sum(package_bytes(GOLDEN_DIR / name) for name in KINDS) <= 60_000


@pytest.mark.parametrize("name", KINDS)
def test_the_documented_command_makes_the_same_answers_today(name, tmp_path):
    """Same ids and outputs, not the same bytes: onnx and tokenizers may write their files differently one day."""
    remade = build_package(KINDS[name], tmp_path / "package", tmp_path / "work")
    ours, golden = (
        json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["self_test"]["cases"]
        for folder in (remade, GOLDEN_DIR / name)
    )
    for mine, theirs in zip(ours, golden, strict=True):
        assert mine["ids"] == theirs["ids"]
        assert mine["output"] == pytest.approx(theirs["output"], abs=1e-4)

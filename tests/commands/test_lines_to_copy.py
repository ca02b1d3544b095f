"""The commands that are shown to go on with run as they stand, wherever the folders lie."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from compressor.cli import main
from compressor.run.compress import Outcome
from tests.support.tiny import TinyRows

ROOT = Path(__file__).parents[2]
AWKWARD = "my model [v2] & $HOME's (copy)"


def call(*words: str | Path) -> list[str]:
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.stderr
    return done.stdout.splitlines()


def shown(lines: list[str], name: str) -> str:
    (line,) = (line for line in lines if line.startswith(name))
    return line.removeprefix(name).strip()


def run(line: str) -> str:
    """Let a shell run the line, as a person does who copies it; the name of the interpreter is this one's."""
    assert line.startswith(("python -m ", "tenmeg "))
    line = line.replace("python ", f"{sys.executable} ", 1) if line.startswith("python") else line
    line = line.replace("tenmeg ", f"{sys.executable} -m tenmeg ", 1) if line.startswith("tenmeg") else line
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


@pytest.mark.skipif(os.name != "posix", reason="quoted for a POSIX shell")
def test_export_leads_to_a_package_and_that_to_an_answer(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    model, out = tmp_path / AWKWARD, tmp_path / f"out of {AWKWARD}"
    shutil.copytree(tiny_teacher_dir, model)
    line = shown(call("export", model, "--output", out, "--quantize", "none"), "next: ")
    package = tmp_path / f"package of {AWKWARD}"
    assert line.endswith(" PACKAGE")
    answer = shown(run(line.removesuffix("PACKAGE") + shlex.quote(str(package))).splitlines(), "next: ")
    assert "bytes" in run(answer)


def test_a_plan_leads_to_its_run(tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path) -> None:
    out = tmp_path / AWKWARD
    flags = ("--teacher", tiny_teacher_dir, "--train", tiny_rows.train, "--max-size", "90kB", "--dry-run")
    line = shown(call("compress", *flags, "--output", out), "next: ")
    assert shlex.split(line) == ["tenmeg", "run", str(out / "recipe.toml"), "--output", str(out)]


@pytest.mark.parametrize("pair", [False, True])
def test_a_run_ends_with_lines_that_run(pair: bool, tmp_path: Path) -> None:
    package = tmp_path / AWKWARD
    shutil.copytree(ROOT / "tests" / "golden" / ("similarity" if pair else "sentiment"), package)
    scores = {"f1": 0.5}
    report = {
        "task": {"metric": "f1", "pair": pair}, "metrics": {"package": scores, "teacher": scores}, "student": "",
        "latency": {"p50": 1.0, "p95": 1.0, "threads": 1}, "size": {"total": 1}, "baselines": [], "verdict": [],
        "vocabulary": {"newly_unknown_words": 0, "identical_words": 1.0}, "inheritance": [],
    }  # fmt: skip
    lines = Outcome(package, package, tmp_path / "report.json", report, []).lines()
    assert "bytes" in run(shown(lines, "try"))
    verify = shlex.split(shown(lines, "verify"))
    assert verify == ["tenmeg", "verify", str(package), "--eval", "FILE", "--json"]


def test_a_packaged_pair_is_asked_with_two_texts(tmp_path: Path) -> None:
    finished = tmp_path / "run" / "steps" / "package" / "package"
    shutil.copytree(ROOT / "tests" / "golden" / "similarity", finished)
    line = shown(call("package", tmp_path / "run", "--output", tmp_path / "two texts"), "next: ")
    assert shlex.split(line)[-4:] == [str(tmp_path / "two texts"), "some text", "--pair", "another"]
    assert "bytes" in run(line)

"""Every bad input of the table is answered with one sentence and the promised exit code, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bad_inputs import ROOT, answer, as_markdown, contents, shown
from benchmarks.faults import bad_files
from benchmarks.faults.bad_cases import CASES
from benchmarks.kill_and_resume import environment
from benchmarks.support.tiny import Tiny, make_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_before(tiny) -> dict[str, bytes]:
    return contents(tiny.teacher.parent)


def as_parameter(case):
    return pytest.param(case, id=f"{case.group}: {case.name}", marks=[pytest.mark.slow] if case.own_process else [])


@pytest.mark.parametrize("case", list(map(as_parameter, CASES)))
def test_answered_with_one_sentence_and_nothing_left(case, tiny, tiny_before, tmp_path):
    assert answer(case, tiny, tmp_path).problems == []
    assert contents(tiny.teacher.parent) == tiny_before, "the good inputs were changed"


def test_the_names_of_the_cases_are_different():
    names = [(case.group, case.name) for case in CASES]
    assert len(set(names)) == len(names) >= 100


def test_the_document_holds_every_case():
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    missing = [case.name for case in CASES if f"| {case.name} | {case.code} |" not in text]
    assert missing == [], "run python -m benchmarks.bad_inputs"
    assert "/tmp/" not in text


def test_what_is_shown_holds_no_path_of_this_machine(tiny, tmp_path):
    text = f"{tmp_path}/out and {tmp_path}/rows.tsv and {tiny.teacher} and {tiny.train}"
    assert shown(text, tiny, tmp_path) == "OUT and rows.tsv and TEACHER and ROWS.tsv"
    row = {"group": "G", "name": "n", "code": 1, "sentence": "a | b"}
    assert "| n | 1 | a \\| b |" in as_markdown([row])


@pytest.mark.slow
@pytest.mark.skipif(not bad_files.can_mount(), reason="only root may mount a small file system")
def test_a_run_on_a_full_disk_goes_on_when_there_is_space(tiny, tmp_path):
    flags = f"--teacher {tiny.teacher} --train {tiny.train} --eval {tiny.dev} --epochs 1 --max-size 90kB".split()

    def run(out: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "compressor.cli", "compress", *flags, "--output", str(out)]
        return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)

    assert run(tmp_path / "alone").returncode == 0
    place = tmp_path / "out"
    with bad_files.small_disk(tmp_path):
        for size in ("60k", "300k", "900k"):  # full in one step after the other
            subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)
            done = run(place)
            assert done.returncode == 1
            assert "no space left on device. Free some space and run the same command again" in done.stderr
            assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", str(place)], check=True)
        done = run(place)
        assert done.returncode == 0, done.stderr
        assert "done before" in done.stderr
        assert (place / "package.zip").read_bytes() == (tmp_path / "alone" / "package.zip").read_bytes()

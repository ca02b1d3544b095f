"""The doctor: what it finds on a machine, and the command that mends each problem."""

import os
from importlib.metadata import version
from pathlib import Path

import pytest

from compressor.commands import doctor
from compressor.commands.doctor import Diagnosis, Problem
from exporters.measuring import machine


def test_this_machine_has_cores_memory_and_versions() -> None:
    found = doctor.examine()
    assert 0 < found.machine["cores_available"] <= (os.cpu_count() or 1)
    assert found.machine["memory_bytes"] > 10**8
    assert found.versions["numpy"] == version("numpy")
    assert "CPUExecutionProvider" in found.providers
    assert found.as_dict()["machine"]["python"] == found.machine["python"]


def cgroup(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_a_cgroup_limits_the_cores(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    assert machine.cgroup_quota(cgroup(tmp_path, files)) == cores


def test_available_cores_are_the_least_of_affinity_and_quota(tmp_path: Path) -> None:
    assert machine.available_cores(cgroup(tmp_path / "small", {"cpu.max": "50000 100000"})) == 0.5
    assert machine.available_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_both_runtimes_are_a_problem_with_its_command() -> None:
    (problem,) = doctor.check_runtimes({"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}, imports=True)
    assert "both installed" in problem.what
    assert problem.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'tenmeg[cpu]'")


def test_no_runtime_and_a_broken_one_are_problems() -> None:
    (none,) = doctor.check_runtimes({}, imports=False)
    assert none.fix == "pip install 'tenmeg[cpu]'"
    (broken,) = doctor.check_runtimes({"onnxruntime": "1.31.1"}, imports=False)
    assert broken.fix == "pip install --force-reinstall --no-deps onnxruntime==1.31.1"
    assert doctor.check_runtimes({"onnxruntime-gpu": "1.31.1"}, imports=True) == []


def fake_distribution(site: Path, name: str, requires: list[str]) -> None:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *[f"Requires-Dist: {text}" for text in requires]]
    (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_version_conflicts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wants = ["numpy<1", "no-such-package-anywhere>=2", "click", "torch<1; extra == 'never'"]
    fake_distribution(tmp_path, "tenmegconflict", wants)
    monkeypatch.syspath_prepend(tmp_path)
    problems = doctor.check_requirements({"tenmegconflict": "1.0"})
    assert [problem.fix for problem in problems] == [
        "pip install 'numpy<1'",
        "pip install 'no-such-package-anywhere>=2'",
    ]
    assert problems[0].what == f"tenmegconflict needs numpy<1, {version('numpy')} is installed."


def test_an_old_python_and_a_full_disk_are_problems() -> None:
    assert doctor.check_python((3, 11)) == []
    assert "3.10 is too old" in doctor.check_python((3, 10))[0].what
    assert doctor.check_disk(10**12) == []
    assert "only 1.0 GB free" in doctor.check_disk(10**9)[0].what


def test_problems_come_last_with_what_to_run() -> None:
    found = Diagnosis({"cores_available": 2.0}, {"numpy": "2"}, [], problems=[Problem("it is broken.", "mend it")])
    assert found.lines()[-2:] == ["problem: it is broken. Run: mend it", "1 problem(s)"]
    assert found.as_dict()["status"] == "problems"

"""What this machine can do, and what is wrong with the installation, each problem with the command that mends it.

It detects instead of asking: cores that the cgroup and the affinity leave, instruction sets, memory, disk, versions,
execution providers. It changes nothing and never fails because something is missing: that is what it reports.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exporters.measuring import machine

PACKAGES = (
    "tenmeg", "numpy", "tokenizers", "sentencepiece", "click", "pydantic", "onnxruntime", "onnxruntime-gpu", "onnx",
    "onnxscript", "torch", "transformers", "optimum", "accelerate", "datasets", "safetensors", "sentence-transformers",
)  # fmt: skip
LEAST_FREE_DISK = 5 * 10**9  # cached teacher outputs, checkpoints and exports of one run


@dataclass(frozen=True)
class Problem:
    """Something wrong, and what to type."""

    what: str
    fix: str


@dataclass(frozen=True)
class Diagnosis:
    """Facts of the machine and problems of the installation."""

    machine: dict[str, Any]
    versions: dict[str, str]
    providers: list[str]
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        return {"status": "problems" if self.problems else "ok", **asdict(self)}

    def lines(self) -> list[str]:
        """Return what a person reads, problems last."""
        lines = [f"{name.replace('_', ' ')}: {_text(value)}" for name, value in self.machine.items()]
        lines.append("execution providers: " + (", ".join(self.providers) or "none"))
        lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in self.versions.items()))
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"problem: {problem.what} Run: {problem.fix}" for problem in self.problems]
        return [*lines, "no problem found" if not self.problems else f"{len(self.problems)} problem(s)"]


def examine() -> Diagnosis:
    """Look at this machine and this Python."""
    versions = machine.versions(PACKAGES)
    providers = _providers()
    notes = []
    if "CUDAExecutionProvider" in providers and not _has_nvidia():
        notes.append("onnxruntime-gpu is installed and no NVIDIA device is visible: --ep cuda will be refused.")
    if _has_nvidia() and "CUDAExecutionProvider" not in providers:
        notes.append("an NVIDIA device is visible; --ep cuda needs the extra 'gpu' in place of 'cpu'.")
    problems = [
        *check_python(sys.version_info[:2]),
        *check_runtimes(versions, bool(providers)),
        *check_requirements(versions),
        *check_disk(shutil.disk_usage(Path.cwd()).free),
    ]
    return Diagnosis(machine_facts(), versions, providers, notes, problems)


def machine_facts() -> dict[str, Any]:
    """Return the processor, the cores really available, memory, disk and system."""
    total, limit = (
        _memory_bytes(),
        _first_number("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    )
    disk = shutil.disk_usage(Path.cwd())
    return {
        "system": machine.system(),
        "python": platform.python_version(),
        "processor": machine.processor(),
        "instruction_sets": machine.instruction_sets(),
        "cores_installed": os.cpu_count() or 1,
        "cores_available": machine.available_cores(),
        "memory_bytes": min(total, limit) if limit and total else limit or total,
        "disk_free_bytes": disk.free,
        "nvidia_device": _has_nvidia(),
    }


def check_python(version: tuple[int, ...]) -> list[Problem]:
    """Refuse a Python that is too old."""
    if version >= (3, 11):
        return []
    return [
        Problem(
            f"Python {'.'.join(map(str, version))} is too old; 3.11 or newer is needed.", "make PYTHON=python3.12 setup"
        )
    ]


def check_runtimes(versions: dict[str, str], imports: bool) -> list[Problem]:
    """Find both onnxruntime wheels side by side, one that is broken, or none."""
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in versions]
    if len(both) == 2:
        return [
            Problem(
                "onnxruntime and onnxruntime-gpu are both installed and own the same folder: only one works "
                "('tenmeg[gpu]' has the second).",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'tenmeg[cpu]'",
            )
        ]
    if not both:
        return [
            Problem("onnxruntime is not installed; nothing can be exported or opened.", "pip install 'tenmeg[cpu]'")
        ]
    if not imports:
        return [
            Problem(
                f"{both[0]} is installed but cannot be imported.",
                f"pip install --force-reinstall --no-deps {both[0]}=={versions[both[0]]}",
            )
        ]
    return []


def check_requirements(versions: dict[str, str]) -> list[Problem]:
    """Compare what the installed packages ask for with what is there; only packages of ``versions`` are asked."""
    if importlib.util.find_spec("packaging") is None:
        return []
    from packaging.requirements import Requirement

    problems = []
    for name in versions:
        for text in importlib.metadata.requires(name) or []:
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            have = machine.versions((wanted.name,)).get(wanted.name)
            if have is None:
                problems.append(
                    Problem(f"{name} needs {wanted.name}, not installed.", f"pip install '{_spec(wanted)}'")
                )
            elif not wanted.specifier.contains(have, prereleases=True):
                problems.append(
                    Problem(f"{name} needs {_spec(wanted)}, {have} is installed.", f"pip install '{_spec(wanted)}'")
                )
    return problems


def check_disk(free_bytes: int) -> list[Problem]:
    """Warn when a run would not fit."""
    if free_bytes >= LEAST_FREE_DISK:
        return []
    return [
        Problem(
            f"only {free_bytes / 1e9:.1f} GB free in the current folder; a run can need {LEAST_FREE_DISK / 1e9:g}.",
            "rm -r an old --output, or change to another disk",
        )
    ]


def _spec(wanted: Any) -> str:  # packaging.requirements.Requirement, which may not be installed
    return f"{wanted.name}{wanted.specifier}"


def _providers() -> list[str]:
    try:
        from exporters.measuring.ort import onnxruntime

        return list(onnxruntime.get_available_providers())
    except (ImportError, AttributeError):  # AttributeError: the empty folder that uninstalling one of two wheels leaves
        return []


def _has_nvidia() -> bool:
    return Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


def _first_number(*paths: str) -> int | None:
    for path in paths:
        try:
            return int(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return None


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if type(value) is int and value > 10**6:
        return f"{value / 1e9:.1f} GB"
    return f"{value:g}" if isinstance(value, float) else str(value)

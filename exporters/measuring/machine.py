"""What figures belong to: the processor, the cores that are really there, and the versions of the packages.

Standard library only: ``tenmeg doctor`` asks it where nothing else is installed.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Of the result of a run.
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy", "optimum")
# Instruction sets that change the speed of int8 and bf16.
FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "f16c", "asimd", "asimddp",
    "i8mm", "bf16",
)  # fmt: skip


def machine() -> dict[str, object]:
    """Return what a latency belongs to: processor, flags that matter to int8, cores, system, versions."""
    from exporters.measuring.ort import onnxruntime

    return {
        "cpu": processor(),
        "flags": instruction_sets(),
        "cores": os.cpu_count() or 1,
        "cores_available": available_cores(),
        "system": system(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def processor() -> str:
    """Return the name of the processor."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Return those of ``FLAGS`` that the processor has."""
    flags = _cpu_info("flags", "Features").split()
    return [flag for flag in FLAGS if flag in flags]


def system() -> str:
    """Return name, release and architecture of the system."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many cores this process may use: the least of the affinity and the cgroup's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(cgroup)
    return min(float(affinity), quota) if quota else float(affinity)


def cgroup_quota(cgroup: Path) -> float | None:
    """Return the cores that a cgroup (version 2 or 1) grants; ``None`` when it sets no limit."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return None if quota.strip() in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _cpu_info(*keys: str) -> str:
    """Return what the first core says under one of the keys."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() in keys), "")

"""Measure on this machine: time from text to answer, peak memory of a process, and what the machine is.

One thread unless told otherwise, threads pinned and not spinning, so that figures repeat. An execution provider that
cannot really run is refused: ``onnxruntime.get_available_providers()`` also names those that were merely compiled in.
It judges nothing; limits belong to ``exporters.budget``.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from exporters.measuring.ort import onnxruntime
from exporters.refused import Refused

Row = TypeVar("Row")
# A process starts with the peak of the one that started it; this small one stands in between. Prints kilobytes.
LAUNCHER = (
    "import os, resource, subprocess, sys; "
    "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True); "
    "error = child.stderr.read(); _, status, usage = os.wait4(child.pid, 0); "
    "sys.stderr.write(error); print(usage.ru_maxrss); sys.exit(os.waitstatus_to_exitcode(status) and 1)"
)


class Latency(NamedTuple):
    """Milliseconds from text to answer."""

    p50: float
    p95: float
    p99: float
    mean: float
    n: int
    samples: list[float]


def latency(answer: Callable[[Row], object], texts: Sequence[Row], runs: int = 300, warmup: int = 20) -> Latency:
    """Time ``answer`` on the texts in turn, ``runs`` times after ``warmup`` calls that do not count.

    Raises:
        ValueError: if there are no texts or no runs.
    """
    if not texts or runs < 1:
        raise Refused(f"measure: got {len(texts)} texts and {runs} runs, expected at least one of each.")
    for index in range(warmup):
        answer(texts[index % len(texts)])
    samples = []
    for index in range(runs):
        text = texts[index % len(texts)]
        start = time.perf_counter_ns()
        answer(text)
        samples.append((time.perf_counter_ns() - start) / 1e6)
    p50, p95, p99 = (float(value) for value in np.percentile(samples, (50, 95, 99)))
    return Latency(p50, p95, p99, float(np.mean(samples)), runs, [round(sample, 4) for sample in samples])


def peak_rss_mb(command: list[str]) -> float:
    """Run a command and return its peak resident memory in megabytes (10^6 bytes).

    Raises:
        ValueError: if the command fails, with its last line.
        OSError: where the system does not tell (Windows).
    """
    if os.name != "posix":
        raise OSError("measure: peak memory needs a POSIX system. Measure it on Linux or macOS.")
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, *command], capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        lines = found.stderr.strip().splitlines() or ["no message"]
        raise Refused(f"measure: {shlex.join(command[:3])} failed ({lines[-1]}). Run it by hand to see why.")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts bytes on macOS, kibibytes on Linux
    return int(found.stdout) * unit / 1e6


def session(path: Path, ep: Literal["cpu", "cuda"] = "cpu", threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a model with pinned threads on exactly this execution provider.

    Raises:
        FileNotFoundError: if the model is missing.
        ValueError: if the provider cannot run here.
    """
    if not path.is_file():
        raise FileNotFoundError(f"measure: {path} does not exist. Export the model first.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if ep == "cpu":
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if ep != "cuda":
        raise Refused(f"measure: execution provider {ep!r} is not known. Use --ep cpu or --ep cuda.")
    return _cuda_session(path, options)


def _cuda_session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise Refused("measure: this onnxruntime has no CUDA. Install onnxruntime-gpu instead, or use --ep cpu.")
    if not _has_cuda_driver():  # asked first: onnxruntime would print a page of errors
        raise Refused("measure: no NVIDIA driver or GPU was found. Use --ep cpu.")
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)  # its own words go to stderr; ours follow
    try:
        opened = onnxruntime.InferenceSession(str(path), options, providers=["CUDAExecutionProvider"])
    finally:
        onnxruntime.set_default_logger_severity(2)  # its default: warnings
    if "CUDAExecutionProvider" not in opened.get_providers():
        raise Refused(
            "measure: the GPU is there, but onnxruntime could not load its CUDA provider. "
            "Install 'onnxruntime-gpu[cuda,cudnn]' for the libraries it needs, or use --ep cpu."
        )
    return opened


def _has_cuda_driver() -> bool:
    import ctypes

    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False

"""Measuring: percentiles of real calls, peak memory of a real process, and providers that cannot run."""

import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from exporters.measuring.machine import machine
from exporters.measuring.measure import latency, peak_rss_mb, session


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "tiny", value[:1], value[1:])
    path = tmp_path_factory.mktemp("measure") / "neg.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_latency_counts_the_runs_and_not_the_warm_up():
    asked: list[str] = []
    timed = latency(asked.append, ["a", "b", "c"], runs=7, warmup=2)
    assert asked == ["a", "b", "a", "b", "c", "a", "b", "c", "a"]
    assert timed.n == len(timed.samples) == 7


def test_latency_is_in_milliseconds_and_ordered():
    timed = latency(lambda _: time.sleep(0.002), ["text"], runs=10, warmup=0)
    assert 2.0 <= min(timed.samples) <= timed.p50 <= timed.p95 <= timed.p99 <= max(timed.samples)
    assert timed.p50 < 200


def test_rows_may_be_pairs():
    assert latency(lambda row: row[0] + row[1], [("a", "b")], runs=1, warmup=0).n == 1


def test_nothing_to_time_is_refused():
    with pytest.raises(ValueError, match="got 0 texts"):
        latency(print, [])
    with pytest.raises(ValueError, match="and 0 runs"):
        latency(print, ["text"], runs=0)


def test_peak_memory_is_that_of_the_command_and_not_ours():
    ballast = np.ones(20_000_000)  # 160 MB here must not count there
    small = peak_rss_mb([sys.executable, "-S", "-c", "pass"])
    large = peak_rss_mb([sys.executable, "-S", "-c", "x = bytearray(60_000_000); x[::4096] = b'1' * len(x[::4096])"])
    assert ballast.nbytes == 160_000_000
    assert 3 < small < 60
    assert 50 < large - small < 80


def test_a_command_that_fails_is_an_error_with_its_last_line():
    with pytest.raises(ValueError, match=r"measure: .* failed \(SystemExit: no such package|failed \(no such package"):
        peak_rss_mb([sys.executable, "-c", "import sys; sys.exit('no such package')"])


def test_the_machine_is_described_in_plain_values():
    told = machine()
    assert {"cpu", "flags", "cores", "cores_available", "system", "python", "onnxruntime"} == set(told)
    assert told["cpu"] and 0 < told["cores_available"] <= told["cores"]


def test_a_session_runs_on_the_provider_asked_for(model_path: Path):
    opened = session(model_path, "cpu", threads=2)
    assert opened.get_providers() == ["CPUExecutionProvider"]
    assert opened.get_session_options().intra_op_num_threads == 2
    assert opened.run(None, {"x": np.array([1.5], dtype=np.float32)})[0].tolist() == [-1.5]


def test_cuda_is_refused_without_a_word_on_stderr_where_it_cannot_run(model_path: Path, capfd: pytest.CaptureFixture):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidia0").exists():
        pytest.skip("a GPU is here")
    with pytest.raises(ValueError, match=r"measure: .*--ep cpu"):
        session(model_path, "cuda")
    assert capfd.readouterr() == ("", "")


def test_unknown_providers_and_missing_models_are_refused(model_path: Path):
    with pytest.raises(ValueError, match="'tpu' is not known"):
        session(model_path, "tpu")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        session(model_path.with_name("absent.onnx"))


@pytest.mark.cuda
def test_cuda_runs_where_there_is_a_gpu(model_path: Path):
    assert session(model_path, "cuda").get_providers()[0] == "CUDAExecutionProvider"

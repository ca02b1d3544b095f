"""Benchmarks: each script is run as ``python -m benchmarks.NAME`` and writes the JSON of its figures."""

from exporters.measuring import telemetry

telemetry.switch_off()  # for all of them, which import onnxruntime and its like themselves

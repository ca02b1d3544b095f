"""onnxruntime with its telemetry switched off: all of ours but the reader, which is one file, takes it from here."""

from exporters.measuring import telemetry

telemetry.switch_off()

import onnxruntime as onnxruntime  # noqa: E402 - it reads the switch when it is imported

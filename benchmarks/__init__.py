"""Benchmarks: each script is run as ``python -m benchmarks.NAME`` and writes the JSON of its figures."""

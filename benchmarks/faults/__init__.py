"""Inputs that must be refused in one sentence: data for ``benchmarks.bad_inputs`` and the tests."""

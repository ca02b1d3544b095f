"""Tests of ``compressor.report``."""

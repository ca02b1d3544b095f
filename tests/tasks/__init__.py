"""Tests of ``compressor.tasks``."""

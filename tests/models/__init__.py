"""Tests of ``compressor.models``."""

"""Tests of ``compressor.data``."""

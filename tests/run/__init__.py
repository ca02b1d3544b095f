"""Tests of ``compressor.run``."""

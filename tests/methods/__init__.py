"""Tests of ``compressor.methods``."""

"""Tests of ``compressor.mixing``."""

"""Tests of ``compressor.training``."""

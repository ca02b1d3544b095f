"""Tests of ``compressor.packaging``."""

"""Tests of ``compressor.inherit``."""

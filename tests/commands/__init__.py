"""Tests of ``compressor.commands``."""

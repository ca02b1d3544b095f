"""Tests of ``compressor.student``."""

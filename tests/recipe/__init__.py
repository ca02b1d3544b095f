"""Tests of ``compressor.recipe``."""

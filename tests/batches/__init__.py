"""Tests of ``compressor.batches``."""

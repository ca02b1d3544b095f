"""Tests of ``edge_demo``."""

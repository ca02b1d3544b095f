"""Training methods: one file per method, found by scanning this folder (see compressor.training.registry)."""

"""What the benchmarks share: arms in processes, sets, tiny teachers and rows."""

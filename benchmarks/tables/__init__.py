"""The results of the benchmarks as Markdown, for ``benchmarks.render``."""

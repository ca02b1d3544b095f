"""The kinds of task, a file each; ``compressor.scoring.registry`` finds them by their names."""

"""What each kind of task asks of a graph, a file each; ``exporters.head`` finds them by their names."""

"""Two cuts of the same texts beside each other: words, pieces, lengths, and the curve of sizes."""

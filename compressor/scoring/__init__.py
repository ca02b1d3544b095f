"""What every kind of task answers for: the contract of a kind, how kinds are found, and how outputs are scored."""

"""What is asked of a file on this machine: answers, their parity, time and memory, and which machine it is."""

"""One training stage: what a method is, how it is found, what it imitates, and the trainer that runs it."""

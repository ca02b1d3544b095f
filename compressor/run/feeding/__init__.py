"""What a stage is fed: batches of its rows, their variations, and other labels for them."""

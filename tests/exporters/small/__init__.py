"""Small encoders: models, graphs, bytes."""

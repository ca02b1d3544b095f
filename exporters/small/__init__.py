"""Small encoders that are no transformers: their models, their numbers, and classic models as graphs."""

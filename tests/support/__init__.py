"""What the tests share: tiny real rows, tokenizers, models, stages and runs."""

"""Two tokenizers in one text (1909.11687): units that both can cut, mixed rows, masks."""

"""One trainer per kind of tokenizer, and the tokenizer.json that they are put into."""

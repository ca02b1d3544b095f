"""A plain Hugging Face model that starts as a part of its teacher, or as a smaller model that exists."""

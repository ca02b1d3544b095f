"""Student weights computed from teacher weights inside the forward pass, and folded at the end."""

"""What a task predicts and by which number it is judged."""

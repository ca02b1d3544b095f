"""What a new teacher starts from: vectors of the frozen encoder, the linear model on them, and a head that says it."""

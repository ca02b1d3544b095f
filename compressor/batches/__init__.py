"""What a model reads and answers: encoded rows, the teacher's cached outputs, outputs of a model, pooling."""

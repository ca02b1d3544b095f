"""What is known of a checkpoint: families and their weights by role, files, teachers, given vocabularies."""

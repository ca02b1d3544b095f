"""Two vocabularies in one teacher, and its weights projected onto the student's (1909.11687)."""

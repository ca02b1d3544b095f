"""Vocabularies: training one of an exact size, mapping its tokens onto the teacher's, aligning two tokenisations."""

"""Vocabularies: training one of an exact size, mapping its tokens onto the teacher's, aligning two tokenisations.

Runs of text have four names. A *word* is what ``comparing.align`` finds in a text, whatever cuts it; a *piece* is what
one tokenizer cuts; a *unit* is the smallest run that two tokenizers both end at; a *cut* is all pieces of all rows.
"""

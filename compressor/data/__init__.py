"""Rows of any file or hub id: formats, columns, labels, tables, splits. No torch here."""

"""tenmeg from Python: the import, its names, models and rows in memory, and what is refused."""

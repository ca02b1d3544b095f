"""Teacher to student: the recipe, the training methods, the run that joins them to export, and the command line."""

__version__ = "0.1.0"

"""The steps of a run, from the teacher to the package; ``planning`` decides all of it before a minute is spent."""

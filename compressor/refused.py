"""What a refusal is: a sentence that was written for the user."""


class Refused(ValueError):
    """Input that is refused, in one sentence: what, got, expected, what to do. The command line shows it as it is."""

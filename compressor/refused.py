"""What a refusal is: a sentence that was written for the user."""

import difflib
from collections.abc import Iterable


class Refused(ValueError):
    """Input that is refused, in one sentence: what, got, expected, what to do. The command line shows it as it is."""


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return the question that names the nearest known word, to put behind a sentence; nothing if none is near.

    >>> did_you_mean("temprature", ["layers", "temperature"])
    " Did you mean 'temperature'?"
    """
    near = difflib.get_close_matches(got, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""

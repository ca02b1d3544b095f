"""One progress bar per stage, on stderr, with the time left; a line now and then where there is no terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

QUIET_SECONDS = 30.0  # between lines when stderr is a file


def quiet_libraries() -> None:
    """Turn off the bars that transformers shows while it reads and writes weights: ours say what matters."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


@contextmanager
def bar(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more are done."""
    interval = 0.2 if sys.stderr.isatty() else QUIET_SECONDS
    with tqdm(total=total, desc=title, unit=unit, mininterval=interval, dynamic_ncols=True, file=sys.stderr) as shown:

        def advance(n_done: int) -> None:
            shown.update(n_done)

        yield advance


@contextmanager
def step_bar(title: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that is told which step is done, as the trainer counts them; a resumed stage starts late."""
    with bar(title, total, "steps") as advance:
        done = 0

        def progress(step: int, _total: int) -> None:
            nonlocal done
            advance(step - done)
            done = step

        yield progress

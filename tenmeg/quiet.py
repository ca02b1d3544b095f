"""Leave a caller's process as it was: what a run turns off in transformers is turned on again."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers show no bars and no warnings meanwhile, as a command does."""
    from transformers.utils import logging

    from compressor.run.progress import quiet_libraries

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    quiet_libraries()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()

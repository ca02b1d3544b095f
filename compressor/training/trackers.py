"""Trackers: where the log of a stage goes beside ``metrics.jsonl``, through transformers' own integrations.

They are told of a training and decide nothing in it: no recipe, no digest and no key of a step knows them. A stage is
one run of a tracker; one that was killed and resumes goes on in the same run. Only the first process reports.
"""

import contextlib
import importlib.util
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressor.files import write_text
from compressor.refused import Refused, did_you_mean

if TYPE_CHECKING:
    from transformers import Trainer

TRACKERS = ("tensorboard", "wandb", "trackio")
PROJECT = "tenmeg"
WANDB_RUN = "wandb_run"  # in a stage's work folder: the id of its run


class Tracking(NamedTuple):
    """Which trackers a stage reports to, and as what."""

    trackers: tuple[str, ...]
    run_name: str
    events_dir: Path  # of tensorboard's event files

    def arguments(self) -> dict[str, Any]:
        """Return what ``TrainingArguments`` are told."""
        return {
            "report_to": list(self.trackers),
            "run_name": self.run_name,
            "project": PROJECT,
            "trackio_space_id": None,  # stay on this machine: some versions would open a public Space
        }


def known_trackers(given: object) -> tuple[str, ...]:
    """Return the trackers of ``--report-to``, each once.

    Raises:
        Refused: for a name that is none, and for a tracker that is not installed.
    """
    names = given if isinstance(given, list | tuple) else () if given is None else (given,)
    for name in names:
        if name not in TRACKERS:
            near = did_you_mean(str(name), TRACKERS)
            raise Refused(f"--report-to {name}: expected {', '.join(TRACKERS[:-1])} or {TRACKERS[-1]}.{near}")
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a mere folder of this name, as wandb leaves one, has no origin
            raise Refused(f"--report-to {name}: the package {name} is not installed. Install it: pip install {name}")
    return tuple(dict.fromkeys(names))


@contextlib.contextmanager
def tracked(trainer: "Trainer", tracking: Tracking, work_dir: Path, n_done: int) -> Iterator[None]:
    """Open the runs that the trainer's integrations write to, and close them; ``n_done`` steps are in them already."""
    with contextlib.ExitStack() as opened:
        if trainer.is_world_process_zero():
            if "tensorboard" in tracking.trackers:
                opened.enter_context(_events(trainer, tracking.events_dir, n_done))
            if "wandb" in tracking.trackers:
                opened.enter_context(_wandb_run(tracking.run_name, work_dir))
        yield


@contextlib.contextmanager
def _events(trainer: "Trainer", events_dir: Path, n_done: int) -> Iterator[None]:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    # What was written of later steps, before a kill or by another run, is not shown any more.
    writer = SummaryWriter(str(events_dir), purge_step=n_done + 1 if n_done else 0)
    trainer.pop_callback(TensorBoardCallback)  # it would write into the work folder, which is removed
    trainer.add_callback(TensorBoardCallback(writer))
    try:
        yield
    finally:
        writer.close()


@contextlib.contextmanager
def _wandb_run(run_name: str, work_dir: Path) -> Iterator[None]:
    import wandb

    if wandb.run is not None:  # the caller's own: its integration reports to it
        yield
        return
    path = work_dir / WANDB_RUN
    if not path.is_file():
        work_dir.mkdir(parents=True, exist_ok=True)
        write_text(path, secrets.token_hex(4))
    run_id = path.read_text(encoding="utf-8")
    run = wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), name=run_name, id=run_id, resume="allow")
    with run:  # its integration leaves it open, and the next stage would go on in it
        yield

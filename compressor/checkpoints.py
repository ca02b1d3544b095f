"""The checkpoints of a stage that is being trained: which is whole, and how they are removed."""

import shutil
from pathlib import Path

COMPLETE = "complete.json"  # written last into a checkpoint: without it the folder is half-written


def last_checkpoint(work_dir: Path) -> Path | None:
    """Return the newest whole checkpoint and remove half-written ones."""
    whole = []
    for folder in work_dir.glob("checkpoint-*"):
        if (folder / COMPLETE).exists():
            whole.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return max(whole, key=lambda folder: int(folder.name.rsplit("-", 1)[1]), default=None)


def discard(work_dir: Path) -> None:
    """Remove the checkpoints, their marks first: killed in between, none looks whole that is not."""
    for mark in work_dir.glob(f"checkpoint-*/{COMPLETE}"):
        mark.unlink()
    shutil.rmtree(work_dir)

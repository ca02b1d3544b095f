"""Steps of a run as folders: written whole or not at all, skipped when their inputs have not changed.

A step works in ``steps/NAME.part`` and is renamed to ``steps/NAME`` when it is done; its ``step.json`` holds the
digest of its inputs, the sha256 and bytes of every file it wrote, seconds and versions. The digest covers the part of
the recipe the step reads, the files of the steps it reads, and the code that it runs. A killed step starts again in an
empty folder, except for those that resume: they find their ``.part`` folder again when the digest is still the same.
Under ``torchrun`` the first process works and the others wait, unless a step says it needs them all.

Runs that have a cache folder in common do a shared step once: it lies there under its name and digest, and is taken by
hard links (copies on another file system) when every file still has its sha256. A digest says all that a step reads,
so arms of a comparison, sweeps and runs of another recipe find what they have in common by themselves.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from compressor.files import read_json, sha256_file, write_text
from compressor.run.source import code_digest
from exporters.measuring.machine import versions

STEP_VERSION = 1
POLL_SECONDS = 0.2
MARKER = "inputs.sha256"  # in a .part folder: for which inputs it was begun


class Journal(NamedTuple):
    """The steps of one run."""

    steps_dir: Path
    echo: Callable[[str], None]
    cache: Path | None = None  # in common with other runs

    def folder(self, name: str) -> Path:
        """Return the folder of a finished step."""
        return self.steps_dir / name

    def read(self, name: str) -> dict[str, Any]:
        """Return ``step.json`` of a finished step."""
        content: dict[str, Any] = read_json(self.folder(name) / "step.json")
        return content

    def step(
        self,
        name: str,
        inputs: dict[str, Any],
        after: tuple[str, ...],
        work: Callable[[Path], None],
        resumes: bool = False,
        on_every_process: bool = False,
        uses: tuple[str, ...] = (),
        shared: bool = False,
    ) -> Path:
        """Run ``work(part_dir)`` unless the step is done already with the same inputs; return its folder.

        Args:
            name: of the step; also its folder.
            inputs: the part of the recipe it reads, as JSON.
            after: the steps whose files it reads.
            work: writes files into the folder it is given; its source counts as an input (``compressor.run.source``).
            resumes: the folder may hold what a killed run left; otherwise it is empty.
            on_every_process: ``work`` is called by every process of a distributed run.
            uses: modules that ``work`` imports by a name that is not in its source, a training method's for one.
            shared: the step is kept in the cache and taken from it.
        """
        digest = self._digest(name, inputs, after, code_digest(work, *uses))
        if self._is_done(name, digest):
            self.echo(f"{name}: done before")
            return self.folder(name)
        part = self.steps_dir / f"{name}.part"
        is_first = is_first_process()
        kept = self.cache / f"{name}-{digest[:32]}" if self.cache and shared and is_first else None
        is_kept = kept and _holds(kept, digest, lambda path, said: sha256_file(path) == said["sha256"])
        if kept and is_kept:
            self.echo(f"{name}: from the cache")
            work = partial(shutil.copytree, kept, copy_function=_link, dirs_exist_ok=True)
        if is_first:
            self._prepare(part, digest, resumes and not is_kept)
        if is_first or on_every_process:
            self._wait_for(part / MARKER, digest)
            started, worked = time.monotonic(), time.process_time()
            work(part)
            if is_first:
                self._finish(name, part, digest, time.monotonic() - started, time.process_time() - worked)
        if kept and not is_kept:
            unfinished = kept.with_name(f".{kept.name}.{os.getpid()}")
            shutil.copytree(self.folder(name), unfinished, copy_function=_link)
            shutil.rmtree(kept, ignore_errors=True)  # damaged
            with contextlib.suppress(OSError):  # another run was first, with the same
                unfinished.rename(kept)
            shutil.rmtree(unfinished, ignore_errors=True)
        while not self._is_done(name, digest):
            time.sleep(POLL_SECONDS)
        return self.folder(name)

    def _digest(self, name: str, inputs: dict[str, Any], after: tuple[str, ...], code: str) -> str:
        read = {other: self.read(other)["files"] for other in after}
        content = {"version": STEP_VERSION, "step": name, "inputs": inputs, "after": read, "code": code}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()

    def _is_done(self, name: str, digest: str) -> bool:
        return _holds(self.folder(name), digest, lambda path, said: path.stat().st_size == said["bytes"])

    def _prepare(self, part: Path, digest: str, resumes: bool) -> None:
        marker = part / MARKER
        if part.is_dir() and not (resumes and marker.is_file() and marker.read_text(encoding="utf-8") == digest):
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=True)
        write_text(marker, digest)

    def _wait_for(self, marker: Path, digest: str) -> None:
        while not marker.is_file() or marker.read_text(encoding="utf-8") != digest:
            time.sleep(POLL_SECONDS)

    def _finish(self, name: str, part: Path, digest: str, seconds: float, worked: float) -> None:
        files = {
            path.relative_to(part).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(part.rglob("*"))
            if path.is_file() and path.name not in ("step.json", MARKER)
        }
        content = {
            "version": STEP_VERSION,
            "inputs_sha256": digest,
            "files": files,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(worked, 2),  # of this process, all threads
            "versions": versions(),
        }
        (part / MARKER).unlink()  # only now: a step killed while its files were hashed still resumes
        write_text(part / "step.json", json.dumps(content, indent=2, sort_keys=True) + "\n")
        shutil.rmtree(self.folder(name), ignore_errors=True)
        part.rename(self.folder(name))


def _holds(folder: Path, digest: str, is_same: Callable[[Path, dict[str, Any]], bool]) -> bool:
    """Return whether the folder holds a step of these inputs with all its files."""
    try:
        content = read_json(folder / "step.json")
        is_whole = all(is_same(folder / file, said) for file, said in content["files"].items())
        return is_whole and content["inputs_sha256"] == digest
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # missing or damaged: done again
        return False


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def is_first_process() -> bool:
    """Return whether this is the process that writes, of a distributed run."""
    return int(os.environ.get("RANK", "0")) == 0

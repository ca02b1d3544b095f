"""What happens around the steps of a stage: the objective's own hooks, clipping, the log, scores and checkpoints."""

import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import TrainerCallback
from transformers import TrainerControl as Control
from transformers import TrainerState as State
from transformers import TrainingArguments as Arguments

from compressor.batches.encoded import LengthSampler
from compressor.files import write_text, written_whole
from compressor.training.objective import Objective

MAX_GRAD_NORM = 1.0
COMPLETE = "complete.json"  # written last into a checkpoint: without it the folder is half-written
BEST = "best.safetensors"  # the state with the best score on held-out rows
HELD_OUT = "held_out"  # that score in the log


class Watched(Protocol):
    """What the callback reads and changes of the trainer that it is told of (``compressor.training.trainer``)."""

    sampler: LengthSampler
    grad_norm: float | None
    term_sums: dict[str, float]  # loss terms since the last line of the log
    n_summed: int

    def report(self, scores: dict[str, float]) -> None:
        """Tell whoever follows the log of scores."""


class StageCallback(TrainerCallback):
    """Calls the objective's hooks, writes metrics.jsonl, evaluates, checkpoints by time, marks whole checkpoints."""

    def __init__(
        self,
        objective: Objective,
        metrics_path: Path,
        evaluate: Callable[[Objective], dict[str, float]] | None,
        progress: Callable[[int, int], None],
        evaluate_every: int | None,
        save_seconds: float,
        keep: Callable[[Objective], float] | None = None,
    ) -> None:
        self.objective, self.metrics_path, self.evaluate, self.progress = objective, metrics_path, evaluate, progress
        self.evaluate_every, self.save_seconds, self.keep = evaluate_every, save_seconds, keep
        self.saved_at = 0.0
        self.trainer: Watched | None = None

    def on_train_begin(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Tell the objective how many steps the stage has, also when it goes on at a checkpoint."""
        self.objective.begin(state.max_steps)

    def on_epoch_begin(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Tell the sampler the epoch: where several processes resume, accelerate's wrappers keep it from it."""
        assert self.trainer is not None
        self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> Control:
        """Show progress; evaluate; ask for a checkpoint once a minute (when a checkpoint is made changes no weight)."""
        self.progress(state.global_step, state.max_steps)
        is_last = state.global_step >= state.max_steps
        # Before the checkpoint of the same step, which so holds its line: a run that goes on there has not lost it.
        if self.evaluate_every is not None and (is_last or state.global_step % self.evaluate_every == 0):
            self._score(state)
        self.saved_at = self.saved_at or time.monotonic()
        # Never after the last step of an epoch: a run that goes on there would not evaluate that epoch.
        is_epoch_end = state.epoch is not None and state.epoch % 1 == 0
        is_time = time.monotonic() - self.saved_at > self.save_seconds and not is_epoch_end
        if is_time and not is_last:
            control.should_save = True
            self.saved_at = time.monotonic()
        return control

    def on_pre_optimizer_step(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Let the objective finish its gradients, then clip them.

        What has a learning rate of its own is clipped by itself: a teacher's gradient must not scale the student's.
        """
        self.objective.before_step(kwargs["optimizer"])
        if args.max_grad_norm > 0:
            return  # the trainer has clipped all parameters together
        by_rate: dict[float, list[nn.Parameter]] = defaultdict(list)
        for group in kwargs["optimizer"].param_groups:
            by_rate[group["initial_lr"]] += group["params"]
        norms = [nn.utils.clip_grad_norm_(members, MAX_GRAD_NORM) for members in by_rate.values()]
        if self.objective.makes_gradients:  # the trainer has measured too early
            assert self.trainer is not None
            self.trainer.grad_norm = math.hypot(*(float(norm) for norm in norms))

    def on_optimizer_step(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Let the objective change its parameters right after the step, before the learning rate changes."""
        self.objective.after_step(kwargs["optimizer"])

    def on_epoch_end(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Evaluate, unless that goes by steps, and keep the state if none before was better on held-out rows."""
        if self.evaluate_every is None:
            self._score(state)
        if self.keep is not None and state.is_world_process_zero:
            self._keep(self.keep, state)

    def on_log(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Rewrite metrics.jsonl from the state, so that a resumed run repeats no line."""
        if not state.is_world_process_zero:
            return
        lines = [
            json.dumps(cleaned, sort_keys=True) for entry in state.log_history if len(cleaned := clean_entry(entry)) > 2
        ]
        write_text(self.metrics_path, "\n".join(lines) + "\n")

    def on_save(self, args: Arguments, state: State, control: Control, **kwargs: Any) -> None:
        """Mark the checkpoint as whole and remove the older ones."""
        if not state.is_world_process_zero:
            return
        newest = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        assert self.trainer is not None
        pending = {"n_summed": self.trainer.n_summed, "term_sums": self.trainer.term_sums}
        write_text(newest / COMPLETE, json.dumps(pending))
        for folder in Path(args.output_dir).glob("checkpoint-*"):
            if folder != newest:
                (folder / COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, judge: Callable[[Objective], float], state: State) -> None:
        """Write the state beside the checkpoints; of two that are as good, the later one has seen more.

        What lies there may be of a later epoch than the checkpoint that a killed run goes on at: it is made again, as
        it was, before it is asked for.
        """
        before = [entry[HELD_OUT] for entry in state.log_history if HELD_OUT in entry]
        score = self._measured(lambda objective: {HELD_OUT: round(judge(objective), 6)}, state)[HELD_OUT]
        if all(score >= other for other in before):
            with written_whole(self.metrics_path.with_name(BEST)) as unfinished:
                save_model(self.objective, str(unfinished))

    def restore(self) -> None:
        """Put the best state back, where one was kept."""
        path = self.metrics_path.with_name(BEST)
        if self.keep is not None and path.is_file():
            load_model(self.objective, str(path))

    def _score(self, state: State) -> None:
        """Evaluate the student on the rows the caller chose."""
        if self.evaluate is not None and state.is_world_process_zero:
            self._measured(self.evaluate, state)

    def _measured(self, measure: Callable[[Objective], dict[str, float]], state: State) -> dict[str, float]:
        """Return scores of the objective as it is, which are in the log then."""
        self.objective.eval()
        found = measure(self.objective)
        self.objective.train()
        state.log_history.append({"step": state.global_step, "epoch": state.epoch, **found})
        assert self.trainer is not None
        self.trainer.report(found)  # which calls ``on_log`` here too
        return found


def clean_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a log entry without what differs between a resumed run and a whole one, as plain JSON numbers."""
    dropped = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss")
    return {
        key: float(value) if isinstance(value, np.floating) else value
        for key, value in entry.items()
        if key not in dropped
    }


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

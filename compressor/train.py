"""One training stage: an objective and rows in, a trained student and its log out.

A small ``transformers.Trainer`` subclass: the named loss terms of the objective are added up and logged one by one,
as JSON lines in ``metrics.jsonl``; batches are grouped by length; bfloat16 where the processor multiplies it in
hardware. The teacher is not here: its outputs come with the batches. A killed stage goes on at its last checkpoint
and ends with the same weights: data order depends on seed and epoch only. ``torchrun`` works unchanged.
"""

import json
import logging
import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import SaveStrategy

from compressor.batches import Collate, EncodedRows, LengthSampler, RowDataset
from compressor.checkpoints import COMPLETE, last_checkpoint
from compressor.forward import has_fast_bfloat16

logger = logging.getLogger(__name__)
LOG_EVERY = 20
SAVE_SECONDS = 60.0
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Optimisation:
    """The optimisation common to all methods."""

    epochs: float
    learning_rate: float
    batch_size: int  # rows per step over all processes
    warmup: float
    weight_decay: float
    seed: int


class StageTrainer(Trainer):
    """Adds up named loss terms and remembers them for the log."""

    def __init__(self, *, rows: EncodedRows, optimisation: Optimisation, **kwargs: Any) -> None:  # Trainer's own
        super().__init__(**kwargs)
        self.rows, self.optimisation = rows, optimisation
        self.term_sums: dict[str, float] = defaultdict(float)
        self.n_summed = 0
        self.sampler = LengthSampler(rows.lengths, self.args.per_device_train_batch_size, optimisation.seed)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthSampler:  # Trainer's own
        return self.sampler

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:  # Trainer's own
        """Give each parameter the learning rate that its objective asks for, where it asks."""
        rate_of = getattr(self.model, "rate_of", None)
        if rate_of is None:
            return super().create_optimizer(*args, **kwargs)
        decayed = set(self.get_decay_parameter_names(self.model))
        stage_rate = self.args.learning_rate
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rate = rate_of(name)
                decay = self.args.weight_decay if name in decayed else 0.0
                groups[stage_rate if rate is None else rate, decay].append(parameter)
        optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        listed = [
            {"params": members, "lr": rate, "weight_decay": decay}
            # The stage's own rate first: it is the one in the log.
            for (rate, decay), members in sorted(groups.items(), key=lambda item: (item[0][0] != stage_rate, item[0]))
        ]
        self.optimizer: torch.optim.Optimizer = optimizer_class(listed, **settings)
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return the sum of the objective's terms.

        Raises:
            FloatingPointError: if a term is not finite; the last checkpoint is untouched.
        """
        terms = model(**inputs)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
            raise FloatingPointError(
                f"train: the loss is not finite at step {self.state.global_step} ({values}). "
                "Use a lower --learning-rate."
            )
        for name, value in terms.items():
            self.term_sums[name] += float(value.detach())
        self.n_summed += 1
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean of each term since the last line, and their sum; Trainer's own mean forgets a resume."""
        if "loss" in logs and self.n_summed:
            means = {f"loss_{name}": value / self.n_summed for name, value in self.term_sums.items()}
            observe = getattr(self.accelerator.unwrap_model(self.model), "observe", dict)
            logs |= {"loss": sum(means.values()), **means, **observe()}
            self.term_sums.clear()
            self.n_summed = 0
        super().log(logs, start_time)


class StageCallback(TrainerCallback):
    """Writes metrics.jsonl, evaluates after each epoch, checkpoints by time, and marks whole checkpoints."""

    def __init__(
        self,
        objective: nn.Module,
        metrics_path: Path,
        evaluate: Callable[[nn.Module], dict[str, float]] | None,
        progress: Callable[[int, int], None],
    ) -> None:
        self.objective, self.metrics_path, self.evaluate, self.progress = objective, metrics_path, evaluate, progress
        self.saved_at = 0.0
        self.trainer: StageTrainer | None = None

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the sampler the epoch: where several processes resume, accelerate's wrappers keep it from it."""
        assert self.trainer is not None
        self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Show progress; ask for a checkpoint once a minute (when a checkpoint is made changes no weight)."""
        self.progress(state.global_step, state.max_steps)
        self.saved_at = self.saved_at or time.monotonic()
        # Never after the last step of an epoch: a run that goes on there would not evaluate that epoch.
        is_epoch_end = state.epoch is not None and state.epoch % 1 == 0
        is_time = time.monotonic() - self.saved_at > SAVE_SECONDS and not is_epoch_end
        if is_time and state.global_step < state.max_steps:
            control.should_save = True
            self.saved_at = time.monotonic()
        return control

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clip what has a learning rate of its own by itself: a teacher's gradient must not scale the student's."""
        if args.max_grad_norm > 0:
            return  # the trainer has clipped all parameters together
        by_rate: dict[float, list[nn.Parameter]] = defaultdict(list)
        for group in kwargs["optimizer"].param_groups:
            by_rate[group["initial_lr"]] += group["params"]
        for members in by_rate.values():
            nn.utils.clip_grad_norm_(members, MAX_GRAD_NORM)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate the student on the rows the caller chose."""
        if self.evaluate is not None and state.is_world_process_zero:
            self.objective.eval()
            metrics = self.evaluate(self.objective)
            self.objective.train()
            state.log_history.append({"step": state.global_step, "epoch": state.epoch, **metrics})
            self._write(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Rewrite metrics.jsonl from the state, so that a resumed run repeats no line."""
        if state.is_world_process_zero:
            self._write(state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint as whole and remove the older ones."""
        if not state.is_world_process_zero:
            return
        newest = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        assert self.trainer is not None
        pending = {"n_summed": self.trainer.n_summed, "term_sums": self.trainer.term_sums}
        unfinished = newest / f"{COMPLETE}.tmp"
        unfinished.write_text(json.dumps(pending), encoding="utf-8")
        unfinished.rename(newest / COMPLETE)
        for folder in Path(args.output_dir).glob("checkpoint-*"):
            if folder != newest:
                (folder / COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)

    def _write(self, state: TrainerState) -> None:
        lines = [
            json.dumps(cleaned, sort_keys=True) for entry in state.log_history if len(cleaned := _clean(entry)) > 2
        ]
        unfinished = self.metrics_path.with_suffix(".tmp")
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
        unfinished.rename(self.metrics_path)


def train_stage(
    objective: nn.Module,
    rows: EncodedRows,
    collate: Collate,
    optimisation: Optimisation,
    work_dir: Path,
    evaluate: Callable[[nn.Module], dict[str, float]] | None,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Train ``objective`` in place and return the log; ``work_dir`` keeps checkpoints until the caller removes it."""
    set_seed(optimisation.seed)
    _choose_attention(objective)
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    arguments = TrainingArguments(
        output_dir=str(work_dir),
        per_device_train_batch_size=max(1, optimisation.batch_size // n_processes),
        num_train_epochs=optimisation.epochs,
        learning_rate=optimisation.learning_rate,
        warmup_steps=math.ceil(optimisation.warmup * n_steps(len(rows.lengths), optimisation)),
        weight_decay=optimisation.weight_decay,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        max_grad_norm=0.0 if hasattr(objective, "rate_of") else MAX_GRAD_NORM,
        bf16=has_fast_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=min(LOG_EVERY, max(1, n_steps(len(rows.lengths), optimisation) // 10)),
        save_strategy=SaveStrategy.NO,
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=optimisation.seed,
        ddp_find_unused_parameters=True,
        ddp_backend=None if torch.cuda.is_available() or n_processes == 1 else "gloo",
    )
    callback = StageCallback(objective, work_dir / "metrics.jsonl", evaluate, progress)
    trainer = StageTrainer(
        rows=rows,
        optimisation=optimisation,
        model=objective,
        args=arguments,
        train_dataset=RowDataset(len(rows.lengths)),
        data_collator=collate,
        callbacks=[callback],
    )
    callback.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(work_dir)
    if checkpoint is not None:
        logger.info("train: goes on at %s", checkpoint.name)
        pending = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        trainer.term_sums.update(pending["term_sums"])
        trainer.n_summed = pending["n_summed"]
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    objective.eval()
    return [_clean(entry) for entry in trainer.state.log_history]


def _choose_attention(objective: nn.Module) -> None:
    """Let every model inside compute attention by plain products on a CPU.

    The fused kernel takes less memory but is slow backwards there: 20 of 34 ms of a layer's step at 128 x 15 tokens in
    bfloat16, and a step of a 6 x 96 student takes 0.21 s with it and 0.11 s without (one thread of an EPYC).
    """
    if torch.cuda.is_available():
        return
    for module in objective.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")


def n_steps(n_rows: int, optimisation: Optimisation) -> int:
    """Return how many optimizer steps a stage takes."""
    return math.ceil(math.ceil(n_rows / optimisation.batch_size) * optimisation.epochs)


def _clean(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a log entry without what differs between a resumed run and a whole one, as plain JSON numbers."""
    dropped = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss")
    return {
        key: float(value) if isinstance(value, np.floating) else value
        for key, value in entry.items()
        if key not in dropped
    }

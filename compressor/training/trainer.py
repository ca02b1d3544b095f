"""One training stage: an objective and rows in, a trained student and its log out.

A small ``transformers.Trainer`` subclass: the named loss terms of the objective are added up and logged one by one,
as JSON lines in ``metrics.jsonl``; batches are grouped by length, and may pass in parts whose gradients are averaged;
bfloat16 where the processor multiplies it in hardware. The teacher is not here: its outputs come with the batches. A
killed stage goes on at its last checkpoint and ends with the same weights: data order depends on seed and epoch only.
``torchrun`` works unchanged.
"""

import contextlib
import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import SaveStrategy

from compressor.batches.encoded import Collate, EncodedRows, LengthSampler, RowDataset
from compressor.batches.outputs import has_fast_bfloat16
from compressor.files import read_json
from compressor.refused import Refused
from compressor.training import projection
from compressor.training.callbacks import COMPLETE, MAX_GRAD_NORM, StageCallback, clean_entry, last_checkpoint
from compressor.training.objective import Objective
from compressor.training.trackers import Tracking, tracked

if TYPE_CHECKING:
    from compressor.recipe.sections import StageSection

logger = logging.getLogger(__name__)
LOG_EVERY = 20
SAVE_SECONDS = 60.0


class NotFinite(Refused, FloatingPointError):
    """The loss of a step is infinite or no number."""


@dataclass(frozen=True)
class Optimisation:
    """The optimisation common to all methods."""

    epochs: float
    learning_rate: float
    batch_size: int  # rows per step over all processes
    warmup: float
    weight_decay: float
    seed: int
    micro_batch: int | None = None  # rows per forward pass, which divide batch_size; None: all
    evaluate_every: int | None = None  # steps; None: after each epoch


def optimisation_of(stage: "StageSection", seed: int) -> Optimisation:
    """Return the optimisation of a stage in which nothing is left open."""
    assert stage.epochs is not None and stage.learning_rate is not None and stage.batch_size is not None
    same = {each.name: getattr(stage, each.name) for each in fields(Optimisation) if each.name != "seed"}
    return Optimisation(seed=seed, **same)


class StageTrainer(Trainer):
    """Adds up named loss terms and remembers them for the log."""

    def __init__(self, *, rows: EncodedRows, optimisation: Optimisation, **kwargs: Any) -> None:  # Trainer's own
        super().__init__(**kwargs)
        # Objectives take any batch, so Trainer believes that they divide by the number of labels in all parts of a
        # batch; it would then add the parts up where their mean is wanted.
        self.model_accepts_loss_kwargs = False
        self.rows, self.optimisation = rows, optimisation
        self.grad_norm: float | None = None  # of the last step, where the objective changes gradients before it
        self.term_sums: dict[str, float] = defaultdict(float)
        self.n_summed = 0
        # The same order in parts or whole.
        n_rows = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        self.sampler = LengthSampler(rows.lengths, n_rows, optimisation.seed, rows.n_variations)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthSampler:  # Trainer's own
        return self.sampler

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:  # Trainer's own
        """Give each parameter the learning rate and weight decay that its objective asks for, where it asks."""
        rate_of, is_undecayed = (getattr(self.model, name, None) for name in ("rate_of", "is_undecayed"))
        if rate_of is None and is_undecayed is None:
            return super().create_optimizer(*args, **kwargs)
        names = self.get_decay_parameter_names(self.model)
        decayed = {name for name in names if is_undecayed is None or not is_undecayed(name)}
        stage_rate = self.args.learning_rate
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rate = None if rate_of is None else rate_of(name)
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

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_given: object, **_more: object) -> Tensor:
        """Return the sum of the objective's terms.

        Raises:
            NotFinite: if a term is not finite; the last checkpoint is untouched.
        """
        terms = model(**inputs)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
            raise NotFinite(
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
            observe = self.accelerator.unwrap_model(self.model).observe
            norm = {} if self.grad_norm is None else {"grad_norm": self.grad_norm}
            logs |= {"loss": sum(means.values()), **means, **norm, **observe()}
            self.term_sums.clear()
            self.n_summed = 0
        super().log(logs, start_time)

    def report(self, scores: dict[str, float]) -> None:
        """Tell the trackers of scores that are in the log already."""
        should_log = self.control.should_log  # the handler takes this call for the line that is still to come
        self.callback_handler.on_log(self.args, self.state, self.control, dict(scores))
        self.control.should_log = should_log


def train_stage(
    objective: Objective,
    rows: EncodedRows,
    collate: Collate,
    optimisation: Optimisation,
    work_dir: Path,
    evaluate: Callable[[Objective], dict[str, float]] | None,
    progress: Callable[[int, int], None],
    tracking: Tracking | None = None,
    carried: frozenset[str] = frozenset(),
    keep: Callable[[Objective], float] | None = None,
) -> list[dict[str, Any]]:
    """Train ``objective`` in place and return the log; ``work_dir`` keeps checkpoints until the caller removes it.

    The maps of the objective are solved for first (``compressor.training.projection``), but for those ``carried``.
    With ``keep``, a score on rows that are held out, the objective ends as it was after the epoch that scored best.
    """
    set_seed(optimisation.seed)
    _choose_attention(objective)
    metrics_path, every = work_dir / "metrics.jsonl", optimisation.evaluate_every
    callback = StageCallback(objective, metrics_path, evaluate, progress, every, SAVE_SECONDS, keep)
    trainer = StageTrainer(
        rows=rows,
        optimisation=optimisation,
        model=objective,
        args=_arguments(objective, rows.n_rows, optimisation, work_dir, tracking),
        train_dataset=RowDataset(rows.n_rows),
        data_collator=collate,
        callbacks=[callback],
    )
    callback.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(work_dir)
    if checkpoint is not None:
        logger.info("train: goes on at %s", checkpoint.name)
        pending = read_json(checkpoint / COMPLETE)
        trainer.term_sums.update(pending["term_sums"])
        trainer.n_summed = pending["n_summed"]
    else:
        n_at_once = trainer.args.per_device_train_batch_size
        projection.fit(objective, trainer.sampler, collate, carried, n_at_once)
    n_done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    with tracked(trainer, tracking, work_dir, n_done) if tracking else contextlib.nullcontext():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    callback.restore()
    objective.eval()
    return [clean_entry(entry) for entry in trainer.state.log_history]


def _arguments(
    objective: Objective, n_rows: int, optimisation: Optimisation, work_dir: Path, tracking: Tracking | None
) -> TrainingArguments:
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    share = max(1, optimisation.batch_size // n_processes)
    # At most as many as were asked for: the parts of a process's share must be equal too.
    n_at_once = math.gcd(share, optimisation.micro_batch or share)
    return TrainingArguments(
        output_dir=str(work_dir),
        per_device_train_batch_size=n_at_once,
        gradient_accumulation_steps=share // n_at_once,
        num_train_epochs=optimisation.epochs,
        learning_rate=optimisation.learning_rate,
        warmup_steps=math.ceil(optimisation.warmup * n_steps(n_rows, optimisation)),
        weight_decay=optimisation.weight_decay,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        # Zero leaves the clipping to the callback.
        max_grad_norm=0.0 if objective.clips_apart or objective.makes_gradients else MAX_GRAD_NORM,
        bf16=has_fast_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=min(LOG_EVERY, max(1, n_steps(n_rows, optimisation) // 10)),
        save_strategy=SaveStrategy.NO,
        eval_strategy="no",
        **(tracking.arguments() if tracking else {"report_to": []}),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=optimisation.seed,
        ddp_find_unused_parameters=True,
        ddp_backend=None if torch.cuda.is_available() or n_processes == 1 else "gloo",
    )


def _choose_attention(objective: Objective) -> None:
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

"""How a stage of the tests is trained, with which objectives and methods."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.methods import finetune
from compressor.training.contract import Context, model_inputs
from compressor.training.imitation import without_dropout
from compressor.training.trackers import Tracking
from compressor.training.trainer import Optimisation, StageTrainer, train_stage
from tests.support.method_cases import context_of, make_case, state_of


def descent(self: StageTrainer, *_args: Any) -> torch.optim.Optimizer:
    """Plain gradient descent: unlike Adam's, its steps do not blow up the rounding of small gradients."""
    self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.args.learning_rate)
    return self.optimizer


STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "distill": ("distill", {}),
    "mixed": ("mixed_vocabulary", {"mix_ramp": 0.6}),
    "dual": ("dual_training", {"mix_ramp": 0.4, "every": 2}),
    "dual-mlm": ("dual_training", {"objective": "mlm", "projection": "up", "attention": 1.0}),
    "parts": ("distill", {"dropout": 0.2}),
    "dual-parts": ("dual_training", {"mix_ramp": 0.4}),
}


PARTS = {"micro_batch": 2, "evaluate_every": 4}


def train(
    tmp_path: Path, stage: str = "distill", stop_at: int | None = None, tracking: Tracking | None = None
) -> dict[str, torch.Tensor]:
    """Train a stage for three epochs of three steps and return everything that was trained."""
    method, options = STAGES[stage]
    case = make_case(method, context_of(), options)

    def progress(step: int, _total: int) -> None:
        if stop_at is not None and step == stop_at:
            raise KeyboardInterrupt

    def evaluate(objective: torch.nn.Module) -> dict[str, float]:
        return {"eval_norm": float(sum(value.detach().norm() for value in objective.parameters()))}

    parts = PARTS if stage.endswith("parts") else {}
    optimisation = Optimisation(3.0, 1e-3, 8, 0.1, 0.01, seed=7, **parts)
    score = evaluate if parts else None
    train_stage(case.objective, case.rows, case.collate, optimisation, tmp_path, score, progress, tracking)
    return state_of(case.objective)


def curves(events_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of every scalar that tensorboard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(events_dir)).Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


METHOD = "teacher_predictions"


def stages(**options: Any) -> list[dict[str, Any]]:
    return [{"method": METHOD, "epochs": 1, "options": options}, {"method": "distill", "epochs": 1}]


CLASSIFIER = "classifier.weight"


class ByAutograd(finetune.Objective):
    """Fine-tuning of a student whose classifier is a trained factor times a frozen tensor."""

    loss_factor = 1.0

    def __init__(self, context: Context, options: finetune.Options) -> None:
        super().__init__(context, options)
        without_dropout(self.student)
        weight = self.student.get_parameter(CLASSIFIER).requires_grad_(False)
        self.register_buffer("frozen", weight.detach().clone())
        self.factor = nn.Parameter(torch.tensor(1.5))

    def weight(self) -> Tensor:
        return self.factor * self.frozen

    def forward(self, labels: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        made = {CLASSIFIER: self.weight()}
        logits = torch.func.functional_call(self.student, made, (), model_inputs(batch)).logits.float()
        return {"labels": self.loss_factor * F.cross_entropy(logits, labels)}


class ByHand(ByAutograd):
    """The same: the classifier is computed once a step, and its gradient becomes the factor's before the next."""

    makes_gradients = is_folded = True

    def __init__(self, context: Context, options: finetune.Options) -> None:
        super().__init__(context, options)
        self.register_buffer("n_done", torch.tensor(0))
        self.events: list[tuple[str, Any]] = []
        self.computed = self.frozen

    def weight(self) -> Tensor:
        return self.computed

    def begin(self, n_steps: int) -> None:
        self.events.append(("begin", n_steps))
        self._compute()

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        assert self.factor.grad is None and self.computed.grad is not None
        self.factor.grad = (self.computed.grad * self.frozen).sum()
        self.events.append(("before", self._norms(optimizer)))

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.events.append(("after", self._norms(optimizer)))
        self.events.append(("rate", optimizer.param_groups[0]["lr"]))
        self.n_done += 1
        self._compute()

    def finish(self, batches: list[dict[str, Tensor]]) -> dict[str, Any]:
        plain = copy.deepcopy(self.student)
        with torch.no_grad():
            plain.get_parameter(CLASSIFIER).copy_(self.factor * self.frozen)
        self.student = plain
        return {"rows": sum(len(batch["input_ids"]) for batch in batches), "device": str(self.factor.device)}

    def _compute(self) -> None:
        self.computed = (self.factor * self.frozen).detach().requires_grad_()

    @staticmethod
    def _norms(optimizer: torch.optim.Optimizer) -> dict[float, float]:
        found: dict[float, list[Tensor]] = {}
        for group in optimizer.param_groups:
            found.setdefault(group["initial_lr"], []).extend(p.grad for p in group["params"] if p.grad is not None)
        return {rate: float(torch.stack([each.norm() for each in grads]).norm()) for rate, grads in found.items()}

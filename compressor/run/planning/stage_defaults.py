"""How long to train when the user does not say: epochs, batch and learning rate of a stage, and what time that takes.

The rule of thumb is a number of tokens, not of epochs: about ten to twenty minutes on two cores for a student of 10 M
weights. More epochs help, and are the user's to give.
"""

import math

import numpy as np

from compressor.data.table import Table
from compressor.recipe.sections import StageSection
from compressor.training.registry import Stage
from exporters.shape import Shape

TARGET_TOKENS = 1_600_000
STEP_TOKENS = 1600
BATCH_SIZES = (16, 32, 64, 128)
MIN_EPOCHS, MAX_EPOCHS = 1.0, 15.0
MANY_ROWS = 20_000  # to fine-tune on


def fill_stage(stage: Stage, is_copied: bool, train: Table, max_length: int) -> Stage:
    """Fill in the optimisation: about ``TARGET_TOKENS`` tokens, more carefully where whole layers were copied."""
    section, objective_class = stage.section, stage.method.objective_class
    own_rate, share = objective_class.learning_rate, objective_class.token_share
    n_tokens = _n_tokens(train, max_length)
    wanted = STEP_TOKENS * len(train) / n_tokens
    nearest = min(BATCH_SIZES, key=lambda size: abs(math.log(size / wanted)))
    most = float(np.clip(TARGET_TOKENS / n_tokens, MIN_EPOCHS, MAX_EPOCHS))
    filled = {
        "batch_size": section.batch_size or in_parts(nearest, section.micro_batch),
        "epochs": section.epochs or (round(most, 1) if share == 1.0 else round(share * most, 2)),
        "learning_rate": section.learning_rate or own_rate or (1e-4 if is_copied else 3e-4),
    }
    return stage._replace(section=section.model_copy(update=filled))


def fill_finetuning(stage: StageSection, n_rows: int) -> StageSection:
    """Fill in how a pretrained model is fine-tuned on so many rows."""
    is_large = n_rows >= MANY_ROWS
    return stage.model_copy(
        update={
            "batch_size": stage.batch_size or in_parts(64 if is_large else 32, stage.micro_batch),
            "epochs": stage.epochs or (3.0 if is_large else 4.0),
            "learning_rate": stage.learning_rate or 7e-5,
        }
    )


def in_parts(batch_size: int, micro_batch: int | None) -> int:
    """Return the batch nearest to ``batch_size`` that consists of whole parts.

    >>> in_parts(32, None), in_parts(32, 12), in_parts(32, 100)
    (32, 36, 100)
    """
    return batch_size if micro_batch is None else micro_batch * max(1, round(batch_size / micro_batch))


def _n_tokens(train: Table, max_length: int) -> float:
    """Return about how many of the student's tokens one epoch has."""
    n_words = sum(len(text.split()) + 1 for text in [*train.texts, *(train.pairs or [])]) + len(train)
    return min(1.3 * n_words, float(len(train) * max_length))


def effort(
    stages: tuple[Stage, ...], student: Shape, teacher: Shape, train: Table, max_length: int
) -> tuple[int, float]:
    """Return optimizer steps and seconds: 6 operations per weight and token, at half the speed of a matrix product."""
    from compressor.batches.outputs import measure_flops

    n_tokens = _n_tokens(train, max_length)
    n_student, n_teacher = (shape.n_multiplications for shape in (student, teacher))
    n_wide = n_teacher * student.n_passes / teacher.n_passes
    n_weight_epochs = 0.0
    n_steps = 0
    for stage in stages:
        epochs, batch_size, folds = stage.section.epochs or 0.0, stage.section.batch_size or 1, stage.wants.folds
        n_run = n_wide if stage.method.objective_class.runs_wide else n_student
        n_weight_epochs += (n_run + n_teacher * stage.trains_teacher * stage.wants.teacher_share) * epochs
        if folds:  # each of their teachers sees all rows but its own
            default = fill_finetuning(StageSection(method="finetune"), len(train)).epochs or 0.0
            n_weight_epochs += n_teacher * (folds.n_folds - 1) * (folds.epochs or default)
        n_steps += math.ceil(math.ceil(len(train) / batch_size) * epochs)
    return n_steps, 6 * n_weight_epochs * n_tokens / (0.5 * measure_flops()) + 0.02 * n_steps

"""How long to train when the user does not say: epochs, batch and learning rate of a stage, and what time that takes.

Every student gets the same *amount of arithmetic*, whatever its size and whatever the machine: about what the student
of 7 MB needs for 1.8 million tokens, times ``effort``. A token costs a student its multiplications, and what every step
of a layer takes beside them, which weighs more the narrower it is: measured on one core of an EPYC, a step takes 30 ps
for each of

    multiplications + OVERHEAD * passes * width        per token

at 3 x 128 to 6 x 384. So a student of half the width sees about three times as many tokens. A small encoder takes
``SMALL_OVERHEAD`` for each value of its states, and no rate depends on its width.
"""

import math

from compressor.data.table import Table
from compressor.recipe.sections import StageSection
from compressor.training.contract import Situation
from compressor.training.registry import Stage, resolve
from exporters.shape import Shape
from exporters.small.shape import SmallShape

WORK = 2.5e13  # multiplications, overhead included
OVERHEAD = 1640
SMALL_OVERHEAD = {"recurrent": 3400, "convolution": 1000, "mean": 1000}
FORWARD = 1 / 3  # of a step's work
STEP_TOKENS = 1600
BATCH_SIZES = (16, 32, 64, 128)
MOST_EPOCHS, MOST_VARIED = 15.0, 60.0  # times effort above 1: on the rows as they are, and where they vary
FEW_ROWS, MANY_ROWS = 500, 20_000  # to fine-tune on
FINETUNING_STEPS, FINETUNING_RATE = 600, 1e-4  # the rate of a model of ``WIDTH``
MOST_VARIATIONS = 4
FEWEST_EPOCHS = 3.0  # below, a row is not seen often enough to be learned by heart
SMALL_RATES = {"recurrent": 2e-3, "convolution": 2e-3, "mean": 5e-3}  # of small encoders, whatever their width
STEPS, SMALL_STEPS = 100, 6000  # of a small encoder: in an epoch at least, and in all at most where rows are few
# The narrower the student, the higher its learning rate; whole layers that were copied are trained more carefully.
NARROW_RATE, COPIED_RATE, WIDTH, MOST_RATE = 3e-4, 2e-4, 384, 1e-3


def work_per_token(shape: Shape) -> float:
    """Return the work of one token in a step."""
    if isinstance(shape, SmallShape):
        return float(shape.n_multiplications + SMALL_OVERHEAD[shape.family] * shape.state)
    return float(shape.n_multiplications + OVERHEAD * shape.n_passes * shape.hidden)


def stage_work(stage: Stage, student: Shape, teacher: Shape) -> float:
    """Return the work of one token of a stage: of the student and of a teacher that runs along."""
    theirs = work_per_token(teacher)
    own = theirs * student.n_passes / teacher.n_passes if stage.method.objective_class.runs_wide else None
    return (own or work_per_token(student)) + theirs * stage.trains_teacher * stage.wants.teacher_share


def fill_stage(
    stage: Stage,
    train: Table,
    max_length: int,
    student: Shape,
    teacher: Shape,
    *,
    is_copied: bool,
    has_head: bool,
    effort: float = 1.0,
) -> Stage:
    """Fill in the optimisation of a stage, and of its options what depends on it.

    Args:
        stage: with what the user has said of it.
        train: the rows that the student sees.
        max_length: of a row in tokens.
        student: its shape.
        teacher: its shape.
        is_copied: whole layers are the teacher's, and are trained more carefully.
        has_head: the student answers in classes or scores.
        effort: of the default amount of work.
    """
    section, objective_class = stage.section, stage.method.objective_class
    n_tokens = _n_tokens(train, max_length)
    wanted = STEP_TOKENS * len(train) / n_tokens
    nearest = min(BATCH_SIZES, key=lambda size: abs(math.log(size / wanted)))
    if isinstance(student, SmallShape):  # its steps are cheap, and it needs many of them
        nearest = max(
            [size for size in BATCH_SIZES if size <= nearest and len(train) >= STEPS * size] or BATCH_SIZES[:1]
        )
    affordable = effort * WORK * objective_class.token_share / (stage_work(stage, student, teacher) * n_tokens)
    most = MOST_VARIED if stage.wants.varies else MOST_EPOCHS
    if isinstance(student, SmallShape):
        most = min(most, max(MOST_EPOCHS, SMALL_STEPS * nearest / len(train)))
    most *= max(1.0, effort)
    epochs = section.epochs or float(f"{min(affordable, most * objective_class.token_share):.2g}")
    if isinstance(student, SmallShape):
        rate = SMALL_RATES[student.family]
    else:
        rate = min(MOST_RATE, (COPIED_RATE if is_copied else NARROW_RATE) * WIDTH / student.hidden)
    filled = {
        "batch_size": section.batch_size or in_parts(nearest, section.micro_batch),
        "epochs": epochs,
        "learning_rate": section.learning_rate or objective_class.learning_rate or float(f"{rate:.2g}"),
    }
    suited = stage.options.suited(section.options, Situation(epochs, has_head, isinstance(student, SmallShape)))
    return resolve(section.model_copy(update={**filled, "options": {**section.options, **suited}}))


def fitting_variations(
    stages: tuple[Stage, ...], train: Table, max_length: int, student: Shape, teacher: Shape, effort: float
) -> int:
    """Return how many variations of every row the teacher should answer.

    None where rows are seen too seldom to be learned by heart, and no more than take the teacher as much work as the
    student.
    """
    epochs = max((stage.section.epochs or 0.0 for stage in stages if stage.wants.varies), default=0.0)
    if epochs < FEWEST_EPOCHS:
        return 0
    n_tokens = _n_tokens(train, max_length)
    work = work_per_token(student) * n_tokens * epochs
    of_teacher = FORWARD * work_per_token(teacher) * n_tokens  # for one
    return min(MOST_VARIATIONS, math.floor(max(work, effort * WORK) / of_teacher))


def fill_finetuning(stage: StageSection, n_rows: int, width: int = WIDTH) -> StageSection:
    """Fill in how a pretrained model of some width is fine-tuned on so many rows.

    Few rows are seen more often, for about ``FINETUNING_STEPS`` steps; the wider the model, the lower its rate.
    """
    is_large = n_rows >= MANY_ROWS
    batch_size = stage.batch_size or in_parts(64 if is_large else 32 if n_rows >= FEW_ROWS else 16, stage.micro_batch)
    usual = min(15.0, max(4.0, round(FINETUNING_STEPS * batch_size / n_rows)))
    rate = min(MOST_RATE, FINETUNING_RATE * (WIDTH / width) ** 1.5)
    return stage.model_copy(
        update={
            "batch_size": batch_size,
            "epochs": stage.epochs or (2.0 if is_large else float(usual)),
            "learning_rate": stage.learning_rate or float(f"{rate:.2g}"),
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


def estimate(
    stages: tuple[Stage, ...], student: Shape, teacher: Shape, train: Table, max_length: int
) -> tuple[int, float]:
    """Return optimizer steps and seconds: 6 operations a unit of work, at half the speed of a matrix product."""
    from compressor.batches.outputs import measure_flops

    n_tokens = _n_tokens(train, max_length)
    work = 0.0
    n_steps = 0
    for stage in stages:
        epochs, batch_size, folds = stage.section.epochs or 0.0, stage.section.batch_size or 1, stage.wants.folds
        work += stage_work(stage, student, teacher) * epochs
        if folds:  # each of their teachers sees all rows but its own
            default = fill_finetuning(StageSection(method="finetune"), len(train)).epochs or 0.0
            work += work_per_token(teacher) * (folds.n_folds - 1) * (folds.epochs or default)
        n_steps += math.ceil(math.ceil(len(train) / batch_size) * epochs)
    return n_steps, 6 * work * n_tokens / (0.5 * measure_flops())

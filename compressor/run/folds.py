"""What teachers say about rows that they have not seen: one per fold, each made on the rows of the other folds.

A teacher is right on nearly every row that it was fine-tuned on, and sure of it; how it does on other rows shows only
where it has not learned them. So the rows are cut into folds, and for each a pretrained model is fine-tuned on all the
others, exactly as ``tenmeg finetune`` would, and answers the fold. That is a step of its own, which runs with one cache
share. Each fold's outputs stay in its folder, and a fold that was cut short goes on at its checkpoint, or with its
answers where it is trained.
"""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compressor.data.splits import fold_numbers
from compressor.data.table import select
from compressor.files import written_whole
from compressor.recipe.sections import StageSection
from compressor.run.finetune import Prepared, train_model, trained_predictor
from compressor.run.journal import is_first_process
from compressor.run.planning.stage_defaults import fill_finetuning
from compressor.student.pretrained import read_base
from compressor.training.contract import Folds

if TYPE_CHECKING:
    from compressor.run.planning.plan import Plan

POLL_SECONDS = 0.2
OUTPUTS = "outputs.npy"  # of all rows, in the folder of the step


def fold_step(number: int) -> str:
    """Return the name of the step that makes the teachers of stage ``number``."""
    return f"folds-{number}"


def fold_key(planned: "Plan", wanted: Folds) -> dict[str, Any]:
    """Return what that step depends on beside the rows and the teacher: the pretrained model, and how it is taught."""
    base = read_base(wanted.base, planned.resolved.teacher, planned.info).hashes
    return {**wanted._asdict(), "base": base, "seed": planned.resolved.seed}


def run_folds(planned: "Plan", wanted: Folds, part: Path) -> None:
    """Write what the teachers that a stage wants say of all training rows."""
    outputs = out_of_fold_outputs(planned, wanted, part)
    if is_first_process():
        np.save(part / OUTPUTS, outputs)


def out_of_fold_outputs(planned: "Plan", wanted: Folds, folder: Path) -> npt.NDArray[np.float32]:
    """Return the outputs on all training rows (rows, classes), each by the teacher of its fold.

    Args:
        planned: the run.
        wanted: how many teachers, and how they are made.
        folder: keeps ``fold-N.npy``, the outputs on the rows of fold N in their order, and a fold's work until then.
    """
    base = read_base(wanted.base, planned.resolved.teacher, planned.info)
    table, n_folds, seed = planned.train, wanted.n_folds, planned.resolved.seed
    folds = fold_numbers(table, n_folds, seed)
    stage = StageSection(method="finetune", epochs=wanted.epochs or None, learning_rate=wanted.learning_rate or None)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for fold in range(n_folds):
        path, work = folder / f"fold-{fold + 1}.npy", folder / f"fold-{fold + 1}"
        # Written last by train_model. Asked before the path, whose process removes it only when the path is there.
        is_trained = (work / "metrics.jsonl").is_file()
        if not path.is_file():
            seen, unseen = (select(table, np.flatnonzero(chosen).tolist()) for chosen in (folds != fold, folds == fold))
            length = min(base.max_length, planned.max_length)
            filled = fill_finetuning(stage, len(seen), base.shape.hidden)
            prepared = Prepared(base, planned.spec, seen, unseen, filled, length)
            if not is_trained:
                work.mkdir(exist_ok=True)
                train_model(prepared, seed + fold, work, f"teacher {fold + 1} of {n_folds}")
            if is_first_process():
                _answer(prepared, work / "model", path)
            while not path.is_file():  # all processes are to read the same numbers
                time.sleep(POLL_SECONDS)
        if is_first_process():
            shutil.rmtree(work, ignore_errors=True)
        parts.append(np.load(path))
    outputs = np.zeros((len(table), parts[0].shape[1]), dtype=np.float32)
    for fold, part in enumerate(parts):
        outputs[folds == fold] = part
    return outputs


def _answer(prepared: Prepared, model_dir: Path, path: Path) -> None:
    """Write the outputs of a fold's teacher on the rows that it has not seen."""
    predict = trained_predictor(prepared, model_dir)
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, predict(prepared.evaluation.texts, prepared.evaluation.pairs))

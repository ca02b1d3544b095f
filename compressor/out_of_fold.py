"""What teachers say about rows that they have not seen: one per fold, each made on the rows of the other folds.

A teacher is right on nearly every row that it was fine-tuned on, and sure of it; how it does on other rows shows only
where it has not learned them. So the rows are cut into folds, and for each a pretrained model is fine-tuned on all the
others, exactly as ``tenmeg finetune`` would, and answers the fold. Each fold's outputs stay in the folder of the step,
and a fold that was cut short goes on at its checkpoint, or with its answers where it is trained.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compressor import data
from compressor.data import Table
from compressor.finetuning import Prepared, load_classifier, train_model
from compressor.forward import predictor
from compressor.given_vocabulary import speaking_of
from compressor.journal import is_first_process
from compressor.recipe import StageSection, TeacherSection
from compressor.schedule import fill_finetuning
from compressor.teacher import TeacherInfo, load_tokenizer, read_teacher

if TYPE_CHECKING:
    from compressor.plan import Plan

POLL_SECONDS = 0.2


def read_base(base: str, teacher: TeacherSection, info: TeacherInfo) -> TeacherInfo:
    """Return what the files of the pretrained model say, as the start of teachers with the given one's labels.

    Args:
        base: folder or hub id.
        teacher: the section of the given one, whose ``offline`` holds for it too.
        info: what the given teacher's files say.

    Raises:
        FileNotFoundError: if there is neither such a folder nor such a hub id.
        ValueError: if it is of a kind that is refused, or the given teacher itself.
    """
    section = TeacherSection(path=base, task="text-classification", offline=teacher.offline)
    try:
        with speaking_of(f"option base = {base!r}"):
            found = read_teacher(section)
    except (FileNotFoundError, ValueError) as error:  # its remedies are flags that say nothing about a base
        raise type(error)(_without_flags(str(error))) from error
    weights = {name: digest for name, digest in found.hashes.items() if name.endswith(".safetensors")}
    if weights and weights.items() <= info.hashes.items():
        raise ValueError(
            f"option base = {base!r} is the teacher itself, which has seen every row, expected the pretrained model "
            "that it was made from. Name that one."
        )
    return replace(found, task=info.task, kind=info.kind, labels=info.labels, pooling=None)


def _without_flags(sentence: str) -> str:
    sentence = sentence.replace("Check option.", "Check the path.")
    sentence = sentence.replace("Give --trust-remote-code if you trust it, or use", "Use")
    return sentence.replace(", or give --allow-pickle if you trust it.", ": a base is read from safetensors only.")


def out_of_fold_outputs(planned: "Plan", options: Any, folder: Path) -> npt.NDArray[np.float32]:
    """Return the outputs on all training rows (rows, classes), each by the teacher of its fold.

    Args:
        planned: the run.
        options: with ``out_of_fold``, ``base``, ``base_epochs`` and ``base_learning_rate``.
        folder: keeps ``fold-N.npy``, the outputs on the rows of fold N in their order, and a fold's work until then.
    """
    base = read_base(options.base, planned.resolved.teacher, planned.info)
    table, n_folds, seed = planned.train, options.out_of_fold, planned.resolved.seed
    folds = fold_numbers(table, n_folds, seed)
    stage = StageSection(
        method="finetune", epochs=options.base_epochs or None, learning_rate=options.base_learning_rate or None
    )
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for fold in range(n_folds):
        path, work = folder / f"fold-{fold + 1}.npy", folder / f"fold-{fold + 1}"
        # Written last by train_model. Asked before the path, whose process removes it only when the path is there.
        is_trained = (work / "metrics.jsonl").is_file()
        if not path.is_file():
            seen, unseen = (
                data.select(table, np.flatnonzero(chosen).tolist()) for chosen in (folds != fold, folds == fold)
            )
            length = min(base.max_length, planned.max_length)
            prepared = Prepared(base, planned.spec, seen, unseen, fill_finetuning(stage, len(seen)), length)
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
    tokenizer = load_tokenizer(model_dir)._tokenizer
    predict = predictor(load_classifier(model_dir, prepared.info), tokenizer, prepared.max_length, None)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        np.save(file, predict(prepared.evaluation.texts, prepared.evaluation.pairs))
    unfinished.rename(path)


def fold_numbers(table: Table, n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of every row (rows,), from 0: as even as can be, over every class alike, chosen by seed.

    Rows with the same texts are in the same fold, so that no teacher has seen a row's twin.

    Raises:
        ValueError: if there are fewer different rows than folds.
    """
    classes: dict[str, list[list[int]]] = {}
    for group in check_folds(table, n_folds):
        classes.setdefault(_class_of(table.labels, group[0]), []).append(group)
    generator = np.random.default_rng(seed)
    folds, n_dealt = np.zeros(len(table), dtype=np.int64), 0
    for name in sorted(classes):
        for index in generator.permutation(len(classes[name])):
            folds[classes[name][index]] = n_dealt % n_folds  # the deal goes on from class to class
            n_dealt += 1
    return folds


def check_folds(table: Table, n_folds: int) -> list[list[int]]:
    """Return the rows with the same texts, a group for each different text.

    Raises:
        ValueError: if there are fewer different rows than folds.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for row, text in enumerate(table.texts):
        groups.setdefault((text, table.pairs[row] if table.pairs else ""), []).append(row)
    if len(groups) < n_folds:
        raise ValueError(
            f"option out_of_fold = {n_folds} is more than the {len(groups)} different rows of {table.source}, expected "
            f"at most as many. Use out_of_fold = {max(2, len(groups))} or less."
        )
    return list(groups.values())


def _class_of(labels: Sequence[str] | Sequence[float] | None, row: int) -> str:
    """Return the row's class; all scores are of one."""
    return label if labels is not None and isinstance(label := labels[row], str) else ""

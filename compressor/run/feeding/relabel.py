"""Other labels for a stage's rows: what its objective makes of the teacher's outputs, before the first step.

An objective that relabels (``compressor.training.objective.Objective.relabel``) is shown the teacher's outputs on all
training rows and their labels; its batches carry the labels that it returns, and ``facts.json`` of the stage what it
says about them. Where the stage wants folds, the outputs are those of teachers that have not seen the rows.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compressor.batches.teacher_cache import TeacherCache, VariedCache
from compressor.files import read_json, write_json
from compressor.run.folds import OUTPUTS, fold_step
from compressor.run.journal import Journal, is_first_process
from compressor.training.objective import Objective

if TYPE_CHECKING:
    from compressor.run.planning.plan import Plan

FACTS = "facts.json"


def relabelled(
    planned: "Plan",
    journal: Journal,
    objective: Objective,
    number: int,
    cache: TeacherCache | VariedCache | None,
    labels: npt.NDArray[np.generic] | None,
    part: Path,
) -> npt.NDArray[np.generic] | None:
    """Return the labels (rows,) for the batches of stage ``number``; its facts go into ``part``, and are told."""
    if not objective.relabels:
        return labels
    assert labels is not None  # the plan asks for them
    stage = planned.stages[number - 1]
    if stage.wants.folds:
        outputs = np.load(journal.folder(fold_step(number)) / OUTPUTS)
    else:
        assert cache is not None
        outputs = cache.outputs(range(len(labels)))
    found = objective.relabel(outputs, labels)
    if is_first_process():
        write_json(part / FACTS, found.facts)
        told = {name: value for name, value in found.facts.items() if name != "note"}
        journal.echo(
            f"{stage.loss.name}: " + ", ".join(f"{name.replace('_', ' ')} {_short(told[name])}" for name in told)
        )
    return np.asarray(found.labels)


def read_facts(step_dir: Path) -> dict[str, Any]:
    """Return what a stage's step says of its rows: ``{"facts": {...}}``, or nothing."""
    path = step_dir / FACTS
    return {"facts": read_json(path)} if path.is_file() else {}


def _short(value: Any) -> str:  # Any: a number or a text of the facts
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)

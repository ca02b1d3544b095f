"""Other labels for a stage's rows: what its objective makes of the teacher's outputs, before the first step.

An objective with the hook ``relabel`` (``compressor.training.objective``) is shown the teacher's outputs on all
training rows and their labels; its batches carry the labels that it returns, and ``facts.json`` of the stage what it
says about them. With the option ``out_of_fold`` the outputs are those of teachers that have not seen the rows.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compressor.batches.teacher_cache import TeacherCache
from compressor.files import read_json, write_json
from compressor.run.folds import out_of_fold_outputs
from compressor.run.journal import Journal, is_first_process
from compressor.student.pretrained import read_base
from compressor.training.registry import innermost

if TYPE_CHECKING:
    from compressor.recipe.sections import StageSection
    from compressor.run.planning.plan import Plan

FACTS = "facts.json"


def relabelled(
    planned: "Plan",
    journal: Journal,
    objective: Any,  # an nn.Module and an Objective
    number: int,
    cache: TeacherCache | None,
    labels: npt.NDArray[np.generic] | None,
    part: Path,
) -> npt.NDArray[np.generic] | None:
    """Return the labels (rows,) for the batches of stage ``number``; its facts go into ``part``, and are told."""
    if not hasattr(objective, "relabel"):
        return labels
    stage = planned.resolved.stage[number - 1]
    method, options = innermost(stage.method, stage.options)
    if options.out_of_fold:
        outputs = out_of_fold_outputs(planned, options, part / "folds")
    else:
        assert cache is not None and labels is not None
        outputs = cache.outputs(range(len(labels)))
    found = objective.relabel(outputs, labels)
    if is_first_process():
        write_json(part / FACTS, found.facts)
        told = {name: value for name, value in found.facts.items() if name != "note"}
        journal.echo(f"{method}: " + ", ".join(f"{name.replace('_', ' ')} {_short(told[name])}" for name in told))
    return np.asarray(found.labels)


def read_facts(step_dir: Path) -> dict[str, Any]:
    """Return what a stage's step says of its rows: ``{"facts": {...}}``, or nothing."""
    path = step_dir / FACTS
    return {"facts": read_json(path)} if path.is_file() else {}


def base_key(planned: "Plan", stage: "StageSection") -> dict[str, Any]:
    """Return what a stage depends on beside the recipe: the files of the model that its own teachers are made from."""
    _, options = innermost(stage.method, stage.options)
    if not getattr(options, "out_of_fold", 0):
        return {}
    return {"base": read_base(options.base, planned.resolved.teacher, planned.info).hashes}


def _short(value: Any) -> str:  # Any: a number or a text of the facts
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)

"""What can be refused before anything heavy is imported: paths, columns and names that are wrong, in a second.

The same is looked at again by what does the work; here it is only asked for early. No torch, and no hub is asked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.data.columns import DETECTED, Columns
from compressor.data.splits import check_rows
from compressor.files import user_path
from compressor.models.families import family_of
from compressor.models.sentence_folder import model_folder
from compressor.models.teacher import find_folder, read_config
from compressor.models.vocabulary import speaking_of, vocabulary_file
from compressor.scoring.registry import trainable_kind
from compressor.training.registry import check_method

if TYPE_CHECKING:
    from compressor.recipe.recipe import FinetuneJob, Recipe
    from compressor.recipe.sections import DataSection


def check_recipe(recipe: "Recipe") -> None:
    """Refuse a recipe whose teacher, methods, rows or columns are not there."""
    check_model(recipe.teacher.path)
    for stage in recipe.stage:
        check_method(stage.method)
    if recipe.student.pretrained:
        with speaking_of(f"--pretrained {recipe.student.pretrained}"):
            _find(recipe.student.pretrained)
    if recipe.vocab.path:
        vocabulary_file(recipe.vocab.path)
    check_data(recipe.data)


def check_finetuning(job: "FinetuneJob") -> None:
    """Refuse a kind of task that is none, and a model, rows or columns that are not there."""
    if job.task:
        trainable_kind(job.task)
    check_model(job.teacher.path)
    check_data(job.data, needs_label=True)


def check_data(section: "DataSection", needs_label: bool = False) -> None:
    """Refuse rows to train on or to evaluate on that are not there, or have no such columns."""
    columns = Columns(section.text_column, section.pair_column, section.label_column)
    for source in (section.train, section.eval):
        if source is not None:
            check_rows(source, columns, needs_label)


def check_files(model: str, sources: Sequence[str], columns: Columns = DETECTED) -> None:
    """Refuse a model or files of rows that are not there."""
    check_model(model)
    for source in sources:
        check_rows(source, columns)


def check_model(path: str) -> None:
    """Refuse a folder that is not there, and one without a model."""
    if (folder := _find(path)) is not None:
        config = read_config(model_folder(folder))
        if "auto_map" not in config:
            family_of(str(config["model_type"]), for_export=True)


def _find(path: str) -> Path | None:
    """Return the folder of a model; None for a hub id, which is left to be fetched."""
    folder = user_path(path)
    is_hub_id = not folder.exists() and not path.startswith((".", "/", "~")) and path.count("/") <= 1
    return None if is_hub_id else find_folder(path, None, offline=True)

"""The sets that the comparisons of methods train on: rows, teachers and batches, scaled down for two cores.

SST-2 comes with its teacher. Those of MRPC, CLINC150 and SNIPS are fine-tuned here from the all-MiniLM-L6-v2 of the
extra ``demo`` (6 layers x 384). That is itself the teacher of STS-B: a sentence encoder, whose similarities are scored.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.docstring_search import teacher_folder
from benchmarks.support.runner import Prepared, finetuned_teacher, write_subset


class Setting(NamedTuple):
    """How one set is trained on."""

    files: tuple[str, str]  # training and dev rows; a folder holds texts in seq.in and their labels in label
    rows: int
    epochs: float
    batch_size: int
    teacher_epochs: float = 0.0  # 0: the teacher is given
    teacher_rate: float = 1e-4
    teacher_batch: int = 32
    is_encoder: bool = False  # the teacher is the sentence encoder itself, and there are no labels to learn from


SETS = {
    "SST-2": Setting(("train.tsv", "dev.tsv"), 20_000, 1.0, 128),
    "MRPC": Setting(("train.tsv", "dev.tsv"), 4_000, 1.5, 32, 4),
    "STS-B": Setting(("train.tsv", "dev.tsv"), 6_000, 3.0, 128, is_encoder=True),
    "CLINC150": Setting(("train.jsonl", "dev.jsonl"), 15_000, 2.0, 128, 5, 2e-4, 64),
    "SNIPS": Setting(("train", "valid"), 13_084, 1.0, 128, 2, 1e-4, 64),
}
TUNING_SETS = ("SST-2", "CLINC150")


def sets(
    data: Path, sst2_teacher: Path, work: Path, settings: Mapping[str, Setting], is_tuning: bool
) -> list[Prepared]:
    """Return the sets; a teacher that is not there yet is fine-tuned."""
    found = []
    for name, setting in settings.items():
        train, dev = (readable(data / name / file, work / "rows" / name) for file in setting.files)
        teacher = teacher_folder() if setting.is_encoder else sst2_teacher
        if setting.teacher_epochs:
            how = {"epochs": setting.teacher_epochs, "rate": setting.teacher_rate}
            teacher = finetuned_teacher(work / f"teacher-{name}", train, dev, batch_size=setting.teacher_batch, **how)
        folder = work / (f"{name}-tuning" if is_tuning else name)
        rows, held_out = write_subset(train, setting.rows, 0, folder, share=0.1 if is_tuning else 0.0)
        found.append(Prepared(name, folder, teacher, rows, held_out or dev))
    return found


def readable(source: Path, folder: Path) -> Path:
    """Return a file of rows: ``source`` itself, or what its two files say, written into ``folder`` as JSON lines."""
    if not source.is_dir():
        return source
    texts, labels = ((source / name).read_text(encoding="utf-8").splitlines() for name in ("seq.in", "label"))
    rows = [{"text": text.strip(), "label": label.strip()} for text, label in zip(texts, labels, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.name}.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path

"""Whole runs on tiny teachers: their recipes, their rows, and what they leave."""

import copy
from dataclasses import replace
from pathlib import Path

from compressor.recipe import recipe as recipes
from compressor.recipe.recipe import Recipe
from compressor.run import student_steps
from compressor.run.folds import fold_step, run_folds
from compressor.run.journal import Journal
from compressor.run.planning.plan import Plan
from compressor.training.objective import Objective
from tests.support.tiny import make_rows


def make_recipe(teacher: Path, train: Path, dev: Path | None, **more) -> Recipe:
    budget = {"max_size": "90kB", **more.pop("budget", {})}
    content = {
        "teacher": {"path": str(teacher)},
        "data": {"train": str(train), **({"eval": str(dev)} if dev else {})},
        "budget": budget,
        "measure": {"runs": 20, "baselines": more.pop("baselines", False)},
        "stage": more.pop("stage", [{"method": "distill", "epochs": 2}]),
        "student": {"family": "transformer", **more.pop("student", {})},
        **more,
    }
    return recipes.from_dict(content)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_table(path: Path, header: list[str], rows: list[tuple]) -> Path:
    lines = ["\t".join(map(str, row)) for row in [tuple(header), *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def pair_rows(n_rows: int, seed: int) -> list[tuple[str, str]]:
    """Two sentences a row."""
    texts = [text for text, _ in make_rows(2 * n_rows, seed)]
    return list(zip(texts[:n_rows], texts[n_rows:], strict=True))


class Prepared:
    """A plan and its steps up to the initial student."""

    def __init__(self, planned: Plan, folder: Path) -> None:
        self.planned, self.journal = planned, Journal(folder / "steps", lambda _line: None)
        self.journal.step("vocab", {}, (), lambda part: student_steps.run_vocab(planned, part))
        self.journal.step("teacher", {}, (), lambda part: student_steps.run_teacher(planned, part))
        self.journal.step("student", {}, (), lambda part: student_steps.run_student(planned, self.journal, part))

    def with_objective(self, objective_class: type[Objective]) -> "Prepared":
        """Return the same steps with another objective in the first stage."""
        first, *rest = self.planned.stages
        method = first.method._replace(objective_class=objective_class)
        other = copy.copy(self)
        other.planned = replace(self.planned, stages=(first._replace(method=method, loss=method), *rest))
        return other

    def train(self, name: str) -> Path:
        def work(part: Path) -> None:
            student_steps.run_stage(self.planned, self.journal, "student", 1, part)

        if wanted := self.planned.stages[0].wants.folds:
            self.journal.step(fold_step(1), {}, (), lambda part: run_folds(self.planned, wanted, part), resumes=True)
        return self.journal.step(name, {}, ("student",), work, resumes=True)

"""A run from the teacher to the package: the steps of the design, top to bottom, each skipped when it is done.

check -> vocab -> teacher -> student -> train (one per stage) -> export -> quantize -> verify -> package. Every step
reads the folders of earlier ones and writes its own (``compressor.run.journal``); a run that was killed goes on where
it stopped, and two runs of one recipe make the same package, byte for byte. A budget or a parity that is not met still
leaves the package, under ``*.rejected``.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from compressor.files import read_json, write_json, write_text
from compressor.packaging.inspection import measured_parts
from compressor.recipe.recipe import Recipe
from compressor.report import fold_certificates
from compressor.report.advice import advice
from compressor.report.closing import closing_lines
from compressor.report.report import write_report
from compressor.run import student_steps
from compressor.run.feeding.batches import VARIATIONS
from compressor.run.folds import fold_key, fold_step, run_folds
from compressor.run.journal import Journal, is_first_process
from compressor.run.output import LOGS, RECIPE, check_output, open_output, with_epochs
from compressor.run.package_steps import Sources
from compressor.run.planning.choice import describe
from compressor.run.planning.plan import Plan, plan
from compressor.run.progress import quiet_libraries
from compressor.run.source import code_digest
from compressor.training.trackers import Tracking, known_trackers
from exporters.budget import Measurement, violations
from exporters.measuring.machine import machine, versions
from exporters.package import package_bytes, write_archive


@dataclass(frozen=True)
class Outcome:
    """What a run leaves."""

    package_dir: Path
    archive_path: Path
    report_path: Path
    report: dict[str, Any] = field(repr=False)
    violations: list[str]

    def lines(self) -> list[str]:
        """Return the block that ends a run: what was made, how good it is, what to do next."""
        return closing_lines(self.report, self.package_dir, self.report_path, self.violations)


def compress(
    recipe: Recipe,
    out_dir: Path,
    overwrite: bool = False,
    echo: Callable[[str], None] = lambda _line: None,
    cache: Path | None = None,
    report_to: Sequence[str] = (),
) -> Outcome:
    """Run the recipe into ``out_dir``; missed budgets are in the outcome, not raised.

    Vocabulary, teacher's outputs and start are taken from the folder ``cache`` where a run with the same left them. The
    curves of the stages go to the trackers ``report_to``, whose files stand in ``out_dir/logs``.

    Raises:
        OverBudget: if no student fits the byte budget; nothing is written.
        FileExistsError: if ``out_dir`` holds something that is not this run.
        ValueError: for input that is refused.
    """
    marks = check_output(recipe, out_dir, overwrite)
    if cache and cache.exists() and not cache.is_dir():
        raise FileExistsError(f"--cache {cache} is a file, expected a folder. Choose another --cache.")
    trackers = known_trackers(report_to)
    quiet_libraries()
    planned = plan(with_epochs(recipe, out_dir, marks))
    resolved = planned.resolved
    if is_first_process():
        open_output(marks, out_dir, overwrite)
        write_text(out_dir / RECIPE, resolved.dumps())
        for line in planned.lines():
            echo(line)
    journal = Journal(out_dir / "steps", echo, cache)
    data_key = {"train": planned.train.sha256, "eval": planned.evaluation.sha256, "rows": len(planned.train)}
    if planned.held_out:
        data_key["held_out"] = planned.held_out.sha256
    teacher_key = {"teacher": planned.info.hashes, "task": planned.info.task, "max_length": planned.max_length}
    model_key = {"pretrained": planned.pretrained.hashes} if planned.pretrained else {}
    given_key = {"vocabulary": planned.vocabulary.hashes, **model_key} if planned.vocabulary else {}
    of_task = planned.spec.modules()
    check_key = {**teacher_key, **data_key, **given_key, "recipe": planned.digest}
    journal.step("check", check_key, (), partial(_check, planned), uses=(plan.__module__, *of_task))
    vocab_key = {**teacher_key, **data_key, **given_key, "vocab": resolved.digest("vocab")}
    # The first that does something, for it may be refused.
    journal.step("vocab", vocab_key, (), partial(student_steps.run_vocab, planned), shared=True)
    is_cached = any(stage.wants.cache for stage in planned.stages)
    cache_key = {**teacher_key, **data_key, **planned.kept.as_inputs(), "cached": is_cached}
    if resolved.measure.metric:
        cache_key["metric"] = resolved.measure.metric
    ask = partial(student_steps.run_teacher, planned)
    journal.step("teacher", cache_key, (), ask, resumes=True, shared=True, uses=of_task)
    if planned.n_variations:
        varied_key = {**teacher_key, **data_key, "number": planned.n_variations, "seed": resolved.seed}
        vary = partial(student_steps.run_variations, planned)
        journal.step(VARIATIONS, varied_key, (), vary, resumes=True, shared=True, uses=of_task)
    student_key = {
        **teacher_key,
        **data_key,
        **model_key,
        "shape": planned.shape.as_dict(),
        "seed": resolved.seed,
        "init": resolved.student.init,
        **({"start_layers": resolved.student.start_layers} if resolved.student.start_layers else {}),
    }
    start = partial(student_steps.run_student, planned, journal)
    journal.step("student", student_key, ("vocab",), start, shared=True, uses=of_task)
    model_step = _train(planned, journal, {**teacher_key, **data_key}, trackers)
    sources = Sources(planned, journal, model_step)
    journal.step("export", {"max_length": planned.max_length}, (model_step, "vocab"), sources.export, uses=of_task)
    bits = {"scheme": planned.scheme.__dict__}
    journal.step("quantize", bits, ("export",), sources.quantize)
    checks = {**data_key, "recipe": resolved.digest("measure", "budget")}
    made = fold_certificates.step_names(resolved.stage)
    journal.step("verify", checks, (*made, "vocab", "teacher", "export", "quantize"), sources.verify, uses=of_task)
    journal.step(
        "package", {"recipe": planned.digest}, (*made, "verify", "quantize", "vocab"), sources.package, uses=of_task
    )
    if not is_first_process():
        raise SystemExit(0)  # under torchrun only the first process has something left to do
    return _deliver(sources, out_dir)


def _check(planned: Plan, part: Path) -> None:
    write_json(
        part / "plan.json", {key: value for key, value in planned.as_dict().items() if key != "seconds_estimate"}
    )


def _train(planned: Plan, journal: Journal, data_key: dict[str, Any], trackers: tuple[str, ...]) -> str:
    """Run the training stages one after the other and return the name of the last."""
    before, out_dir = "student", journal.steps_dir.parent
    of_task = planned.spec.modules()
    for number, stage in enumerate(planned.stages, start=1):
        name = f"train-{number}-{stage.method.name}"
        inputs = {
            **data_key,
            "stage": stage.section.digest(),
            "seed": planned.resolved.seed,
        }
        tracking = Tracking(trackers, f"{out_dir}/{name}", out_dir / LOGS / name) if trackers else None
        work = partial(student_steps.run_stage, planned, journal, before, number, tracking=tracking)
        varied = (VARIATIONS,) if stage.wants.varies and planned.n_variations else ()
        after: tuple[str, ...] = (before, "vocab", "teacher", *varied)
        if wanted := stage.wants.folds:
            inputs_of_folds = {**data_key, **fold_key(planned, wanted)}
            judge, of_folds = partial(run_folds, planned, wanted), ("compressor.methods.finetune", *of_task)
            journal.step(
                fold_step(number), inputs_of_folds, (), judge, resumes=True, on_every_process=True, uses=of_folds,
                shared=True,
            )  # fmt: skip
            after = (*after, fold_step(number))
        uses = (*stage.modules, *of_task)
        journal.step(name, inputs, after, work, resumes=True, on_every_process=True, uses=uses)
        before = name
    return before


def _deliver(sources: Sources, out_dir: Path) -> Outcome:
    """Copy the package out of its step, hold it to the budget, and write the report."""
    planned, journal = sources.planned, sources.journal
    checked = read_json(journal.folder("verify") / "verify.json")
    # First: what is refused here must not touch what was delivered before.
    fold_certificates.read(journal.steps_dir, fold_certificates.step_names(planned.resolved.stage))
    n_bytes = package_bytes(journal.folder("package") / "package")
    measured = Measurement(n_bytes, checked["latency"], checked["drop"])
    missed = violations(measured, planned.budget) + checked["parity_violations"]
    names = ("package", "package.rejected")
    wanted, unwanted = names if not missed else names[::-1]
    for name in (unwanted, wanted):
        shutil.rmtree(out_dir / name, ignore_errors=True)
        (out_dir / f"{name}.zip").unlink(missing_ok=True)
    unfinished = out_dir / f".{wanted}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(journal.folder("package") / "package", unfinished)
    unfinished.rename(out_dir / wanted)
    write_archive(out_dir / wanted, out_dir / f"{wanted}.zip")
    report = _report(sources, checked, n_bytes, missed, out_dir / wanted)
    write_report(report, out_dir)
    return Outcome(out_dir / wanted, out_dir / f"{wanted}.zip", out_dir / "report.json", report, missed)


def _report(
    sources: Sources, checked: dict[str, Any], n_bytes: int, missed: list[str], package_dir: Path
) -> dict[str, Any]:
    planned, journal = sources.planned, sources.journal
    budget = planned.resolved.budget.model_dump(exclude_none=True)
    limits = {name.removeprefix("max_"): str(value) for name, value in budget.items()}
    steps = [path.name for path in sorted(journal.steps_dir.iterdir()) if (path / "step.json").is_file()]
    records = {name: journal.read(name) for name in steps}
    stages = [name for name in steps if name.startswith("train-")]
    report = {
        **sources.told(checked),
        **{name: checked[name] for name in ("baselines", "parity", "latency", "memory")},
        "status": "ok" if not missed else "not met",
        "student": describe(planned.shape, planned.scheme),
        "budget": {
            "limits": limits,
            "measured": {"size": n_bytes, "drop": checked["drop"], "latency": checked["latency"]["p95"]},
            "violations": missed,
        },
        "size": {"predicted": planned.choice.predicted, "measured": measured_parts(package_dir), "total": n_bytes},
        "training": [student_steps.stage_log(journal, name, records[name]) for name in stages],
        "hashes": {
            "model": records[sources.model_step]["files"]["model/model.safetensors"]["sha256"],
            "teacher": planned.info.hashes.get("model.safetensors", ""),
            "data_train": planned.train.sha256,
            "data_eval": planned.evaluation.sha256,
            "recipe": planned.digest,
            "code": code_digest(),
        },
        "versions": versions(),
        "machine": machine(),
        "seconds": {name: records[name]["seconds"] for name in steps},
    }
    return {**report, "advice": advice(report)}

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
from shlex import quote
from typing import Any

from compressor.files import read_json, write_json, write_text
from compressor.packaging.inspection import measured_parts
from compressor.recipe.recipe import Recipe
from compressor.report import fold_certificates
from compressor.report.report import write_report
from compressor.run import student_steps
from compressor.run.folds import fold_key, fold_step, run_folds
from compressor.run.journal import Journal, is_first_process
from compressor.run.package_steps import Sources
from compressor.run.planning.plan import Plan, plan
from compressor.run.planning.sizing import describe
from compressor.run.progress import quiet_libraries
from compressor.run.source import code_digest
from compressor.training.trackers import Tracking, known_trackers
from exporters.budget import Measurement, violations
from exporters.measuring.machine import machine, versions
from exporters.package import package_bytes, write_archive

RUN_MARKER = "run.json"
LOGS = "logs"
RESULTS = ("package", "package.zip", "package.rejected", "package.rejected.zip", "report.json", "report.html")


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
        report = self.report
        metric = report["task"]["metric"]
        ours, theirs = report["metrics"]["package"][metric], report["metrics"]["teacher"][metric]
        times = "p50 {p50:.2f} ms, p95 {p95:.2f} ms from text to answer, {threads} thread".format(**report["latency"])
        lines = [
            f"package   {self.package_dir}  {report['size']['total']:,} bytes ({report['student']})",
            f"quality   {metric} {ours:.4f}, teacher {theirs:.4f}: {(theirs - ours) * 100:+.2f} points of drop",
            f"latency   {times}",
            *_words_line(report["vocabulary"]),
            *fold_certificates.closing_lines(report["inheritance"]),
        ]
        for other in report["baselines"]:
            value = other["metrics"].get(metric)
            if value is not None:
                lines.append(f"beside    {other['name']}: {metric} {value:.4f} in {other['bytes']:,} bytes")
        lines += [f"honestly  {sentence}" for sentence in report["verdict"]]
        lines += [f"missed    {sentence}" for sentence in self.violations]
        folder = quote(str(self.package_dir))
        text = '"some text"' if not report["task"]["pair"] else '"some text" --pair "another"'
        lines += [
            f"report    {self.report_path.with_suffix('.html')}",
            f"try       python -m edge_demo {folder} {text}",
            f"verify    tenmeg verify {folder} --eval FILE --json",
        ]
        return lines


def _words_line(vocabulary: dict[str, Any]) -> list[str]:
    """Say how the student's vocabulary cuts words."""
    n_new = vocabulary["newly_unknown_words"]
    unknown = f"{n_new:,} newly unknown" if n_new else "no new unknown"
    return [f"words     {100 * vocabulary['identical_words']:.1f} % cut as the teacher cuts them, {unknown}"]


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
    planned = plan(recipe)
    resolved = planned.resolved
    if is_first_process():
        _open_output(marks, out_dir, overwrite)
        write_text(out_dir / "recipe.toml", resolved.dumps())
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


def check_output(recipe: Recipe, out_dir: Path, overwrite: bool) -> dict[str, str]:
    """Refuse a folder that holds something else, before anything is planned or written; return what marks this run.

    A run is known by what its files hold, wherever they lie, and by their names, whatever they hold now.

    Raises:
        FileExistsError: if the folder is not empty and not a run of the same recipe.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise FileExistsError(f"--output {out_dir} is a file, expected a folder. Choose another --output.")
    marks = {"recipe_sha256": recipe.digest(), "names_sha256": recipe.digest(read=False)}
    if overwrite or not out_dir.is_dir() or not any(path.name != "recipe.toml" for path in out_dir.iterdir()):
        return marks  # a lone recipe.toml is what --dry-run left
    if not _is_run_of(out_dir, marks):
        held = "holds a run of another recipe" if _marked(out_dir) else "is not empty and holds no run"
        raise FileExistsError(f"--output {out_dir} {held}. Choose another --output, or give --overwrite to replace it.")
    return marks


def _is_run_of(out_dir: Path, marks: dict[str, str]) -> bool:
    return any(_marked(out_dir).get(name) == digest for name, digest in marks.items())


def _marked(out_dir: Path) -> dict[str, Any]:
    """Return what a folder's run is marked with; nothing without a mark that can be read."""
    try:
        found = read_json(out_dir / RUN_MARKER)
        return found if isinstance(found["recipe_sha256"], str) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _open_output(marks: dict[str, str], out_dir: Path, overwrite: bool) -> None:
    """Mark the folder as this run's; ``--overwrite`` first removes what an earlier run left, and nothing else."""
    if overwrite and not _is_run_of(out_dir, marks) and out_dir.is_dir():
        logs = out_dir.glob(f"{LOGS}/train-*")  # of a stage each
        for path in (*(out_dir / name for name in ("steps", *RESULTS, "recipe.toml", RUN_MARKER)), *logs):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(out_dir / RUN_MARKER, {"version": 1, **marks})


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
        after: tuple[str, ...] = (before, "vocab", "teacher")
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
    return {
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
        "training": [student_steps.stage_log(journal, name, records[name]["seconds"]) for name in stages],
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

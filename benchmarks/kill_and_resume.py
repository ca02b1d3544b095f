"""Kill a run in every one of its steps and let it go on: the package must be the one of a run that was left alone.

``tenmeg compress`` runs in a process group of its own, which gets SIGKILL at a moment drawn from a seed inside the
wanted step (its ``.part`` folder is there, its own folder is not); then the same command is given again. At the end
package, archive, weights and training logs are compared byte by byte with those of an undisturbed run. The killed run
makes a checkpoint three times a second instead of once a minute, so that a run of seconds has some.

    python -m benchmarks.kill_and_resume --output docs/results/kill_and_resume.json
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.support.tiny import Tiny, make_tiny
from compressor.run.journal import MARKER

ROOT = Path(__file__).resolve().parent.parent
STEPS = (
    "check", "vocab", "teacher", "student", "train-1-distill", "train-1-distill", "train-2-finetune", "export",
    "quantize", "verify", "package", "deliver",
)  # fmt: skip
LONG = ("teacher", "train-1-distill", "train-2-finetune")  # the steps that keep shards or checkpoints
# The command line as it is, with shards and checkpoints small enough for a run of seconds.
PROGRAM = (
    "import sys, compressor.batches.teacher_cache as cache, compressor.training.trainer as train; "
    "cache.SHARD_ROWS, train.SAVE_SECONDS = 256, float(sys.argv.pop(1)); "
    "from compressor.cli import main; main()"
)
UNDISTURBED_SECONDS, KILLED_SECONDS = 60.0, 0.3  # between checkpoints
SHORT_SECONDS = 0.1  # a step that is faster is killed as soon as it is seen
POLL_SECONDS = 0.0005
PATIENCE_SECONDS = 600.0


class Kill(NamedTuple):
    """One SIGKILL and what it met."""

    number: int
    step: str
    is_inside: bool  # the step had begun and was not finished
    seconds: float  # since the command was given
    seconds_in_step: float
    found: str  # what of the step's work was whole already


def run_experiment(folder: Path, steps: tuple[str, ...] = STEPS, seed: int = 0, n_rows: int = 1500) -> dict[str, Any]:
    """Run once undisturbed and once killed in each of ``steps``, and compare; ``folder`` gets both runs."""
    tiny = make_tiny(folder / "tiny", n_train=n_rows, n_dev=100)
    alone, killed = folder / "alone", folder / "killed"
    started = time.monotonic()
    finish(tiny, alone, UNDISTURBED_SECONDS)
    seconds_alone = time.monotonic() - started
    durations = durations_of(alone)
    draw = random.Random(seed)
    kills = []
    for number, step in enumerate(steps, start=1):
        # Late where there is work to keep; but a second kill of one step meets only what the first left undone.
        is_late = step in LONG and step not in steps[: number - 1]
        share = draw.uniform(0.5, 0.8) if is_late else draw.uniform(0.05, 0.3)
        kills.append(kill_in(tiny, killed, step, number, share * durations[step]))
    started = time.monotonic()
    finish(tiny, killed, KILLED_SECONDS)
    compared = compare(alone, killed)
    return {
        "version": 1,
        "seed": seed,
        "rows": n_rows,
        "seconds_undisturbed": round(seconds_alone, 1),
        "seconds_last_run": round(time.monotonic() - started, 1),
        "kills": [kill._asdict() for kill in kills],
        "compared_files": len(compared),
        "differing_files": sorted(name for name, is_equal in compared.items() if not is_equal),
    }


def command(tiny: Tiny, out: Path, checkpoint_seconds: float) -> list[str]:
    """Return the command of a run; the same in every respect that its result depends on."""
    flags = {
        "--teacher": tiny.teacher, "--train": tiny.train, "--eval": tiny.dev, "--max-size": "90kB", "--epochs": 12,
        "--output": out,
    }  # fmt: skip
    given = [str(word) for flag in flags.items() for word in flag]
    methods = ["--method", "distill", "--method", "finetune"]
    return [sys.executable, "-c", PROGRAM, str(checkpoint_seconds), "compress", *given, *methods]


def finish(tiny: Tiny, out: Path, checkpoint_seconds: float) -> None:
    """Run to the end."""
    done = subprocess.run(
        command(tiny, out, checkpoint_seconds), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the run ended with {done.returncode}: {done.stderr[-2000:]}")


def environment() -> dict[str, str]:
    """Return the environment of a run: one thread, no hub, our packages."""
    fixed = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **fixed, "PYTHONPATH": str(ROOT)}


def kill_in(tiny: Tiny, out: Path, step: str, number: int, delay: float) -> Kill:
    """Start the run, wait for the step and ``delay`` seconds more, and kill the whole process group."""
    log = out.parent / "killed.log"
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command(tiny, out, KILLED_SECONDS), cwd=ROOT, env=environment(), start_new_session=True,
            stdout=stderr, stderr=stderr,
        )  # fmt: skip
        started, started_at = time.monotonic(), time.time()
        try:
            while not has_begun(out, step, started_at):
                if process.poll() is not None or time.monotonic() - started > PATIENCE_SECONDS:
                    raise RuntimeError(f"{step}: was never seen: {log.read_text(encoding='utf-8')[-2000:]}")
                time.sleep(POLL_SECONDS)
            seen = time.monotonic()
            time.sleep(delay)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    now = time.monotonic()
    return Kill(number, step, is_inside(out, step), round(now - started, 1), round(now - seen, 3), found(out, step))


def is_inside(out: Path, step: str) -> bool:
    """Say whether the step has begun and is not finished."""
    if step == "deliver":
        return (out / "steps" / "package" / "step.json").is_file() and not (out / "report.html").is_file()
    return (out / "steps" / f"{step}.part").is_dir() and not (out / "steps" / step).is_dir()


def has_begun(out: Path, step: str, started_at: float) -> bool:
    """Say whether this very process is in the step: the mark in the step's folder is younger than the process."""
    if step == "deliver":
        return is_inside(out, step)
    try:
        return (out / "steps" / f"{step}.part" / MARKER).stat().st_mtime >= started_at
    except OSError:
        return False


def found(out: Path, step: str) -> str:
    """Return what the killed step leaves to its successor."""
    part = out / "steps" / f"{step}.part"
    whole = sorted(path.parent.name for path in part.glob("work/checkpoint-*/complete.json"))
    shards = [path for path in part.glob("cache/*") if not path.name.endswith(".tmp")]
    return ", ".join(whole) or (f"{len(shards)} shards" if shards else "nothing")


def durations_of(out: Path) -> dict[str, float]:
    """Return the seconds of every step of a finished run; 0 for those too short to wait in."""
    folders = [path for path in (out / "steps").iterdir() if (path / "step.json").is_file()]
    seconds = {path.name: json.loads((path / "step.json").read_text(encoding="utf-8"))["seconds"] for path in folders}
    packaged = (out / "steps" / "package" / "step.json").stat().st_mtime
    seconds["deliver"] = (out / "report.html").stat().st_mtime - packaged
    return {name: float(value) if value > SHORT_SECONDS else 0.0 for name, value in seconds.items()}


def compare(ours: Path, theirs: Path) -> dict[str, bool]:
    """Return, for every file that must not depend on kills, whether both runs have it with the same bytes."""
    wanted = ("package/**/*", "package.zip", "recipe.toml", "steps/*/model/*", "steps/train-*/metrics.jsonl")
    names = {
        path.relative_to(run).as_posix()
        for run in (ours, theirs) for pattern in wanted for path in run.glob(pattern) if path.is_file()
    }  # fmt: skip
    return {name: _bytes(ours / name) == _bytes(theirs / name) for name in names}


def left_behind(out: Path) -> list[str]:
    """Return what a finished run should have cleared away."""
    names = (path.relative_to(out).as_posix() for path in out.rglob("*"))
    return sorted(name for name in names if name.endswith((".part", ".tmp")) or "/work/" in name or "/draft" in name)


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def table(result: dict[str, Any]) -> list[str]:
    """Return the result for people."""
    lines = [f"{'kill':>4}  {'step':18}{'inside':8}{'at s':>7}{'in step s':>11}  left whole"]
    lines += [
        f"{kill['number']:>4}  {kill['step']:18}{'yes' if kill['is_inside'] else 'no':8}{kill['seconds']:>7.1f}"
        f"{kill['seconds_in_step']:>11.3f}  {kill['found']}"
        for kill in result["kills"]
    ]
    differing = result["differing_files"]
    lines.append(
        f"{result['compared_files']} files compared with the undisturbed run: "
        + (f"{len(differing)} differ ({', '.join(differing)})" if differing else "all byte-identical")
    )
    return lines


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "kill_and_resume.json")
    parser.add_argument("--folder", type=Path, help="keep both runs here")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    try:
        result = run_experiment(folder, seed=arguments.seed)
        result["left_behind"] = left_behind(folder / "killed")
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(table(result)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if result["differing_files"] or result["left_behind"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

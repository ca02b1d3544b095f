"""Hold what the product writes against what it wrote at another commit, byte for byte: for every change of walls.

Ten tiny recipes cover all methods, kinds of task, families, ways to start, bits and repeats; beside them run ``tenmeg
finetune``, ``vocab``, ``export`` and ``package``. Each is a command in a process of one thread, once in this tree and
once in a checkout of the other commit, on the same teachers and rows at the same paths. Compared are the exit code and
the sha256 of every file of package, archive and model, of the training logs, and of what each step wrote. Times are
left out of JSON, report.html (which holds the same) too, and of an .ort file the tensors are compared: onnxruntime
writes its lists in another order each time, with other padding. A commit that has run stays in the work folder and is
not run again. Exit code 1 if anything differs. Where one value is meant to change, ``--leave-out`` its key, of JSON
inside archives too.

    python -m benchmarks.same_bytes --against HEAD~1
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from benchmarks.support.tiny import make_rows, make_tiny, save_model, write_rows
from exporters.graph.to_ort import stored_tensors

ROOT = Path(__file__).resolve().parent.parent
# What differs from run to run, or says with which code it was made, wherever it stands in a JSON file.
TIMED = frozenset(("seconds", "latency", "memory", "p50_ms", "p95_ms", "machine", "code", "inputs_sha256"))
BASE = {"out_of_fold": 2, "base_epochs": 1.0, "base_learning_rate": 5e-3}


def stage(method: str, epochs: float = 1.0, **options: Any) -> dict[str, Any]:
    """Return one [[stage]]."""
    return {"method": method, "epochs": epochs, "learning_rate": 1e-3, "batch_size": 16, "options": options}


SIZE = {"size": 290}
SHAPE = {"layers": 1, "hidden": 16, "heads": 2, "ffn": 32}
# name: (teacher and rows, tables of the recipe)
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "distil-by-budget-int8": ("classes", {"stage": [stage("distill", 2.0)], "budget": {"max_size": "90kB"}}),
    "distil-embeddings-int4": (
        "classes",
        {
            "student": {**SHAPE, "layers": 2, "init": "embeddings", "repeat": "mirror", "exchange": False},
            "vocab": {"size": 330, "kind": "unigram"},
            "quantize": {"scheme": "int4", "block_size": 16},
            "stage": [stage("distill", hidden=2.0)],
            "measure": {"baselines": True},
        },
    ),
    "finetune-random-float": (
        "scores",
        {
            "student": {**SHAPE, "init": "random"},
            "vocab": SIZE,
            "quantize": {"scheme": "none"},
            "stage": [stage("finetune") | {"micro_batch": 8, "evaluate_every": 5}],
        },
    ),
    "pea-kd-repeats": (
        "classes",
        {
            "student": {"layers": 2, "hidden": 24, "heads": 2, "ffn": 48, "repeat": "all", "start_layers": "first"},
            "vocab": SIZE,
            "stage": [stage("teacher_predictions", **BASE), stage("patient")],
        },
    ),
    "patient-pairs": (
        "pairs",
        {"student": {**SHAPE, "start_layers": "first"}, "vocab": {"size": 0}, "stage": [stage("patient", alpha=0.5)]},
    ),
    "squeezing-then-distil": (
        "classes",
        {"student": SHAPE, "vocab": SIZE, "stage": [stage("weight_squeezing"), stage("distill")]},
    ),
    "squeezing-gated-pretrained": (
        "classes",
        {"student": {"pretrained": "pretrained"}, "stage": [stage("weight_squeezing", gated=True)]},
    ),
    "weight-distillation-scores": (
        "scores",
        {
            "student": SHAPE,
            "vocab": {"path": "vocabulary"},
            "stage": [stage("weight_distillation", loss="patient")],
            "quantize": {"scheme": "int8", "embedding_bits": 4},
        },
    ),
    "weight-inheritance-encoder": (
        "encoder",
        {"student": SHAPE, "vocab": SIZE, "stage": [stage("weight_inheritance")], "measure": {"baselines": True}},
    ),
    "dual-training-encoder-int4": (
        "encoder",
        {
            "student": SHAPE,
            "vocab": {**SIZE, "rule": "frequency"},
            "quantize": {"scheme": "int4"},
            "stage": [stage("mixed_vocabulary", objective="mlm"), stage("dual_training", projection="down", every=2)],
        },
    ),
}
COMMANDS = {
    "finetune": "finetune --model {base} --train {classes.train} --eval {classes.dev} --epochs 1 --output {out}",
    "vocabulary": "vocab train --teacher {classes} --train {classes.train} --vocab-size 300 --output {out}",
    "curve": "vocab curve --teacher {pairs} --train {pairs.train} --sizes 280,320 --output {out}",
    "export": "export {classes} --quantize int4 --format ort --output {out}",
    "export-encoder": "export {encoder} --output {out}",
    "package": "package {export-encoder} --output {out}",
}


def make_inputs(folder: Path) -> None:
    """Write teachers, models and rows, once: four kinds of task in as many families."""
    if (folder / "done").is_file():
        return
    classes = make_tiny(folder)
    write_rows(folder / "classes.train.tsv", make_rows(160, seed=2))
    write_rows(folder / "classes.dev.tsv", make_rows(60, seed=3))
    classes.teacher.rename(folder / "classes")
    save_model(folder / "pairs", "roberta", 2)
    save_model(folder / "scores", "distilbert", 1)
    save_model(folder / "encoder", "electra", 0)
    save_model(folder / "base", "bert", 5)
    save_model(folder / "pretrained", "bert", 2, hidden=16, layers=1)
    (folder / "vocabulary").mkdir()
    (folder / "vocabulary" / "tokenizer.json").write_bytes((folder / "classes" / "tokenizer.json").read_bytes())
    for part, n_rows, seed in (("train", 160, 4), ("dev", 60, 5)):
        texts = [text for text, _ in make_rows(2 * n_rows, seed)]
        both = list(enumerate(zip(texts[:n_rows], texts[n_rows:], strict=True)))
        tables = {
            "pairs": ("sentence1\tsentence2\tlabel", [f"{one}\t{two}\t{number % 2}" for number, (one, two) in both]),
            "scores": ("sentence1\tsentence2\tscore", [f"{one}\t{two}\t{number % 5}" for number, (one, two) in both]),
            "encoder": ("sentence", texts[:n_rows]),
        }
        for name, (header, lines) in tables.items():
            (folder / f"{name}.{part}.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    (folder / "done").touch()


def recipe_of(name: str, inputs: Path) -> dict[str, Any]:
    """Return one of the recipes as its file says it."""
    teacher, tables = RECIPES[name]
    content = json.loads(json.dumps(tables))
    for section, key in (("student", "pretrained"), ("vocab", "path")):
        if key in content.get(section, {}):
            content[section][key] = str(inputs / content[section][key])
    for each in content["stage"]:
        if "out_of_fold" in each["options"]:
            each["options"]["base"] = str(inputs / "base")
    task = {"task": "feature-extraction"} if teacher == "encoder" else {}
    return {
        **content,
        "teacher": {"path": str(inputs / teacher), **task},
        "data": {"train": f"{inputs}/{teacher}.train.tsv", "eval": f"{inputs}/{teacher}.dev.tsv"},
        "measure": {"runs": 5, "baselines": False, **content.get("measure", {})},
    }


def run_tree(tree: Path, inputs: Path, out: Path, left_out: frozenset[str]) -> dict[str, dict[str, str]]:
    """Run everything with the product in ``tree``, two at once; return per run what it wrote and how it ended."""
    import tomli_w

    out.mkdir(parents=True, exist_ok=True)
    jobs = {}
    for name in RECIPES:
        path = inputs / f"{name}.toml"
        path.write_text(tomli_w.dumps(recipe_of(name, inputs)), encoding="utf-8")
        jobs[name] = ["run", str(path), "--output", str(out / name)]
    places = {path.name: str(path) for path in inputs.iterdir() if path.is_dir()}
    for name, line in COMMANDS.items():
        words = []
        for word in line.split():
            inner = word[1:-1] if word.startswith("{") else ""
            known = {**places, "out": str(out / name), "export-encoder": str(out / "export-encoder")}
            words.append(known.get(inner, f"{inputs}/{inner}.tsv") if inner else word)
        jobs[name] = words
    last = {"package": jobs.pop("package")}  # of what an earlier command exports
    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(jobs, pool.map(lambda name: _run(tree, jobs[name], out / name, left_out), jobs), strict=True))
    return done | {name: _run(tree, words, out / name, left_out) for name, words in last.items()}


def _run(tree: Path, words: list[str], out: Path, left_out: frozenset[str]) -> dict[str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-m", "compressor.cli", *words], cwd=tree, env=environment, capture_output=True, text=True
    )
    if done.returncode not in (0, 3):
        raise click.ClickException(f"{' '.join(words)} in {tree} ended with {done.returncode}: {done.stderr[-2000:]}")
    files = {
        path.relative_to(out.parent).as_posix(): _digest(path, left_out)
        for path in sorted([*out.rglob("*"), *out.parent.glob(f"{out.name}.zip")])
        if path.is_file() and path.suffix != ".html" and path.name != "step.json"  # of sums of what is here
    }
    return {"exit code": str(done.returncode), **files}


def _digest(path: Path, left_out: frozenset[str]) -> str:
    content = path.read_bytes()
    if path.suffix == ".ort":
        content = b"".join(name.encode() + tensor for name, tensor in sorted(stored_tensors(path)))
    elif path.suffix == ".json":
        here = str(path).partition("/out/")[0].encode()  # the folder of this side
        content = _json(content.replace(here, b""), left_out)
    elif path.suffix == ".zip" and left_out:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        parts = (_json(each, left_out) if name.endswith(".json") else each for name, each in members.items())
        content = b"".join((*parts, *(name.encode() for name in members)))
    return hashlib.sha256(content).hexdigest()


def _json(content: bytes, left_out: frozenset[str]) -> bytes:
    return json.dumps(_without(json.loads(content), TIMED | left_out)).encode()


def _without(content: Any, keys: frozenset[str]) -> Any:  # Any: JSON
    if isinstance(content, dict):
        return {key: _without(value, keys) for key, value in content.items() if key not in keys}
    return [_without(each, keys) for each in content] if isinstance(content, list) else content


def run_commit(commit: str, work: Path, left_out: frozenset[str]) -> dict[str, dict[str, str]]:
    """Run a commit in a checkout of its own, or return what an earlier call found."""
    sha = _git("rev-parse", f"{commit}^{{commit}}")
    script = hashlib.sha256(Path(__file__).read_bytes() + repr(sorted(left_out)).encode()).hexdigest()
    kept = work / f"{sha[:12]}-{script[:8]}.json"
    if not kept.is_file():
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "tree"
            _git("worktree", "add", "--detach", str(tree), sha)
            try:
                found = run_tree(tree, work / "inputs", Path(folder) / "out", left_out)
            finally:
                _git("worktree", "remove", "--force", str(tree))
        kept.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    content: dict[str, dict[str, str]] = json.loads(kept.read_text(encoding="utf-8"))
    return content


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@click.command()
@click.option("--against", default="HEAD", show_default=True, help="the commit to hold this tree against")
@click.option("--work", type=click.Path(path_type=Path), default=Path(tempfile.gettempdir()) / "tenmeg-same-bytes",
              show_default=True, help="teachers, rows and what a commit wrote; both sides read the same")  # fmt: skip
@click.option("--leave-out", multiple=True, help="a key of JSON whose value is meant to change")
def main(against: str, work: Path, leave_out: tuple[str, ...]) -> None:
    """Compare this tree, as it stands, with a commit."""
    make_inputs(work / "inputs")
    left_out = frozenset(leave_out)
    theirs = run_commit(against, work, left_out)
    with tempfile.TemporaryDirectory() as folder:
        ours = run_tree(ROOT, work / "inputs", Path(folder) / "out", left_out)
    n_different = 0
    for name in sorted(ours | theirs):
        before, after = theirs.get(name, {}), ours.get(name, {})
        wrong = [file for file in sorted(before | after) if before.get(file) != after.get(file)]
        n_different += bool(wrong)
        archive = next((after[file][:12] for file in after if file.endswith(".zip")), "")
        said = f"{len(wrong)} differ: {', '.join(wrong)}" if wrong else "equal"
        click.echo(f"{name:28}{after['exit code']:3}{len(after):5} files  {archive:14}{said}")
    click.echo(f"{len(ours)} runs against {_git('rev-parse', '--short', against)}: {n_different} differ")
    sys.exit(1 if n_different else 0)


if __name__ == "__main__":
    main()

"""Bad inputs as data: what each is, how to make it, the command it is given to, and what must be said and left.

Every case runs the real command line in a folder of its own. Nobody may see a traceback or an error that was not
foreseen; one sentence names what was got, what is expected and what to do; the exit code is the promised one; and the
folder is afterwards as it was, but for finished steps where ``keeps`` says so. A few inputs look bad and must work.

    python -m benchmarks.bad_inputs          the table, docs/results/bad_inputs.json and docs/errors.md

``tests/house/test_bad_inputs.py`` runs the same cases. What makes the inputs is in ``benchmarks.faults.bad_files``.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.bad_cases import CASES
from benchmarks.faults.bad_files import Case
from benchmarks.support.tiny import Tiny, make_tiny

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "sentiment"
HOPELESS = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}  # port 9: discard


class Answer(NamedTuple):
    """What the command line said and left."""

    code: int
    stdout: str
    stderr: str
    problems: list[str]  # what is wrong with the answer; empty when it is good

    @property
    def sentence(self) -> str:
        """The line or lines that tell the person what is wrong."""
        lines = [line for line in self.stderr.splitlines() if line.startswith(("tenmeg: ", "Error: "))]
        return " ".join(lines)


def answer(case: Case, tiny: Tiny, folder: Path) -> Answer:
    """Make the input in the empty ``folder``, give the command, and judge what comes back."""
    case.make(folder, tiny)
    before = contents(folder)
    words = arguments(case, tiny, folder)
    with case.around(folder):
        code, stdout, stderr = _in_a_process(words, case) if case.own_process else _in_process(words)
    found = Answer(code, stdout, stderr, [])
    return found._replace(problems=[*_wrong_words(case, found), *_wrong_files(case, before, contents(folder))])


def arguments(case: Case, tiny: Tiny, folder: Path) -> list[str]:
    """Return the words of the command, placeholders filled in."""
    names = {**tiny._asdict(), "here": folder, "out": folder / "out", "package": GOLDEN}
    return [word.format(**names) for word in shlex.split(case.command)]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file and folder below ``folder`` with its bytes."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        found[name] = (
            str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        )
    return found


def _in_process(words: list[str]) -> tuple[int, str, str]:
    from click.testing import CliRunner

    from compressor.cli import main

    done = CliRunner().invoke(main, words, prog_name="tenmeg")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def _in_a_process(words: list[str], case: Case) -> tuple[int, str, str]:
    fixed = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **fixed, **(HOPELESS if case.needs_hub else {})}
    program = [sys.executable, "-m", "compressor.cli", *words]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def _wrong_words(case: Case, found: Answer) -> Iterator[str]:
    if found.code != case.code:
        yield f"exit code {found.code}, expected {case.code}"
    if "Traceback" in found.stderr or "(unexpected; details in" in found.stderr:
        yield "a traceback, or an error that was not foreseen"
    if case.code and not re.search(case.says, found.sentence):
        yield f"does not say {case.says!r}"
    if case.code and len(re.findall(r"^(?:tenmeg|Error): ", found.stderr, re.MULTILINE)) != 1:
        yield "not exactly one sentence"
    if case.code in (1, 2) and found.stdout:
        yield "something on stdout"


def _wrong_files(case: Case, before: dict[str, bytes], after: dict[str, bytes]) -> Iterator[str]:
    kept = re.compile(case.keeps) if case.keeps else None
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name) or (kept is not None and name not in before and kept.fullmatch(name)):
            continue
        yield f"{name} was {'changed' if name in before and name in after else 'lost' if name in before else 'left'}"


def shown(text: str, tiny: Tiny, folder: Path) -> str:
    """Return text without this machine's paths."""
    places = {tiny.teacher: "TEACHER", tiny.several: "TEACHER", tiny.train: "ROWS.tsv", tiny.dev: "DEV.tsv"}
    places |= {GOLDEN: "PACKAGE"}
    text = text.replace(f"{folder}/out", "OUT").replace(f"{folder}/", "").replace(str(folder), ".")
    for path, name in places.items():
        text = text.replace(str(path), name)
    return text


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return docs/errors.md."""
    lines = [
        "# What bad input gets", "",
        "Made by `python -m benchmarks.bad_inputs`, which gives every input below to the real command line; the",
        "tests do the same. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a budget or the parity is not met.",
        "Nothing is left in `--output` but finished steps, which the next run uses.",
    ]  # fmt: skip
    for group in dict.fromkeys(row["group"] for row in rows):
        lines += ["", f"## {group}", "", "| input | exit | what is said |", "|---|---|---|"]
        for row in (row for row in rows if row["group"] == group):
            said = row["sentence"].replace("|", "\\|").replace("<", "&lt;") or "(works)"
            lines.append(f"| {row['name']} | {row['code']} | {said} |")
    return "\n".join(lines) + "\n"


def run_all(folder: Path) -> list[dict[str, Any]]:
    """Run every case and return what came back."""
    tiny = make_tiny(folder / "tiny")
    rows = []
    for number, case in enumerate(CASES):
        place = folder / f"case-{number}"
        place.mkdir()
        found = answer(case, tiny, place)
        sentence = shown(found.sentence, tiny, place)
        print(f"{'ok ' if not found.problems else 'BAD'} {found.code}  {case.name}: {sentence or '(works)'}")
        for problem in found.problems:
            print(f"        {problem}")
        rows.append(
            {
                "group": case.group,
                "name": case.name,
                "command": case.command,
                "code": found.code,
                "sentence": sentence.removeprefix("tenmeg: "),
                "problems": found.problems,
            }
        )
        shutil.rmtree(place)
    return rows


def main() -> None:
    """Run the cases, print the table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    docs = parser.parse_args().docs
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as name:
        rows = run_all(Path(name).resolve())
    wrong = [row for row in rows if row["problems"]]
    print(f"{len(rows)} inputs, {len(wrong)} answered badly")
    (docs / "results").mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": 1, "cases": rows, "n_bad": len(wrong)}, indent=2, sort_keys=True) + "\n"
    (docs / "results" / "bad_inputs.json").write_text(text, encoding="utf-8")
    (docs / "errors.md").write_text(as_markdown(rows), encoding="utf-8")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""How far a person walks who follows a run: from the command to its first step, in functions and in files.

A stop is a call from a function of one of our files to a function of another; each pair of functions counts once, so
that a loop over rows is one stop. To come back is to stop in a file that was seen before. Nothing is trained: the run
ends where its first step would begin.

    python -m benchmarks.walk                    this tree
    python -m benchmarks.walk --tree FOLDER      another one, a checkout of an older commit for one
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("compressor", "exporters", "vocab")
FOLLOW = """
import inspect, json, sys
from pathlib import Path

root, arguments = Path(sys.argv[1]), sys.argv[2:]
from compressor import cli
from click.testing import CliRunner

ours = {str(root / name) for name in ("compressor", "exporters", "vocab")}
seen, stops = {}, []

def is_ours(code):
    return any(code.co_filename.startswith(each + "/") for each in ours) and not code.co_name.startswith("<")

class FirstStep(BaseException):
    pass

def watch(frame, event, _argument):
    if event != "call" or not is_ours(frame.f_code) or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return
    code = frame.f_code
    if code.co_name == "step" and "journal" in Path(code.co_filename).stem:
        sys.setprofile(None)
        raise FirstStep
    caller = frame.f_back
    while caller is not None and not is_ours(caller.f_code):
        caller = caller.f_back
    if caller is None or caller.f_code.co_filename == code.co_filename:
        return
    pair = (caller.f_code.co_filename, caller.f_code.co_qualname, code.co_filename, code.co_qualname)
    if pair not in seen:
        seen[pair] = len(seen)
        stops.append(str(Path(code.co_filename).relative_to(root)))

sys.setprofile(watch)
try:
    cli.main(arguments, standalone_mode=False)
except FirstStep:
    pass
finally:
    sys.setprofile(None)
files = list(dict.fromkeys(stops))
print(json.dumps({"stops": len(stops), "files": len(files), "back": len(stops) - len(files)}))
"""


def walk(tree: Path, arguments: list[str]) -> dict[str, int]:
    """Return stops, files and how often the way comes back to a file, for one command of the code in ``tree``."""
    command = [sys.executable, "-c", FOLLOW, str(tree), *arguments]
    environment = {"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def n_lines(tree: Path) -> int:
    """Return the lines of product code."""
    paths = (path for package in (*PACKAGES, "edge_demo", "tenmeg") for path in (tree / package).rglob("*.py"))
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def main() -> None:
    """Print the walk of a tiny recipe."""
    from benchmarks.support.tiny import make_tiny

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=ROOT, help="code to follow (default: this tree)")
    tree = parser.parse_args().tree.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = make_tiny(folder / "tiny")
        for title, more in (
            ("distill", []),
            ("dual_training, then distill", ["--method", "dual_training", "--method", "distill"]),
        ):
            files = ["--teacher", str(tiny.teacher), "--train", str(tiny.train), "--eval", str(tiny.dev)]
            given = ["compress", *files, "--max-size", "90kB", *more, "--output", str(folder / "out")]
            found = walk(tree, given)
            print("{0}: {stops} stops in {files} files, comes back {back} times".format(title, **found))
    print(f"{n_lines(tree):,} lines of product code")


if __name__ == "__main__":
    main()

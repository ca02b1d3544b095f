"""Answer one text with a package: ``python -m edge_demo PACKAGE TEXT [--pair TEXT] [--json] [--threads N]``.

Exit codes: 0 answered, 1 the package is refused or cannot run here, 2 wrong usage.
"""

import argparse
import ctypes
import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_demo.runtime import Package

N_SHOWN = 8  # numbers of an embedding that a person wants to see


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a label the console cannot show
    _give_memory_back()
    try:
        from edge_demo import runtime  # after the arguments: --help and wrong usage answer at once
    except ImportError as error:
        print(f"edge_demo: {error}. Install it: pip install onnxruntime tokenizers numpy", file=sys.stderr)
        return 1
    try:
        package = runtime.load(options.package, threads=options.threads)
        answer = _answer(package, options.text, options.pair)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, runtime.PackageError) else 2
    print(json.dumps(answer, ensure_ascii=False) if options.json else _for_people(answer))
    return 0


def _give_memory_back() -> None:
    """Tell glibc to return what a model's unpacking frees: several megabytes less at the peak. Elsewhere: nothing."""
    mmap_threshold = -3  # M_MMAP_THRESHOLD of <malloc.h>
    try:
        ctypes.CDLL(None).mallopt(mmap_threshold, 65_536)
    except (OSError, AttributeError, TypeError):
        return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge_demo", description="Answer one text with a tenmeg package.")
    parser.add_argument("package", metavar="PACKAGE", help="folder that holds manifest.json")
    parser.add_argument("text", metavar="TEXT", help="the text")
    parser.add_argument("--pair", metavar="TEXT", help="the second text, for packages that compare two")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", metavar="N", type=_count, default=1, help="threads of one inference (default: 1)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1")
    return int(text)


def _answer(package: "Package", text: str, pair: str | None) -> dict[str, Any]:  # Any: becomes JSON
    start = time.perf_counter()
    prediction = package.predict(text, pair)
    ms = (time.perf_counter() - start) * 1e3
    answer: dict[str, Any] = {key: value for key, value in prediction._asdict().items() if value is not None}
    if prediction.embedding is not None:
        answer["embedding"] = prediction.embedding.tolist()
    return answer | {"task": package.manifest["task"], "n_bytes": package.n_bytes, "ms": round(ms, 3)}


def _for_people(answer: dict[str, Any]) -> str:  # Any: as above
    if "labels" in answer:
        said = ", ".join(f"{label}  {answer['scores'][label]:.4f}" for label in answer["labels"]) or "no label"
    elif "label" in answer:
        said = f"{answer['label']}  {answer['score']:.4f}"
    elif "value" in answer:
        said = f"{answer['value']:.4f}"
    else:
        numbers = answer["embedding"]
        dots = " ..." if len(numbers) > N_SHOWN else ""
        said = f"{len(numbers)} numbers: " + " ".join(f"{number:.4f}" for number in numbers[:N_SHOWN]) + dots
    return f"{said}\n{answer['n_bytes']:,} bytes, {answer['ms']:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())

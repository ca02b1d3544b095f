"""Are the answers of a package the same alone, in a batch, and in onnxruntime-web?

    python -m benchmarks.same_answers PACKAGE ... --rows FILE [--web FOLDER]

The first 1,000 texts of FILE are asked one by one through the reader, then in padded batches of 32 of mixed lengths
through onnxruntime, and with --web (a folder in which ``npm install onnxruntime-web`` was run) in WebAssembly by node.
Counts equal labels (of vectors: cosines above 0.999999) and the largest difference; adds to
docs/results/same_answers.json.
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from compressor.files import write_json
from exporters.measuring.machine import machine, versions

RESULT = Path("docs/results/same_answers.json")
COMMAND = "python -m benchmarks.same_answers PACKAGE ... --rows FILE --web FOLDER"
N_ROWS, BATCH = 1000, 32
SAME_DIRECTION = 0.999999
Outputs = npt.NDArray[np.float32]


@click.command()
@click.argument("packages", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--rows", required=True, type=click.Path(path_type=Path, exists=True), help="Rows whose texts are asked.")
@click.option("--web", type=click.Path(path_type=Path, exists=True), help="Folder with onnxruntime-web.")
def main(packages: tuple[Path, ...], rows: Path, web: Path | None) -> None:
    """Ask every package and write what agrees."""
    from compressor.data.table import read_table
    from edge_demo import runtime

    texts = read_table(str(rows), needs_label=None).texts[:N_ROWS]
    content = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"packages": {}}
    for folder in packages:
        package = runtime.load(folder)
        ids = [package._columns(text, None)["input_ids"] for text in texts]
        alone = package.outputs(texts)
        has_labels = bool(package.manifest["labels"])
        found: dict[str, Any] = {"rows": len(texts), "batched": agreement(alone, batched(folder, ids), has_labels)}
        if web is not None:
            found["web"] = agreement(alone, in_node(folder, ids, web), has_labels)
        recipe = folder.parent / "recipe.toml"
        name = package.manifest["teacher"]["name"] if not recipe.is_file() else folder.parent.name
        content["packages"][name] = {"bytes": package.n_bytes, **found}
        click.echo(f"{name}: {content['packages'][name]}")
    write_json(RESULT, {"version": 1, "command": COMMAND, **content, "versions": versions(), "machine": machine()})


def batched(folder: Path, ids: list[list[int]]) -> Outputs:
    """Return the outputs (rows, values) of padded batches, whose rows have the lengths that they happen to have."""
    import onnxruntime

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(folder / manifest["model"])
    found = []
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        shape = (len(part), max(map(len, part)))
        feeds = {name: np.zeros(shape, dtype=np.int64) for name in manifest["inputs"]}
        for row, tokens in enumerate(part):
            feeds["input_ids"][row, : len(tokens)] = tokens
            feeds["attention_mask"][row, : len(tokens)] = 1
        found.append(session.run([manifest["output"]], feeds)[0])
    return np.concatenate(found).astype(np.float32)


def in_node(folder: Path, ids: list[list[int]], web: Path) -> Outputs:
    """Return the outputs (rows, values) of onnxruntime-web."""
    with tempfile.TemporaryDirectory(dir=web) as name:
        script = shutil.copy(Path(__file__).parent / "web" / "answers.mjs", name)
        rows = Path(name) / "rows.json"
        rows.write_text(json.dumps(ids), encoding="utf-8")
        command = ["node", str(script), str(folder.resolve()), str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return np.array(json.loads(done.stdout.splitlines()[-1]), dtype=np.float32)


def agreement(ours: Outputs, theirs: Outputs, has_labels: bool) -> dict[str, Any]:
    """Return how many rows have the same answer, and the largest difference of a value."""
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    if not has_labels:
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        same = (ours * theirs).sum(axis=1) / np.maximum(lengths, 1e-12) > SAME_DIRECTION
    return {"same": int(same.sum()), "largest_difference": float(np.abs(ours - theirs).max())}


if __name__ == "__main__":
    main()

"""A wrong path, column or name is answered before torch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from click.testing import CliRunner
from compressor.cli import main
done = CliRunner().invoke(main, sys.argv[1:])
print(done.exit_code, "torch" in sys.modules, done.stderr)
"""
WRONG = {
    "compress --teacher {here}/none --train {rows}": "none does not exist. Did you mean",
    "compress --teacher {here} --train {rows}": "has no config.json",
    "compress --teacher {model} --train {here}/none.tsv": "none.tsv: does not exist",
    "compress --teacher {model} --train {rows} --eval {here}/none.tsv": "none.tsv: does not exist",
    "compress --teacher {model} --train {rows} --text-column none --dry-run": "--text-column 'none' is not a column",
    "compress --teacher {model} --train {rows} --label-column label,none": "--label-column 'none' is not a column",
    "compress --teacher {model} --train {rows} --method distil": "method: 'distil' is not known",
    "compress --teacher {model} --train {rows} --vocab-from {here}/none": "--vocab-from {here}/none does not exist",
    "compress --teacher {model} --train {rows} --pretrained {here}/none": "--pretrained {here}/none: folder",
    "finetune --model {here}/none --train {rows}": "none does not exist",
    "finetune --model {model} --train {here}": "is a folder, expected a file",
    "finetune --model {model} --train {rows} --label-column none": "--label-column 'none' is not a column",
    "finetune --model {model} --train {rows} --task none": "--task none is nothing to fine-tune for",
    "finetune --model {model} --train {texts}": "is plain text with no labels",
    "export {here}/none": "none does not exist",
    "export {model} --eval {here}/none.tsv": "none.tsv: does not exist",
    "vocab train --teacher {model} --train {here}/none.tsv --vocab-size 100": "none.tsv: does not exist",
}


@pytest.mark.parametrize("command", WRONG)
def test_answered_without_torch(command: str, tmp_path: Path) -> None:
    model, rows, texts = tmp_path / "model", tmp_path / "rows.tsv", tmp_path / "texts.txt"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "bert"}')
    rows.write_text("text\tlabel\na b\t1\nc d\t0\n")
    texts.write_text("a b\nc d\n")
    names = {"here": tmp_path, "model": model, "rows": rows, "texts": texts}
    words = [*command.format(**names).split(), "--output", str(tmp_path / "out")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("1 False tenmeg: ")
    assert WRONG[command].format(**names) in done.stdout

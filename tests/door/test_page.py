"""docs/python.md is true: its code runs, block after block, where the files that it names are."""

import re
from pathlib import Path

import pytest

from benchmarks.support.tiny import make_tiny

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_code_compiles():
    assert len(BLOCKS) >= 5
    for block in BLOCKS:
        compile(block, PAGE.name, "exec")


@pytest.mark.slow
def test_the_code_runs_in_order(tmp_path, monkeypatch, capsys):
    make_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    shared: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, PAGE.name, "exec"), shared)
    said = capsys.readouterr().out
    assert "compress: unknown keyword 'max_sise'. Did you mean 'max_size'? Known: " in said
    assert shared["made"].violations == [] and (tmp_path / ".small.inputs").is_dir()
    names = {path.name for path in tmp_path.iterdir()}
    written = {"out", "small", ".small.inputs", "tagger", "tags", ".tags.inputs", "finer", "exported"}
    assert names == {"teacher", "several", "train.tsv", "dev.tsv", *written}
    assert set(shared["tags"].package.manifest["labels"]) == set(shared["topics"])

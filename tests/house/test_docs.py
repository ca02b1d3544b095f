"""The README and the pages of docs agree with the results they show; commands exist, and links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.render import PAGES, read_results, render
from compressor.cli import main

ROOT = Path(__file__).parents[2]
OURS = ("compressor", "exporters", "vocab", "edge_demo", "tenmeg", "benchmarks")
PROSE = [path for name in OURS for path in (ROOT / name).rglob("*.py")]
PROSE += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL_BLOCKS = [
    block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]
COMMANDS = [line.split("#")[0].strip() for block in SHELL_BLOCKS for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_table_is_what_its_result_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert render(text, read_results()) == text


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("tenmeg")])
def test_every_tenmeg_command_and_flag_exists(command: str) -> None:
    name, *words = shlex.split(command)[1:]
    inner = [words[0]] if words and words[0] in getattr(main.commands[name], "commands", {}) else []
    shown = CliRunner().invoke(main, [name, *inner, "--help"])
    assert shown.exit_code == 0
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{flag}\b", shown.output), f"{flag} is not a flag of tenmeg {name}"


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make")])
def test_every_make_target_exists(command: str) -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert command.split()[1] in targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_python_blocks_compile() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_every_file_and_module_that_prose_names_exists() -> None:
    """In back-ticks: ``compressor.files.write_text``, `tests/house/test_docs.py`."""
    checked = 0
    for page in PROSE:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(rf"`((?:{'|'.join(OURS)}|tests)/[\w/]+\.\w+)`", text):
            assert (ROOT / target).exists(), f"{page.name}: {target}"
            checked += 1
        for name in re.findall(r"`((?:compressor|exporters|vocab|edge_demo|benchmarks)(?:\.[a-z_]\w*)+)`", text):
            *module, last = name.split(".")
            whole, part = ROOT.joinpath(*module, f"{last}.py"), ROOT.joinpath(*module).with_suffix(".py")
            is_there = whole.exists() or ROOT.joinpath(*module, last).is_dir() or name in ("vocab.txt", "vocab.json")
            assert is_there or re.search(rf"\b{last}\b", part.read_text(encoding="utf-8")), f"{page.name}: {name}"
            checked += 1
    assert checked > 80

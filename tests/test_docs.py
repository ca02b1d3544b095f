"""The README agrees with the results it shows, its commands exist, and its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.render import read_results, render
from compressor.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL_BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in SHELL_BLOCKS for line in block.splitlines() if line.strip()]


def test_every_table_is_what_its_result_says() -> None:
    assert render(README, read_results()) == README


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("tenmeg")])
def test_every_tenmeg_command_and_flag_exists(command: str) -> None:
    name, *words = shlex.split(command)[1:]
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{flag}\b", shown.output), f"{flag} is not a flag of tenmeg {name}"


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make")])
def test_every_make_target_exists(command: str) -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert command.split()[1] in targets


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_python_blocks_compile() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_every_shipped_recipe_is_valid() -> None:
    from compressor.recipe import load

    for path in (ROOT / "compressor" / "recipes").glob("*.toml"):
        load(path)

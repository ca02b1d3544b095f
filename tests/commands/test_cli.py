"""The command line: help, flags, results on stdout and the rest on stderr, errors as sentences with exit codes."""

import doctest
import errno
import json
import os
import re
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.commands import console, flags
from compressor.commands.decisions import to_recipe, with_columns
from compressor.commands.flags import FLAGS
from compressor.data.columns import Columns
from compressor.recipe import recipe as recipes
from compressor.scoring.evaluate import score
from compressor.scoring.registry import task_spec
from exporters.budget import OverBudget

COMMANDS = sorted(main.commands)
# With the commands of commands: "vocab train".
LEAVES = {
    " ".join([name, *inner]): leaf
    for name, command in main.commands.items()
    for inner, leaf in (
        [((), command)] if not isinstance(command, click.Group) else [((n,), c) for n, c in command.commands.items()]
    )
}


def tenmeg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_all_commands_are_there() -> None:
    named = "compress run finetune vocab export quantize measure verify package report methods recipes doctor".split()  # noqa: SIM905
    assert sorted(named) == COMMANDS


@pytest.mark.parametrize("name", LEAVES)
def test_each_command_says_what_it_does_and_every_default(name: str) -> None:
    done = tenmeg(*name.split(), "--help")
    assert done.exit_code == 0
    assert LEAVES[name].help
    for parameter in LEAVES[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.required or "[default: " in parameter.help or parameter.name in ("teacher", "output"), (
                parameter.name
            )


@pytest.mark.parametrize("name", LEAVES)
def test_the_same_flag_is_the_same_everywhere(name: str) -> None:
    for parameter in LEAVES[name].params:
        if isinstance(parameter, click.Option):
            flag = FLAGS[str(parameter.name)]
            assert str(parameter.help).startswith(flag.help)


def test_the_defaults_that_help_tells_are_the_recipes() -> None:
    recipe = recipes.from_dict({"teacher": {"path": "t"}, "data": {"train": "f"}}).model_dump()
    said = {"off": False, "baselines": True}
    for name, flag in FLAGS.items():
        if flag.place is None or name in ("teacher", "train", "model", "option"):
            continue
        section, _, key = flag.place.rpartition(".")
        real = (recipe["stage"][0] if section == "stage" else recipe[section] if section else recipe).get(key)
        shown = said.get(str(flag.default), flag.default)
        if name == "eval":
            assert f"{recipe['data']['holdout']:.0%}".replace("%", " %") in str(shown)
        elif real is None:
            assert not re.fullmatch(r"[\d.]+", str(shown)) or name == "block_size", name
        else:
            assert str(real) == str(shown), name


def test_the_example_of_to_recipe_is_true() -> None:
    assert doctest.testmod(flags).failed == 0


def test_flags_become_a_recipe() -> None:
    values = {
        "teacher": "t", "train": "f.tsv", "layers": 4, "quantize": "int4", "embedding_bits": 8, "max_size": "7MB",
        "baselines": False, "offline": False, "seed": 3, "epochs": 2.0, "eval": None,
        "method": ("distill", "finetune"), "option": ("distill.temperature=3", "finetune.label_smoothing=0.1"),
    }  # fmt: skip
    recipe = recipes.from_dict(to_recipe(values))
    assert (recipe.student.layers, recipe.quantize.scheme, recipe.quantize.embedding_bits) == (4, "int4", 8)
    assert (recipe.budget.max_size, recipe.measure.baselines, recipe.seed) == ("7MB", False, 3)
    assert [(stage.method, stage.epochs, stage.options) for stage in recipe.stage] == [
        ("distill", 2.0, {"temperature": 3}),
        ("finetune", 2.0, {"label_smoothing": 0.1}),
    ]


def test_the_flags_that_name_columns_become_one_value() -> None:
    values = {"label_column": "stars", "text_column": "review", "pair_column": None, "runs": 5}
    assert with_columns(values) == {"runs": 5, "columns": Columns(text="review", label="stars")}
    assert with_columns({"eval": "f.tsv"}) == {"eval": "f.tsv", "columns": Columns()}


def test_an_option_of_several_methods_must_name_its_own() -> None:
    with pytest.raises(ValueError, match=re.escape("Write METHOD.KEY=VALUE, for example distill.a=1.")):
        to_recipe({"method": ("distill", "finetune"), "option": ("a=1",)})
    with pytest.raises(ValueError, match=re.escape("--option a: expected KEY=VALUE")):
        to_recipe({"option": ("a",)})


@pytest.mark.parametrize(
    ("text", "value"), [("2", 2), ("0.5", 0.5), ("true", True), ("word", "word"), ("[1, 2]", [1, 2])]
)
def test_option_values_are_read_as_in_a_recipe(text: str, value: Any) -> None:
    assert to_recipe({"option": (f"key={text}",)})["stage"][0]["options"] == {"key": value}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["compres"], "Did you mean 'compress'?"),
        (["compress", "--vocabsize", "3"], "'--vocab-size'?)"),
        (["verify", "p", "--max-drops", "3"], "(Did you mean one of: '--max-drop'"),
        (["compress", "--quantize", "int3"], "'int3' is not one of 'auto', 'int8', 'int4', 'none'"),
        (["compress", "--layers", "0"], "0 is not in the range x>=1"),
        (["compress", "--train", "f"], "Missing option '--teacher'"),
        (["export"], "Missing argument 'MODEL'"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_hint(arguments: list[str], hint: str) -> None:
    done = tenmeg(*arguments)
    assert done.exit_code == 2
    assert hint in done.stderr
    assert not done.stdout


def failing(error: BaseException) -> click.Group:
    @click.group(cls=console.Group)
    def group() -> None: ...

    @group.command()
    @flags.flags("as_json")
    def fail(as_json: bool) -> None:
        sys.stdout.write("a library prints this\n")
        raise error

    @group.command()
    @flags.flags("as_json")
    def work(as_json: bool) -> None:
        sys.stdout.write("a library prints this\n")
        console.say("reading")
        console.result({"answer": 42}, ["the answer is 42"])

    return group


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (FileNotFoundError("teacher: t does not exist."), 1, "tenmeg: teacher: t does not exist."),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x.tsv"), 1, "x.tsv: no such file or directory."),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "o"), 1, "o: no space left on device. Free some space"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "o"), 1, "o: permission denied. Check its"),
        (FileExistsError("--output o is not empty."), 1, "tenmeg: --output o is not empty."),
        (MemoryError(), 1, "tenmeg: out of memory. Use a smaller --batch-size"),
        (ModuleNotFoundError("no", name="torch.nn"), 1, "this needs the package 'torch', not installed here. Run: pip"),
        (ModuleNotFoundError("no", name="onnxruntime"), 1, "Run: pip install 'tenmeg[cpu]'"),
        (OverBudget(["size: big", "latency: slow"]), 3, "tenmeg: not met: size: big\ntenmeg: not met: latency: slow"),
        (KeyboardInterrupt(), 130, "tenmeg: interrupted. Run the same command again to go on"),
        (RuntimeError("boom\nsecond line"), 1, "tenmeg: RuntimeError: boom second line (unexpected; details in "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_each_error_is_a_sentence_and_a_code(error: BaseException, code: int, sentence: str) -> None:
    done = CliRunner().invoke(failing(error), ["fail"])
    assert done.exit_code == code
    assert sentence in done.stderr
    assert "Traceback" not in done.output
    assert not done.stdout


def test_an_unforeseen_error_leaves_its_traceback_in_a_log() -> None:
    done = CliRunner().invoke(failing(RuntimeError("boom")), ["fail"])
    log = Path(re.findall(r"details in (\S+)\)", done.stderr)[0])
    assert "Traceback (most recent call last)" in log.read_text(encoding="utf-8")
    log.unlink()


def test_a_value_error_of_a_library_is_not_taken_for_a_sentence_of_ours() -> None:
    done = CliRunner().invoke(failing(ValueError("cannot reshape array")), ["fail"])
    log = Path(re.findall(r"tenmeg: ValueError: cannot reshape array \(unexpected; details in (\S+)\)", done.stderr)[0])
    log.unlink()


def test_what_numpy_says_inside_our_own_lines_is_not_taken_for_a_sentence_of_ours() -> None:
    with pytest.raises(ValueError, match="cannot reshape") as caught:
        score(np.zeros((2, 3)), [0.0, 1.0], task_spec("regression", pair=False))
    assert Path(traceback.extract_tb(caught.value.__traceback__)[-1].filename).name == "regression.py"  # a line of ours
    sentences, code = console.explain(caught.value)
    assert code == 1 and "unexpected; details in" in sentences[0]
    Path(sentences[0].rpartition(" ")[2].rstrip(")")).unlink()


def test_errors_are_json_too() -> None:
    done = CliRunner().invoke(failing(OverBudget(["size: too big"])), ["fail", "--json"])
    assert json.loads(done.stdout) == {"schema_version": 1, "status": "not met", "violations": ["size: too big"]}
    done = CliRunner().invoke(failing(FileNotFoundError("gone.")), ["fail", "--json"])
    assert json.loads(done.stdout) == {"schema_version": 1, "status": "failed", "error": ["gone."]}


def test_stdout_holds_only_the_result() -> None:
    done = CliRunner().invoke(failing(OSError()), ["work"])
    assert done.stdout == "the answer is 42\n"
    assert done.stderr == "a library prints this\nreading\n"


def test_with_json_stdout_is_one_object_and_the_text_is_on_stderr() -> None:
    done = CliRunner().invoke(failing(OSError()), ["work", "--json"])
    assert json.loads(done.stdout) == {"schema_version": 1, "answer": 42}
    assert "the answer is 42" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m compressor.cli compress --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


def test_the_version_is_told() -> None:
    assert tenmeg("--version").stdout.startswith("tenmeg, version 0.")


def test_methods_lists_each_with_a_line_and_its_options() -> None:
    listed = json.loads(tenmeg("methods", "--json").stdout)["methods"]
    assert {"distill", "finetune"} <= set(listed)
    assert all(listed.values())
    for name in listed:
        options = json.loads(tenmeg("methods", name, "--json").stdout)["options"]
        assert all("MISSING" not in str(option["default"]) for option in options), name
    told = json.loads(tenmeg("methods", "distill", "--json").stdout)
    assert {"temperature", "hidden"} <= {option["name"] for option in told["options"]}
    assert "--option temperature=2.0  (float)" in tenmeg("methods", "distill").stdout
    done = tenmeg("methods", "distil")
    assert (done.exit_code, "Did you mean 'distill'?" in done.stderr) == (1, True)


def test_doctor_answers_in_json() -> None:
    done = tenmeg("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == (1 if found["problems"] else 0)
    assert found["machine"]["cores_available"] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "no.toml", "--output", "o"], "recipe: no.toml does not exist."),
        (["report", "nowhere", "--output", "o"], "nowhere does not exist"),
        (["export", "nowhere", "--output", "o"], "nowhere"),
        (["quantize", "no.onnx", "--output", "o"], "quantize: no.onnx does not exist."),
        (["package", "nowhere", "--output", "o"], "package: nowhere holds neither export.json nor a finished run."),
        (["verify", "nowhere"], "package: nowhere is not a folder."),
        (["measure", "nowhere"], "package: nowhere is not a folder."),
        (["verify", "nowhere", "--max-drop", "1"], "--max-drop needs rows to score the package on. Give --eval."),
        (["verify", "nowhere", "--max-size", "big"], "size: got 'big', expected a positive number with a unit."),
        (["vocab", "--teacher", "./no", "--train", "f", "--vocab-size", "0", "--output", "o"], "--vocab-size 0 keeps"),
        (["compress", "--teacher", "./no", "--train", "f.tsv", "--output", "o"], "folder ./no does not exist."),
        (
            ["compress", "--teacher", "t", "--train", "f", "--output", "o", "--hidden", "380", "--heads", "6"],
            "hidden=380 is not divisible by heads=6. Use hidden=378 or heads=5.",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_leaves_nothing(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # relative names in the sentences
    done = tenmeg(*arguments)
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.output
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_writes_the_recipe_and_nothing_else(tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path) -> None:
    arguments = ["compress", "--teacher", tiny_teacher_dir, "--train", tiny_rows.train, "--eval", tiny_rows.dev]
    arguments += ["--max-size", "100kB", "--output", tmp_path / "out", "--dry-run"]
    done = tenmeg(*arguments, "--json")
    assert done.exit_code == 0
    planned = json.loads(done.stdout)
    assert (
        sum(n for part, n in planned["predicted_bytes"].items() if part != "total")
        == planned["predicted_bytes"]["total"]
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["recipe.toml"]
    resolved = recipes.load(tmp_path / "out" / "recipe.toml")
    assert resolved.student.layers is not None or resolved.student.family is not None
    assert resolved.stage[0].epochs is not None
    again = json.loads(
        tenmeg("run", tmp_path / "out" / "recipe.toml", "--output", tmp_path / "two", "--dry-run", "--json").stdout
    )
    assert again["recipe"] == planned["recipe"]


def test_a_budget_that_cannot_be_met_is_exit_3_before_training(
    tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
) -> None:
    arguments = ["compress", "--teacher", tiny_teacher_dir, "--train", tiny_rows.train, "--max-size", "2kB"]
    done = tenmeg(*arguments, "--output", tmp_path / "out")
    assert done.exit_code == 3
    assert "tenmeg: not met: size: " in done.stderr
    assert not (tmp_path / "out").exists()

"""``import tenmeg``: light, complete, and with the keywords that the commands have as flags."""

import importlib
import inspect
import json
import subprocess
import sys
import traceback
import typing
from pathlib import Path

import pytest

import tenmeg
from edge_demo import runtime
from tenmeg import decisions, doors

ROOT = Path(__file__).parents[2]
NAMES = ["Recipe", "__version__", "compress", "export", "finetune", "load", "plan", "verify"]
KEYWORDS = {
    "compress": decisions.CompressDecisions,
    "finetune": decisions.FinetuneDecisions,
    "export": decisions.ExportFlags,
    "verify": decisions.VerifyFlags,
}


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def loaded_after(code: str) -> set[str]:
    return set(json.loads(python("-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")))


def test_importing_it_loads_nothing_but_itself_and_the_version():
    new = loaded_after("import tenmeg; tenmeg.__version__; dir(tenmeg)") - loaded_after("import typing")
    assert {name for name in new if name.partition(".")[0] not in sys.stdlib_module_names} == {"tenmeg", "compressor"}


def test_its_functions_are_there_without_torch_numpy_or_pydantic():
    found = loaded_after("import tenmeg; [getattr(tenmeg, name) for name in dir(tenmeg) if name != 'Recipe']")
    heavy = {"torch", "transformers", "numpy", "pydantic", "onnxruntime", "onnx"}
    assert not {name.partition(".")[0] for name in found} & heavy


def test_opening_a_package_loads_no_torch():
    code = "import tenmeg; tenmeg.load('tests/golden/sentiment').predict('a fine film')"
    assert not {name.partition(".")[0] for name in loaded_after(code)} & {"torch", "transformers", "pydantic", "onnx"}


def test_verifying_a_package_loads_no_torch():
    code = "import tenmeg; assert tenmeg.verify('tests/golden/sentiment', max_size='7MB')['status'] == 'ok'"
    assert not {name.partition(".")[0] for name in loaded_after(code)} & {"torch", "transformers", "onnx", "scipy"}


def test_the_names_are_listed_and_found():
    assert tenmeg.__all__ == dir(tenmeg) == NAMES
    for name in NAMES:
        assert getattr(tenmeg, name) is not None
    assert tenmeg.compress is doors.compress
    assert tenmeg.Recipe is importlib.import_module("compressor.recipe.recipe").Recipe
    assert (Path(tenmeg.__file__).parent / "py.typed").is_file()


def test_an_unknown_name_gets_one_hint():
    with pytest.raises(AttributeError, match=r"no attribute 'compres'\. Did you mean 'compress'\?") as caught:
        tenmeg.compres  # noqa: B018
    assert "".join(traceback.format_exception(caught.value)).count("Did you mean") == 1
    assert not hasattr(tenmeg, "__wrapped__")


@pytest.mark.parametrize("command", KEYWORDS)
def test_the_keywords_that_an_editor_knows_are_the_flags_of_the_command(command):
    assert set(typing.get_type_hints(KEYWORDS[command])) == set(decisions.known_options(command))


def test_every_function_says_what_it_takes():
    for name in ("compress", "export", "finetune", "load", "plan", "verify"):
        function = getattr(tenmeg, name)
        assert inspect.getdoc(function)
        annotated = inspect.get_annotations(function)
        assert set(inspect.signature(function).parameters) == set(annotated) - {"return"}, name


def test_load_takes_what_the_runtime_takes():
    ours, theirs = (list(inspect.signature(each).parameters.values())[1:] for each in (tenmeg.load, runtime.load))
    assert [(each.name, each.kind, each.default) for each in ours] == [
        (each.name, each.kind, each.default) for each in theirs
    ]


def test_plan_takes_what_compress_takes_but_what_is_written_and_told():
    planned, made = (set(inspect.signature(each).parameters) for each in (tenmeg.plan, tenmeg.compress))
    assert made - planned == {"output", "overwrite", "cache", "report_to", "echo"} and planned <= made


def test_python_m_tenmeg_is_the_command():
    ours, theirs = python("-m", "tenmeg", "--help"), python("-c", "from compressor.cli import main; main(['--help'])")
    assert ours.splitlines()[1:] == theirs.splitlines()[1:]
    assert ours.startswith("Usage: tenmeg [OPTIONS] COMMAND")

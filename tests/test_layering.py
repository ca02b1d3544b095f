"""The arrows between the parts, read from the imports, and how light the light modules are."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("vocab", "exporters", "edge_demo", "compressor")
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
HEAVY = {"torch", "transformers", "optimum", "accelerate", "datasets"}
THIRD_PARTY = {
    "vocab": {"numpy", "tokenizers", "sentencepiece"},
    "edge_demo": {"numpy", "onnxruntime", "tokenizers"},
}
# Inside compressor: the modules that may join training to exporting.
JOINERS = {"graphs.py", "run.py", "cli.py", "steps.py", "checks.py", "verification.py"}
TORCH_FREE_MODULES = (
    "compressor.cli", "compressor.recipe", "compressor.report", "compressor.doctor", "compressor.objective",
    "compressor.shipped", "exporters.budget", "exporters.package", "edge_demo.runtime",
)  # fmt: skip


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (module, is at top level and run) of every import; TYPE_CHECKING blocks count as not run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.walk(node)
    }
    top_level = {child for node in tree.body if not isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
    for node in ast.walk(tree):
        runs = node in top_level and node not in typing_only
        if isinstance(node, ast.Import):
            yield from ((alias.name, runs) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module), runs


def names(path: Path, runs_only: bool = False) -> set[str]:
    return {module.partition(".")[0] for module, runs in imports_of(path) if runs or not runs_only}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    others = set(OURS) - {package}
    if package != "compressor":
        assert not names(path) & others, f"{package} is a leaf: it knows none of {sorted(others)}"
    for module, _ in imports_of(path):
        assert module.partition(".")[0] not in ("tests", "benchmarks")


@pytest.mark.parametrize("package", sorted(THIRD_PARTY))
def test_a_light_leaf_needs_only_its_own_libraries(package: str) -> None:
    for path in (ROOT / package).glob("*.py"):
        foreign = names(path) - set(sys.stdlib_module_names) - THIRD_PARTY[package] - {package}
        assert not foreign, f"{path.name} imports {sorted(foreign)}"


@pytest.mark.parametrize("name", ["budget", "passes"])
def test_numbers_need_only_the_standard_library(name: str) -> None:
    assert names(ROOT / "exporters" / f"{name}.py") <= set(sys.stdlib_module_names)


def test_the_runtime_is_one_file_to_copy() -> None:
    allowed = set(sys.stdlib_module_names) | THIRD_PARTY["edge_demo"]
    assert names(ROOT / "edge_demo" / "runtime.py") <= allowed


def test_only_two_exporters_know_torch() -> None:
    with_torch = {path.name for path in (ROOT / "exporters").glob("*.py") if names(path) & HEAVY}
    assert with_torch <= {"to_onnx.py", "repeats.py"}


def test_a_method_never_mentions_onnx() -> None:
    for path in (ROOT / "compressor" / "methods").glob("*.py"):
        assert "onnx" not in path.read_text(encoding="utf-8").lower(), path.name
        assert not names(path) & {"exporters", "edge_demo"}, path.name


def test_only_the_joiners_import_the_machinery_of_exporting() -> None:
    # numbers, names and model classes, no ONNX
    light = {"exporters.budget", "exporters.passes", "exporters.pooling", "exporters.predict", "exporters.repeats"}
    for path in (ROOT / "compressor").glob("*.py"):
        if path.name in JOINERS:
            continue
        joined = {
            module
            for module, _ in imports_of(path)
            if module.partition(".")[0] in ("exporters", "edge_demo", "onnx") and module not in light
        }
        assert not joined, f"{path.name} imports {sorted(joined)}"


def test_init_files_are_docstrings() -> None:
    for path in FILES:
        if path.name != "__init__.py":
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(body[0], ast.Expr), f"{path} has no docstring"
        rest = [ast.unparse(node).partition(" =")[0] for node in body[1:]]
        assert rest in ([], ["__version__"]), path


def test_no_module_is_called_utils() -> None:
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "common", "misc")]


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after ``code``."""
    tail = "\nimport json, sys; print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_light_modules_load_no_torch() -> None:
    code = "\n".join(f"import {name}" for name in TORCH_FREE_MODULES)
    assert not loaded_after(code) & HEAVY


def test_help_loads_neither_torch_nor_numpy_nor_pydantic() -> None:
    code = "from click.testing import CliRunner\nfrom compressor.cli import main\n"
    code += "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
    code += "assert CliRunner().invoke(main, ['compress', '--help']).exit_code == 0"
    assert not loaded_after(code) & (HEAVY | {"numpy", "pydantic", "onnxruntime", "onnx", "jinja2", "matplotlib"})


def test_listing_the_methods_loads_no_torch() -> None:
    assert not loaded_after("from compressor.objective import method_names, method_summary\n"
                            "[method_summary(name) for name in method_names()]") & HEAVY  # fmt: skip

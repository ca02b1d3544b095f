"""The arrows between the parts, read from the imports, the rooms of a folder, and how light the light modules are."""

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("vocab", "exporters", "edge_demo", "compressor", "tenmeg")
DOOR = "tenmeg"  # stands above the command line: it knows all but vocab, and nobody knows it
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
# The floors of compressor from the top down; what stands on one floor does not know each other.
FLOORS = (
    ("cli",), ("commands",), ("run",), ("run.planning",), ("methods", "packaging"), ("inherit", "mixing", "report"),
    ("training",), ("student",), ("batches",), ("models", "tasks"), ("scoring",), ("recipe", "data"),
    ("files", "refused"),
)  # fmt: skip
HEAVY = {"torch", "transformers", "optimum", "accelerate", "datasets"}
THIRD_PARTY = {
    "vocab": {"numpy", "tokenizers", "sentencepiece"},
    "edge_demo": {"numpy", "onnxruntime", "tokenizers"},
}
# Inside compressor: what may join training to exporting.
JOINERS = ("run", "packaging", "commands", "cli")
TORCH_FREE_MODULES = (
    "compressor.cli", "compressor.recipe.recipe", "compressor.recipe.shipped", "compressor.report.report",
    "compressor.commands.console", "compressor.commands.flags", "compressor.commands.doctor", "compressor.data.table",
    "compressor.training.registry", "exporters.budget", "exporters.package", "edge_demo.runtime", "tenmeg.doors",
)  # fmt: skip
# A file there is a member of a kind: a method, a task, a command of the benchmarks.
FOLDERS_OF_MEMBERS = ("compressor/methods", "compressor/tasks", "exporters/heads", "benchmarks")
MOST_FILES, MOST_LINES = 12, 300


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
            # "from package import module" is an arrow to the module
            yield from (
                (f"{node.module}.{alias.name}", runs)
                for alias in node.names
                if f"{node.module}.{alias.name}" in MODULES
            )


def names(path: Path, runs_only: bool = False) -> set[str]:
    return {module.partition(".")[0] for module, runs in imports_of(path) if runs or not runs_only}


def wing_of(module: str) -> str:
    """Return the wing of a module of compressor, as ``FLOORS`` names it."""
    inside = module.removeprefix("compressor.")
    known = [wing for floor in FLOORS for wing in floor if f"{inside}.".startswith(f"{wing}.")]
    assert known, f"{module} stands in no wing of FLOORS"
    return max(known, key=len)


def floor_of(module: str) -> int:
    """Return the number of a module's floor, 0 at the top."""
    return next(number for number, floor in enumerate(FLOORS) if wing_of(module) in floor)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    unknown = set(OURS) - {package}
    if package in ("compressor", DOOR):
        unknown = {DOOR, "vocab"} - {package} if package == DOOR else {DOOR}
    assert not names(path) & unknown, f"{package} knows none of {sorted(unknown)}"
    for module, _ in imports_of(path):
        assert module.partition(".")[0] not in ("tests", "benchmarks")


@pytest.mark.parametrize(
    "module", sorted(name for name in MODULES if name.count(".") and name.startswith("compressor"))
)
def test_wings_know_only_lower_floors(module: str) -> None:
    for other, _ in imports_of(MODULES[module]):
        if other == "compressor" or not other.startswith("compressor."):
            continue
        is_inside = wing_of(module) == wing_of(other)
        assert is_inside or floor_of(other) > floor_of(module), f"{module} imports {other}, which stands no lower"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name == DOOR and path.name != "made.py"], ids=lambda path: path.name
)
def test_the_door_opens_what_is_heavy_only_when_it_is_asked(path: Path) -> None:
    """At the top of its files stand the light leaves of compressor; runs, packages and exports are imported inside.

    ``made.py`` is what a run has made: it is imported behind the run.
    """
    light = ("compressor.cli", "compressor.commands.console", "compressor.commands.flags",
             "compressor.commands.decisions", "compressor.files",
             "compressor.refused", "compressor")  # fmt: skip
    ours = {module for module, runs in imports_of(path) if runs and module.partition(".")[0] in OURS}
    assert all(module in light or module.startswith(DOOR) for module in ours), sorted(ours)


def test_no_import_runs_in_a_circle() -> None:
    """Also not where only types are imported: the order in which a person reads has no circle either."""
    arrows = {name: {other for other, _ in imports_of(path) if other in MODULES} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(arrows[name] - {name}):
                visit(other, (*way, name))
            done.add(name)

    for name in arrows:
        visit(name, ())


def test_no_folder_has_more_rooms_than_a_person_remembers() -> None:
    places = (path for folder in (*OURS, "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py"))
    counted = Counter(path.parent.relative_to(ROOT).as_posix() for path in places)
    assert len(counted) > 30
    crowded = {folder: n for folder, n in counted.items() if n > MOST_FILES and folder not in FOLDERS_OF_MEMBERS}
    assert not crowded


def test_a_long_file_says_that_it_holds_one_idea() -> None:
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        is_one_idea = "one idea" in (ast.get_docstring(ast.parse("\n".join(lines))) or "")
        assert len(lines) <= MOST_LINES or is_one_idea, f"{path.relative_to(ROOT)} has {len(lines)} lines"


def test_no_test_imports_another() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        others = [module for module, _ in imports_of(path) if module.rpartition(".")[2].startswith("test_")]
        assert not others and "conftest" not in names(path), f"{path.name} imports {others}: share it in tests/support"


@pytest.mark.parametrize("package", sorted(THIRD_PARTY))
def test_a_light_leaf_needs_only_its_own_libraries(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        foreign = names(path) - set(sys.stdlib_module_names) - THIRD_PARTY[package] - {package}
        assert not foreign, f"{path.name} imports {sorted(foreign)}"


@pytest.mark.parametrize("name", ["budget", "shape", "repetition", "pooling"])
def test_numbers_need_only_the_standard_library(name: str) -> None:
    assert names(ROOT / "exporters" / f"{name}.py") <= {*sys.stdlib_module_names, "exporters"}


def test_the_runtime_is_one_file_to_copy() -> None:
    allowed = set(sys.stdlib_module_names) | THIRD_PARTY["edge_demo"]
    assert names(ROOT / "edge_demo" / "runtime.py") <= allowed


def test_onnxruntime_is_imported_where_its_telemetry_is_switched_off() -> None:
    doors = {
        name
        for name, path in MODULES.items()
        if any(f"{module}.".startswith("onnxruntime.") for module, _ in imports_of(path))
    }
    # its tools, inside a function of a module that has taken onnxruntime from the first
    assert doors == {"exporters.measuring.ort", "edge_demo.runtime", "exporters.graph.to_ort"}
    assert "exporters.measuring.ort" in {module for module, _ in imports_of(MODULES["exporters.graph.to_ort"])}


def test_only_models_and_what_writes_graphs_of_them_know_torch() -> None:
    """The one that writes graphs, those that are models, and, for types, the heads."""
    with_torch = {
        path.relative_to(ROOT / "exporters").as_posix()
        for path in (ROOT / "exporters").rglob("*.py")
        if names(path) & HEAVY
    }
    heads = {path.relative_to(ROOT / "exporters").as_posix() for path in (ROOT / "exporters" / "heads").glob("*.py")}
    models = {"repeats.py", "small/models.py", "small/layers.py", "small/tfidf.py"}
    assert with_torch <= {"to_onnx.py", "weights.py", "head.py", *models, *heads}


def test_a_method_never_mentions_onnx() -> None:
    for path in (ROOT / "compressor" / "methods").rglob("*.py"):
        assert "onnx" not in path.read_text(encoding="utf-8").lower(), path.name
        assert not names(path) & {"exporters", "edge_demo"}, path.name


def test_only_the_joiners_import_the_machinery_of_exporting() -> None:
    # numbers, names and model classes, no ONNX
    numbers = (
        "budget",
        "shape",
        "repetition",
        "pooling",
        "predicted_bytes",
        "refused",
        "repeats",
        "head",
        "weights",
        "measuring.machine",
        "small.shape",
        "small.models",
    )
    light = {"exporters", *(f"exporters.{name}" for name in numbers)}
    for name, path in MODULES.items():
        if not name.startswith("compressor.") or wing_of(name).partition(".")[0] in JOINERS:
            continue
        joined = {
            module
            for module, _ in imports_of(path)
            if module.partition(".")[0] in ("exporters", "edge_demo", "onnx") and module not in light
        }
        assert not joined, f"{name} imports {sorted(joined)}"


def test_no_code_asks_which_kind_of_task_it_has() -> None:
    """But in the files of the kinds, and in the reader, which is one file."""
    kinds = {path.stem for path in (ROOT / "compressor" / "tasks").glob("*.py") if path.stem != "__init__"}
    tasks = {"text-classification", "feature-extraction"}
    asked = []
    for name, path in MODULES.items():
        if name.startswith(("compressor.tasks.", "exporters.heads.", "edge_demo.")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            words = {part.value for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant)}
            # a width of a tensor, and a rule of vocabularies, are called so as well
            others = any(ast.unparse(side).endswith((".along", "width", "rule")) for side in sides)
            asked += [f"{name}:{node.lineno}"] if words & (kinds | tasks) and not others else []
    assert not asked


def test_init_files_are_docstrings() -> None:
    """All but the door's, whose names are found when they are asked for."""
    for path in FILES:
        if path.name != "__init__.py":
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(body[0], ast.Expr), f"{path} has no docstring"
        rest = [ast.unparse(node).partition(" =")[0] for node in body[1:]]
        assert rest in ([], ["__version__"]) or path.parent.name == DOOR, path


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
    assert not loaded_after("from compressor.training.registry import method_names, method_summary\n"
                            "[method_summary(name) for name in method_names()]") & HEAVY  # fmt: skip

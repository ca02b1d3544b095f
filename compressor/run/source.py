"""Which of our source a step depends on: the function that does it, the modules that this imports, and theirs in turn.

So a step is done again when code that it runs has changed, and not when a line elsewhere has. Read with ``ast``:
imports inside functions count; annotations, and imports for types alone, do not. Methods and kinds of task are
imported by their names, which no source shows: who runs one names its module.
"""

import ast
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("compressor", "exporters", "vocab", "edge_demo")


def code_digest(*roots: Callable[..., Any] | str) -> str:
    """Return a sha256 of the source that the roots depend on: all of ours when none is given.

    Args:
        *roots: functions (a ``partial`` or a method stands for its function) and names of modules. A function that is
            not of our packages stands for all of our source.
    """
    texts: dict[str, str] = {}
    for root in roots:
        if isinstance(root, str):
            texts |= {name: _text(name) for name in _reached(root)}
            continue
        function: Any = root
        while isinstance(function, functools.partial):
            function = function.func
        if function.__module__ not in _paths():
            return code_digest()
        _follow(function.__module__, function.__qualname__.partition(".")[0], texts)
    content = texts if roots else {name: _text(name) for name in _paths()}
    return hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in sorted(content.items())).encode()).hexdigest()


@functools.cache
def _paths() -> dict[str, Path]:
    """Return the files of our modules by dotted name."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in found}


@functools.cache
def _text(module: str) -> str:
    return _paths()[module].read_text(encoding="utf-8")


@functools.cache
def _names(module: str) -> dict[str, ast.stmt | str]:
    """Return what each name of a module is: a statement at its top that defines it, or a module it is taken from."""
    tree = ast.parse(_text(module))
    found: dict[str, ast.stmt | str] = dict(_imports(tree))
    for node in tree.body:
        for part in getattr(node, "targets", [getattr(node, "target", node)]):  # of an assignment, or a definition
            found |= {str(name): node for key in ("id", "name") if (name := getattr(part, key, None))}
    return found


def _follow(module: str, name: str, texts: dict[str, str]) -> None:
    """Add a definition, those of the same file that it uses, and the modules that any of them imports."""
    node = _names(module)[name]
    if f"{module}:{name}" in texts or isinstance(node, str):
        return
    texts[f"{module}:{name}"] = ast.unparse(node)
    used = {each.id for each in _run(node) if isinstance(each, ast.Name)} & _names(module).keys()
    for other in used:
        _follow(module, other, texts)
    taken = {str(_names(module)[other]) for other in used if isinstance(_names(module)[other], str)}
    for imported in taken | {inner for _, inner in _imports(node)}:
        texts |= {each: _text(each) for each in _reached(imported)}


def _reached(module: str) -> set[str]:
    """Return a module and all of ours that it imports, directly or not."""
    found, waiting = {module}, [module]
    while waiting:
        new = _direct(waiting.pop()) - found
        found |= new
        waiting += new
    return found


@functools.cache
def _direct(module: str) -> frozenset[str]:
    return frozenset(other for _, other in _imports(ast.parse(_text(module))))


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (local name, module of ours) of the imports that run somewhere in the tree."""
    for node in _run(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names if alias.name in _paths())
        elif isinstance(node, ast.ImportFrom) and node.module in _paths():
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield alias.asname or alias.name, inner if inner in _paths() else str(node.module)


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a tree that run: no annotations, nothing that is there for type checkers only."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from _run(child)

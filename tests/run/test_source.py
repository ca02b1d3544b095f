"""Which source counts for a step: what it runs, and nothing else of ours."""

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from compressor.run import compress, finetune, package_steps, source, student_steps
from compressor.run.source import code_digest

FILES = {
    "compressor/step.py": """
from typing import TYPE_CHECKING

from compressor import near
from compressor.far import helper

if TYPE_CHECKING:
    from compressor.typed import Thing

FACTOR = 2


def work(thing: "Thing") -> int:
    return _double(near.value())


def other() -> int:
    return helper()


def _double(value: int) -> int:
    return FACTOR * value
""",
    "compressor/__init__.py": "",
    "compressor/near.py": "def value():\n    from vocab.lazy import number\n\n    return number\n",
    "compressor/far.py": "def helper():\n    return 1\n",
    "compressor/typed.py": "class Thing: ...\n",
    "compressor/method.py": "knob = 1\n",
    "vocab/lazy.py": "number = 3\n",
}


@pytest.fixture
def digest_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return a function that changes a file of a small tree and returns the digest of ``work``, or of other roots."""
    monkeypatch.setattr(source, "ROOT", tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    module = ModuleType("compressor.step")
    exec("def work(thing): ...", module.__dict__)

    def changed(name: str = "", old: str = "", new: str = "", roots: tuple[Any, ...] = (module.work,)) -> str:
        if name:
            text = (tmp_path / name).read_text(encoding="utf-8")
            assert old in text
            (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
        forget()
        return code_digest(*roots)

    yield changed
    forget()


def forget() -> None:
    for each in (source._paths, source._text, source._names, source._direct):
        each.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("compressor/step.py", "near.value()", "1 + near.value()", True),
        ("compressor/step.py", "FACTOR * value", "value * FACTOR", True),
        ("compressor/step.py", "FACTOR = 2", "FACTOR = 3", True),
        ("compressor/near.py", "return number", "return -number", True),
        ("vocab/lazy.py", "3", "4", True),
        ("compressor/step.py", "return helper()", "return 2 * helper()", False),
        ("compressor/far.py", "1", "2", False),
        ("compressor/typed.py", "...", "a = 1", False),
        ("compressor/method.py", "1", "2", False),
    ],
)
def test_what_a_step_runs_counts_and_nothing_else(
    name: str, old: str, new: str, counts: bool, digest_after: Callable[..., str]
) -> None:
    before = digest_after()
    assert (digest_after(name, old, new) != before) == counts


def test_a_module_that_is_imported_by_its_name_counts_where_it_is_named(digest_after: Callable[..., str]) -> None:
    before = digest_after(roots=("compressor.method",))
    assert digest_after("compressor/method.py", "1", "2", roots=("compressor.method",)) != before


def test_all_of_our_source_counts_where_a_function_is_not_ours(digest_after: Callable[..., str]) -> None:
    everything = digest_after(roots=())
    assert digest_after(roots=(lambda part: part,)) == everything
    assert digest_after("compressor/far.py", "1", "2", roots=(lambda part: part,)) != everything


def test_the_steps_of_a_run_have_digests_of_their_own() -> None:
    steps = [
        student_steps.run_vocab, student_steps.run_teacher, student_steps.run_student, student_steps.run_stage,
        finetune.train_model, compress._check, package_steps.Sources.export,
    ]  # fmt: skip
    found = [code_digest(functools.partial(step, None)) for step in steps]
    assert len(set(found)) == len(found) and code_digest() not in found


def test_a_vocabulary_does_not_depend_on_how_students_are_trained() -> None:
    reached = modules_of(student_steps.run_vocab)
    assert "vocab.train" in reached and not any(name.startswith("compressor.training") for name in reached)
    assert {"compressor.training.trainer", "compressor.run.feeding.relabel"} <= modules_of(student_steps.run_stage)


def modules_of(step: Callable[..., Any]) -> set[str]:
    texts: dict[str, str] = {}
    source._follow(step.__module__, step.__qualname__, texts)
    return {name for name in texts if ":" not in name}


def test_only_methods_and_tasks_are_imported_by_a_name_that_no_source_shows() -> None:
    texts = {name: path.read_text(encoding="utf-8") for name, path in source._paths().items()}
    assert sorted(name for name in texts if re.search("import_module|__import__", texts[name])) == [
        "compressor.scoring.registry", "compressor.training.registry", "exporters.head"
    ]  # fmt: skip

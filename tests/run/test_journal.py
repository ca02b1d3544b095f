"""Steps are done once, again when anything they depend on changes, and never seen half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compressor import files
from compressor.run import journal as journals
from compressor.run.journal import MARKER, Journal
from exporters.measuring.machine import versions


class Steps:
    """A journal whose steps write what they are told and remember that they ran."""

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self.said: list[str] = []
        self.ran: list[str] = []
        self.found: list[list[str]] = []
        self.journal = Journal(folder, self.said.append, cache)

    def do(self, name="a", inputs=None, after=(), text="x", fail=False, **more) -> Path:
        def work(part: Path) -> None:
            self.ran.append(name)
            self.found.append(sorted(path.name for path in part.iterdir() if path.name != MARKER))
            (part / "half").write_text("half")
            if fail:
                raise RuntimeError("killed")
            (part / "half").unlink()
            (part / "deep").mkdir(exist_ok=True)
            (part / "deep" / "file").write_text(text)

        return self.journal.step(name, inputs or {}, after, work, **more)


@pytest.fixture
def steps(tmp_path) -> Steps:
    return Steps(tmp_path / "steps")


def test_a_step_that_is_done_is_skipped_and_says_so(steps):
    folder = steps.do(inputs={"seed": 1, "rows": 2})
    assert steps.do(inputs={"rows": 2, "seed": 1}) == folder
    assert (steps.ran, steps.said) == (["a"], ["a: done before"])
    assert (folder / "deep" / "file").read_text() == "x"


@pytest.mark.parametrize("inputs", [{"seed": 2}, {"seed": "1"}, {"seed": 1, "more": None}, {}])
def test_other_inputs_do_it_again_in_place_of_the_old(steps, inputs):
    steps.do(inputs={"seed": 1}, text="old")
    folder = steps.do(inputs=inputs, text="new")
    assert steps.ran == ["a", "a"]
    assert (folder / "deep" / "file").read_text() == "new"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["a"]


def test_other_files_of_an_earlier_step_do_it_again(steps):
    steps.do("a", text="one")
    steps.do("b", after=("a",))
    steps.do("b", after=("a",))
    assert steps.ran == ["a", "b"]
    steps.do("a", inputs={"seed": 2}, text="two")
    steps.do("b", after=("a",))
    assert steps.ran == ["a", "b", "a", "b"]


def test_the_same_files_of_an_earlier_step_do_not(steps):
    steps.do("a", text="one")
    steps.do("b", after=("a",))
    steps.do("a", inputs={"seed": 2}, text="one")
    steps.do("b", after=("a",))
    assert steps.ran == ["a", "b", "a"]


def test_other_code_does_everything_again(steps, monkeypatch):
    steps.do()
    monkeypatch.setattr(journals, "code_digest", lambda *_roots: "0" * 64)
    steps.do()
    assert steps.ran == ["a", "a"]


def test_the_digest_of_the_code_covers_our_packages_only():
    assert journals.code_digest() == journals.code_digest()
    assert len(journals.code_digest()) == 64


def test_a_step_that_failed_is_not_seen_and_starts_in_an_empty_folder(steps):
    with pytest.raises(RuntimeError):
        steps.do(fail=True)
    assert not steps.journal.folder("a").exists()
    folder = steps.do()
    assert steps.found == [[], []]
    assert sorted(path.name for path in folder.iterdir()) == ["deep", "step.json"]


def test_a_step_that_resumes_finds_its_work_again_only_for_the_same_inputs(steps):
    for inputs, found in (({"seed": 1}, []), ({"seed": 1}, ["half"]), ({"seed": 2}, []), ({"seed": 2}, ["half"])):
        with pytest.raises(RuntimeError):
            steps.do(inputs=inputs, fail=True, resumes=True)
        assert steps.found[-1] == found
    steps.do(inputs={"seed": 2}, resumes=True)
    assert steps.found[-1] == ["half"]
    assert not (steps.journal.folder("a") / MARKER).exists()


def test_an_old_result_stays_until_the_new_one_is_whole(steps):
    folder = steps.do(text="old")
    with pytest.raises(RuntimeError):
        steps.do(inputs={"seed": 2}, fail=True)
    assert (folder / "deep" / "file").read_text() == "old"
    steps.do()
    assert steps.ran == ["a", "a"], "the old inputs are still done"


@pytest.mark.parametrize("damage", ["shorter", "missing", "a folder", "no record", "half a record", "another record"])
def test_a_damaged_step_is_done_again(steps, damage):
    folder = steps.do()
    path, record = folder / "deep" / "file", folder / "step.json"
    if damage == "shorter":
        path.write_text("")
    elif damage in ("missing", "a folder"):
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text(record.read_text()[:100] if damage == "half a record" else '{"files": []}')
    steps.do(text="x")
    assert steps.ran == ["a", "a"]
    assert path.read_text() == "x"


def test_the_record_holds_files_versions_and_seconds(steps):
    steps.do(text="hello")
    record = steps.journal.read("a")
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert record["files"] == {"deep/file": {"bytes": 5, "sha256": digest}}
    assert record["versions"] == versions() and {"torch", "onnx", "tokenizers"} <= set(record["versions"])
    assert record["seconds"] >= 0 and len(record["inputs_sha256"]) == 64 and record["version"] == 1


def test_text_is_written_whole_or_not_at_all(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": "é", "a": [1, 2]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "a": [\n    1,\n    2\n  ],\n  "b": "é"\n}\n'
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["a"] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.fixture
def sharing(tmp_path) -> list[Steps]:
    return [Steps(tmp_path / name / "steps", tmp_path / "cache") for name in ("one", "two")]


def test_a_shared_step_is_done_by_one_run_and_taken_by_the_other(sharing):
    one, two = sharing
    first = one.do(inputs={"seed": 1}, text="x", shared=True)
    second = two.do(inputs={"seed": 1}, text="never", shared=True)
    assert (one.ran, two.ran, two.said) == (["a"], [], ["a: from the cache"])
    assert (second / "deep" / "file").read_text() == "x" and not (second / MARKER).exists()
    assert one.journal.read("a")["files"] == two.journal.read("a")["files"]
    assert (first / "deep" / "file").samefile(second / "deep" / "file")
    assert two.do(inputs={"seed": 1}, shared=True) == second and two.said[-1] == "a: done before"


def test_only_shared_steps_of_the_same_inputs_are_taken(sharing):
    one, two = sharing
    one.do(inputs={"seed": 1}, shared=True)
    one.do("b", inputs={"seed": 1})
    two.do(inputs={"seed": 2}, shared=True)
    two.do("b", inputs={"seed": 1})
    assert two.ran == ["a", "b"]
    two.do("c", after=("a",), shared=True)
    one.do("c", after=("a",), shared=True)  # the two wrote the same files
    assert one.ran == ["a", "b"]


@pytest.mark.parametrize("damage", ["a byte", "half a record", "a file less"])
def test_a_damaged_step_in_the_cache_is_done_again_and_replaced(sharing, tmp_path, damage):
    one, two = sharing
    one.do(text="x", shared=True)
    (kept,) = (tmp_path / "cache").iterdir()
    path = kept / ("step.json" if damage == "half a record" else "deep/file")
    text = path.read_text()
    path.unlink()  # or the run that it is linked to would be damaged with it
    if damage != "a file less":
        path.write_text("y" if damage == "a byte" else text[:100])
    folder = two.do(text="x", shared=True)
    assert two.ran == ["a"] and (folder / "deep" / "file").read_text() == "x"
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [kept.name]
    assert (kept / "deep" / "file").read_text() == "x"


def test_without_hard_links_the_cache_is_copied(sharing, monkeypatch):
    def refuse(*_names: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    one, two = sharing
    first, second = one.do(text="x", shared=True), two.do(text="never", shared=True)
    assert two.ran == [] and (second / "deep" / "file").read_text() == "x"
    assert not (first / "deep" / "file").samefile(second / "deep" / "file")


def test_what_a_killed_run_left_of_a_resumable_step_does_not_get_into_the_cached_one(sharing):
    one, two = sharing
    with pytest.raises(RuntimeError, match="killed"):
        two.do(fail=True, resumes=True, shared=True)
    one.do(text="x", resumes=True, shared=True)
    folder = two.do(resumes=True, shared=True)
    assert two.said == ["a: from the cache"]
    assert sorted(path.name for path in folder.iterdir()) == ["deep", "step.json"]


def test_other_processes_wait_for_the_first_and_do_not_write(tmp_path):
    program = (
        "import sys; from pathlib import Path; from compressor.run.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), print)\n"
        "folder = journal.step('a', {}, (), lambda part: (part / 'by').write_text(sys.argv[2]))\n"
        "print((folder / 'by').read_text())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "steps")]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    runs = [
        subprocess.Popen([*command, rank], env=environment | {"RANK": rank}, stdout=subprocess.PIPE, text=True)
        for rank in ("1", "0")
    ]
    # A process that starts late says that the step was done before; what it reads is the same.
    assert {run.communicate(timeout=60)[0].splitlines()[-1] for run in runs} == {"0"}

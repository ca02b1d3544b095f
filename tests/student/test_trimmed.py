"""A teacher with another vocabulary: exported by the command, packaged, verified; nothing is trained."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from compressor.cli import main
from edge_demo import runtime
from tests.support.tiny import TinyRows


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, [*arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_trimmed_teacher_is_smaller_and_still_answers(
    tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    run("vocab", "train", "--teacher", str(tiny_teacher_dir), "--train", str(tiny_rows.train), "--vocab-size", "250",
        "--output", str(tmp_path / "vocab"))  # fmt: skip
    for name, more in (("whole", []), ("trimmed", ["--vocab-from", str(tmp_path / "vocab")])):
        exported = tmp_path / name
        run("export", str(tiny_teacher_dir), "--quantize", "int8", *more, "--output", str(exported))
        run("package", str(exported), "--eval", str(tiny_rows.dev), "--output", str(tmp_path / f"{name}-package"))
    sizes = [(tmp_path / name / "model_quantized.onnx").stat().st_size for name in ("whole", "trimmed")]
    assert sizes[1] < sizes[0]
    facts = json.loads((tmp_path / "trimmed/export.json").read_text(encoding="utf-8"))
    assert facts["teacher"]["name"] == tiny_teacher_dir.name and facts["violations"] == []
    found = json.loads(run("verify", str(tmp_path / "trimmed-package"), "--eval", str(tiny_rows.dev), "--json"))
    assert found["accuracy"] > 0.9


def test_the_teachers_own_vocabulary_changes_nothing(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    texts = ["the film was great", "a dull plot"]
    outputs = []
    for name, more in (("plain", []), ("same", ["--vocab-from", str(tiny_teacher_dir)])):
        run("export", str(tiny_teacher_dir), *more, "--output", str(tmp_path / name))
        run("package", str(tmp_path / name), "--output", str(tmp_path / f"{name}-package"))
        outputs.append(runtime.load(tmp_path / f"{name}-package").outputs(texts, None))
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-6


def test_a_vocabulary_that_does_not_go_with_the_model_is_refused(tiny_teacher_dir: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["export", str(tiny_teacher_dir), "--vocab-from", str(tmp_path), "--output", str(tmp_path / "o")]
    )
    assert done.exit_code == 1 and "--vocab-from" in done.output and not (tmp_path / "o").exists()

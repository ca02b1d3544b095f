"""``tenmeg finetune``: what stands beside the score of the new teacher, and the line to go on with."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.report.verdict import NO_STUDENT
from compressor.run import finetune
from tests.support.tiny import TinyRows, make_rows


def call(model: Path, train: Path, dev: Path, out: Path, *more: str) -> Result:
    flags = ["--model", model, "--train", train, "--eval", dev, "--output", out, "--epochs", "0.1", *more]
    done = CliRunner().invoke(main, ["finetune", *map(str, flags)])
    assert done.exit_code == 0, done.stderr
    return done


def test_a_teacher_that_tfidf_beats_is_told_so(tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path) -> None:
    """Two steps teach a fresh head nothing; the words say it all."""
    done = call(tiny_encoder_dir, tiny_rows.train, tiny_rows.dev, tmp_path / "out", "--learning-rate", "1e-9")
    lines = done.stdout.splitlines()
    (said,) = (line for line in lines if line.startswith("verdict: "))
    assert NO_STUDENT in said
    assert any(line.startswith("probe: accuracy 0.") for line in lines)
    (shown,) = (line for line in lines if line.startswith("tfidf: "))
    assert shown.startswith("tfidf: accuracy 1, f1 1, bytes ")


def test_without_baselines_nothing_is_said(tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path) -> None:
    done = call(tiny_encoder_dir, tiny_rows.train, tiny_rows.dev, tmp_path / "out", "--no-baselines", "--json")
    assert not {"tfidf", "probe", "verdict"} & json.loads(done.stdout).keys()


def test_too_many_rows_are_not_waited_for(
    tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "MOST_SIMPLE_ROWS", 299)
    done = call(tiny_encoder_dir, tiny_rows.train, tiny_rows.dev, tmp_path / "out", "--json")
    assert not {"tfidf", "probe", "verdict"} & json.loads(done.stdout).keys()


def test_a_regression_is_compared_too(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    lines = [f"{text}\t{label * 4 + number % 7 / 10}" for number, (text, label) in enumerate(make_rows(200, 4))]
    for name, part in (("train", lines[:150]), ("dev", lines[150:])):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tscore", *part]) + "\n", encoding="utf-8")
    done = call(tiny_encoder_dir, tmp_path / "train.tsv", tmp_path / "dev.tsv", tmp_path / "out", "--json")
    told = json.loads(done.stdout)
    assert told["tfidf"]["spearman"] > 0.6 and told["verdict"][0] == NO_STUDENT and told["probe"]["spearman"] > 0.1


def test_the_next_command_keeps_the_rows_and_their_columns(
    tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    out = tmp_path / "my model [v2]"
    more = ("--text-column", "sentence", "--no-baselines")
    done = call(tiny_encoder_dir, tiny_rows.train, tiny_rows.dev, out, *more)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("next: "))
    words = shlex.split(line)[1:]
    assert words == [
        "tenmeg", "compress", "--teacher", str(out), "--train", str(tiny_rows.train), "--eval", str(tiny_rows.dev),
        "--text-column", "sentence", "--max-size", "7MB", "--output", "OUT",
    ]  # fmt: skip
    planned = CliRunner().invoke(main, [*words[1:-1], str(tmp_path / "plan"), "--dry-run"])
    assert planned.exit_code == 0, planned.stderr

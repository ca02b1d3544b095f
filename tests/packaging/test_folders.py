"""The single steps, one after the other, on a tiny teacher: what compress does can be done by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.files import new_folder
from compressor.packaging.build import scheme_of
from exporters.shape import Scheme


def tenmeg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def ok(*arguments: str | Path) -> dict[str, Any]:
    done = tenmeg(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_dir: Path, tiny_rows: Any) -> Path:
    folder = tmp_path_factory.mktemp("steps") / "export"
    told = ok("export", tiny_teacher_dir, "--quantize", "int8", "--eval", tiny_rows.dev, "--output", folder)
    assert told["violations"] == []
    assert [row["step"] for row in told["parity"]] == ["torch to ONNX", "ONNX to int8"]
    return folder


@pytest.fixture(scope="module")
def package(exported: Path, tiny_rows: Any) -> Path:
    out = exported.with_name("package")
    told = ok("package", exported, "--eval", tiny_rows.dev, "--output", out)
    assert told["bytes"] == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert Path(told["archive"]).is_file()
    return out


def test_nothing_is_left_in_float(exported: Path) -> None:
    counts = json.loads((exported / "export.json").read_text(encoding="utf-8"))["quantization"]
    assert counts["n_matmuls_quantized"] == counts["n_matmuls"] == 2 * 6 + 2  # six per layer, pooler, classifier
    assert counts["n_gathers_quantized"] == counts["n_gathers"] == 3
    assert counts["left_float"] == []


def test_verify_gives_the_scores_at_the_top(package: Path, tiny_rows: Any) -> None:
    told = ok("verify", package, "--eval", tiny_rows.dev)
    assert told["accuracy"] > 0.9  # the tiny teacher has learned the task
    assert {"f1", "bytes", "rows", "violations"} <= set(told)
    assert told["status"] == "ok"


def test_verify_lists_every_missed_promise(package: Path, tiny_teacher_dir: Path, tiny_rows: Any) -> None:
    limits = ["--max-size", "1kB", "--max-latency", "p95=1us", "--max-drop", "-50", "--runs", "5"]
    done = tenmeg("verify", package, "--eval", tiny_rows.dev, "--teacher", tiny_teacher_dir, *limits, "--json")
    assert done.exit_code == 3
    told = json.loads(done.stdout)
    assert [sentence.partition(":")[0] for sentence in told["violations"]] == ["size", "latency", "quality"]
    assert done.stderr.count("tenmeg: not met: ") == 3
    assert told["vocabulary"]["identical_words"] == 1  # it is the teacher's own
    drop = told["drop_interval"]
    assert drop["points"] == pytest.approx(told["drop"], abs=1e-6) and drop["rows"] == told["rows"] == 60
    assert drop["low"] <= drop["points"] <= drop["high"] and drop["level"] == 0.95
    assert told["verdict"] == []  # whatever the drop is, it is none of -50


def test_verify_says_where_rows_are_too_few_and_keeps_its_exit_code(
    package: Path, tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
) -> None:
    few = tmp_path / "few.tsv"
    few.write_text("".join(tiny_rows.dev.read_text(encoding="utf-8").splitlines(keepends=True)[:21]), encoding="utf-8")
    told = ok("verify", package, "--eval", few, "--teacher", tiny_teacher_dir, "--max-drop", "5")
    assert told["status"] == "ok" and told["drop_interval"]["rows"] == 20
    (sentence,) = told["verdict"]
    assert sentence.startswith("the rows are too few to tell: ") and "--max-drop 5 lies within" in sentence
    assert "drop_interval" not in ok("verify", package, "--eval", few)  # of one answer a row there is none to draw


def test_a_drop_needs_the_teachers_score(package: Path, tiny_rows: Any) -> None:
    done = tenmeg("verify", package, "--eval", tiny_rows.dev, "--max-drop", "1")
    assert done.exit_code == 1
    assert "does not know its teacher's score" in done.stderr


def test_measure_adds_up(package: Path) -> None:
    told = ok("measure", package, "--runs", "5")
    assert sum(told["parts"].values()) == told["bytes"]
    assert told["latency"]["p50"] <= told["latency"]["p95"] <= told["latency"]["p99"]
    assert 10 < told["peak_rss_mb"] < 500


def test_a_damaged_package_is_refused(package: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(package, tmp_path / "copy")
    path = copy / "onnx" / "model_quantized.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = tenmeg("verify", copy)
    assert done.exit_code == 1
    assert "does not match its sha256" in done.stderr


def test_quantizing_again_changes_what_is_packaged(exported: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(exported, tmp_path / "export")
    arguments = ["quantize", copy / "model.onnx", "--quantize", "int4", "--output", copy / "model_quantized.onnx"]
    assert tenmeg(*arguments).exit_code == 1  # the file is there
    told = ok(*arguments, "--overwrite")
    assert told["scheme"] == "int4"
    ok("package", copy, "--output", tmp_path / "package")
    manifest = json.loads((tmp_path / "package" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["scheme"]["name"] == "int4"


def test_a_sentence_encoder_goes_the_same_way(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    told = ok("export", tiny_encoder_dir, "--quantize", "int8", "--output", tmp_path / "export")
    assert told["task"] == "feature-extraction"
    ok("package", tmp_path / "export", "--output", tmp_path / "package")
    rows = "sentence1\tsentence2\tscore\n" + "".join(f"a {a} film\ta {b} plot\t{n}.5\n" for n, (a, b) in enumerate(
        [("dull", "bland"), ("funny", "dull"), ("moving", "funny"), ("honest", "clever")]))  # fmt: skip
    (tmp_path / "pairs.tsv").write_text(rows, encoding="utf-8")
    told = ok("verify", tmp_path / "package", "--eval", tmp_path / "pairs.tsv")
    assert -1 <= told["spearman"] <= 1


def test_vocab_writes_tokenizer_map_and_statistics(tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path) -> None:
    arguments = ["vocab", "--teacher", tiny_teacher_dir, "--train", tiny_rows.train, "--vocab-size", "250"]
    told = ok(*arguments, "--output", tmp_path / "vocab")
    assert told["student_size"] == 250
    assert told["newly_unknown_texts"] == 0
    assert {path.name for path in (tmp_path / "vocab").iterdir()} == {
        "tokenizer.json", "tokenizer_config.json", "map.npz", "statistics.json",
    }  # fmt: skip
    done = tenmeg(*arguments, "--output", tmp_path / "vocab")
    assert (done.exit_code, "is not empty" in done.stderr) == (1, True)


def test_bits_of_the_flags() -> None:
    assert scheme_of(None, None, None) == scheme_of("auto", None, None) == Scheme(8, 8)
    assert scheme_of("int4", None, 64) == Scheme(4, 4, 64)
    assert scheme_of("int4", 8, None) == Scheme(4, 8)
    assert scheme_of("none", None, None).weight_bits is None


def test_a_failed_step_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), new_folder(out, overwrite=True) as part:
        (part / "new").write_text("half", encoding="utf-8")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["old"]
    with new_folder(out, overwrite=True) as part:
        (part / "new").write_text("whole", encoding="utf-8")
    assert [path.name for path in out.iterdir()] == ["new"]

"""The commands ``vocab train`` and ``vocab curve`` on a tiny teacher: files, limits, rules, the same bytes twice."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from compressor.cli import main
from compressor.commands.vocabulary import parse_sizes, usual_sizes
from compressor.models.checkpoint import read_embeddings
from compressor.recipe import recipe as recipes
from exporters.predicted_bytes import predict_bytes
from exporters.shape import Scheme, Shape


def tenmeg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def about(tiny_teacher_dir: Path, tiny_rows: Any) -> list[str | Path]:
    return ["--teacher", tiny_teacher_dir, "--train", tiny_rows.train]


def test_curve_writes_json_and_picture_and_prints_the_pick(about: list[Any], tmp_path: Path) -> None:
    done = tenmeg("vocab", "curve", *about, "--max-size", "100kB", "--output", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    written = json.loads((tmp_path / "out" / "curve.json").read_text(encoding="utf-8"))
    assert written.pop("version") == 1
    assert {**written, "output": told["output"], "schema_version": 1} == told
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"curve.json", "curve.svg"}
    assert (tmp_path / "out" / "curve.svg").read_text(encoding="utf-8").startswith("<svg")
    assert told["pick"]["size"] in [p["size"] for p in told["points"]]
    assert f"pick: --vocab-size {told['pick']['size']}" in done.stderr
    again = tenmeg("vocab", "curve", *about, "--output", tmp_path / "out")
    assert (again.exit_code, "is not empty" in again.stderr) == (1, True)


def test_the_bytes_of_a_point_are_those_that_are_predicted_and_packaged(about: list[Any], tmp_path: Path) -> None:
    shape = [
        "--layers",
        "1",
        "--hidden",
        "32",
        "--heads",
        "2",
        "--ffn",
        "64",
        "--quantize",
        "int8",
        "--max-length",
        "48",
    ]
    done = tenmeg("vocab", "curve", *about, *shape, "--sizes", "230", "--output", tmp_path / "curve", "--json")
    found = json.loads(done.stdout)["points"][0]
    assert found["size"] == 230
    assert found["embedding_bytes"] == 230 * 32 + 2 * 230
    parts = predict_bytes(
        Shape(230, 32, 1, 2, 64, 48, n_labels=2, head_layers=1), Scheme(8, 8), found["tokenizer_bytes"]
    )
    assert found["package_bytes"] == sum(parts.values())
    assert (
        abs(found["tokenizer_bytes"] - _tokenizer_bytes(about, tmp_path)) < 200
    )  # trained on all rows, not on 9 of 10


def _tokenizer_bytes(about: list[Any], tmp_path: Path) -> int:
    done = tenmeg("vocab", *about, "--vocab-size", "230", "--output", tmp_path / "vocab", "--json")
    return int(json.loads(done.stdout)["tokenizer_bytes"])


def test_vocab_without_a_command_is_vocab_train(about: list[Any], tmp_path: Path) -> None:
    for name, command in (("short", []), ("long", ["train"])):
        done = tenmeg("vocab", *command, *about, "--vocab-size", "240", "--output", tmp_path / name)
        assert done.exit_code == 0, done.stderr
    for path in (tmp_path / "short").iterdir():
        assert path.read_bytes() == (tmp_path / "long" / path.name).read_bytes()
    done = tenmeg("vocab", "--help")
    assert "--vocab-size N" in done.stdout
    assert re.search(r"^  curve ", done.stdout, re.MULTILINE)
    assert "Did you mean 'curve'?" in tenmeg("vocab", "curv").stderr
    assert "Missing option '--teacher'" in tenmeg("vocab").stderr


@pytest.mark.parametrize("rule", ["frequency", "likelihood", "embedding"])
def test_vocab_trains_by_the_rule_it_is_told(about: list[Any], tmp_path: Path, rule: str) -> None:
    arguments = ["vocab", *about, "--vocab-size", "130", "--vocab-rule", rule, "--output", tmp_path / rule, "--json"]
    told = json.loads(tenmeg(*arguments).stdout)
    assert (told["rule"], told["student_size"], told["newly_unknown_texts"]) == (rule, 130, 0)


def test_a_run_trains_its_vocabulary_by_the_recipes_rule(
    tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
) -> None:
    from compressor.run.planning.plan import plan
    from compressor.run.student_steps import run_vocab

    told = {}
    for rule in ("cuts", "embedding"):
        vocab = {"size": 130, "rule": rule}  # scarce: the letters take 97
        teacher_section, data = {"path": str(tiny_teacher_dir)}, {"train": str(tiny_rows.train)}
        planned = plan(recipes.from_dict({"teacher": teacher_section, "data": data, "vocab": vocab}))
        assert planned.resolved.vocab.rule == rule
        (tmp_path / rule).mkdir()
        run_vocab(planned, tmp_path / rule)
        told[rule] = (tmp_path / rule / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8")
    assert told["cuts"] != told["embedding"]


def test_a_rule_that_does_not_fit_the_kind_is_refused_before_anything_is_trained(
    about: list[Any], tmp_path: Path
) -> None:
    more = [*about, "--vocab-kind", "bpe", "--vocab-rule", "embedding", "--output", tmp_path / "out"]
    for command in (["compress"], ["vocab", "--vocab-size", "300"], ["vocab", "curve"]):
        done = tenmeg(*command, *more)
        assert done.exit_code == 1
        assert "rule 'embedding' is for wordpiece only; a bpe vocabulary is trained by frequency" in done.stderr


def test_several_files_are_measured_one_by_one(about: list[Any], tiny_rows: Any, tmp_path: Path) -> None:
    more = [*about, "--train", tiny_rows.dev, "--balance"]
    done = tenmeg("vocab", "curve", *more, "--output", tmp_path / "out", "--json")
    told = json.loads(done.stdout)
    assert told["files"] == {str(tiny_rows.train): 300, str(tiny_rows.dev): 60}
    assert set(told["points"][0]["measures"]["tokens_per_text_by_file"]) == set(told["files"])
    done = tenmeg("vocab", *more, "--vocab-size", "230", "--output", tmp_path / "vocab", "--json")
    assert json.loads(done.stdout)["texts"] == 360
    done = tenmeg("vocab", "curve", *about, "--train", tiny_rows.train, "--output", tmp_path / "twice")
    assert (done.exit_code, "is given twice" in done.stderr) == (1, True)


def test_a_limit_that_no_size_keeps_is_exit_3_and_the_curve_is_there(about: list[Any], tmp_path: Path) -> None:
    done = tenmeg("vocab", "curve", *about, "--vocab-bytes", "1kB", "--output", tmp_path / "out")
    assert done.exit_code == 3
    assert "pick: none" in done.stdout
    assert re.search(
        r"not met: size: the smallest vocabulary tried, .* takes .* allowed 1,000 \(--vocab-bytes\)", done.stderr
    )
    sentence = r"not met: size: the smallest vocabulary tried, .* bytes alone, allowed 1,000 \(--vocab-bytes\)"
    assert re.search(sentence, done.stderr)
    assert (tmp_path / "out" / "curve.json").is_file()


def test_the_same_corpus_gives_the_same_files(about: list[Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        tenmeg("vocab", "curve", *about, "--sizes", "220,260", "--output", tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_sizes_are_read_or_refused() -> None:
    assert parse_sizes("2000, 4000") == [2000, 4000]
    assert parse_sizes(None) is None
    for text in ("", "a", "0", "2000;4000"):
        with pytest.raises(ValueError, match="expected numbers of tokens with commas between"):
            parse_sizes(text)


def test_usual_sizes_are_those_a_run_chooses_from_or_evenly_spread() -> None:
    assert usual_sizes(1664, 30522)[:3] == [2000, 2500, 3000]
    few = usual_sizes(210, 400)
    assert (few[0], few[-1], len(few)) == (210, 400, 7)
    assert usual_sizes(500, 400) == [400]


# --- the table of embeddings


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_embeddings_are_read_in_any_float_type(dtype: torch.dtype, tmp_path: Path) -> None:
    table = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    other = torch.zeros(3, 3)
    tensors = {"a.weight": other.clone(), "bert.embeddings.word_embeddings.weight": table, "z.weight": other.clone()}
    save_file(tensors, tmp_path / "model.safetensors")
    found = read_embeddings(tmp_path)
    assert found.dtype == np.float32
    assert np.array_equal(found, table.float().numpy())


def test_a_teacher_without_safetensors_is_refused_for_the_embedding_rule(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no safetensors file with word embeddings, which --vocab-rule embedding"):
        read_embeddings(tmp_path)

"""The vocabulary curve and the pick: measures that count what they say, and a choice that keeps its limits."""

import doctest
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from vocab_teachers import CORPUS, LINES, teacher

from compressor import recipe as recipes
from compressor.checkpoint import read_embeddings
from compressor.cli import main
from compressor.vocabulary import parse_sizes, usual_sizes
from exporters.budget import Scheme, Shape
from exporters.predict import predict_bytes
from vocab import choose
from vocab.choose import Bytes, Point, balanced, curve, pick, split
from vocab.ruler import Measures, Ruler

ENGLISH, GERMAN = LINES[:3] * 30, [LINES[3]] * 20


def bytes_of(size: int, n_tokenizer_bytes: int) -> Bytes:
    return Bytes(16 * size, 16 * size + n_tokenizer_bytes + 10_000)


def words_only(*tokens: str) -> Tokenizer:
    """Return a WordPiece of the given tokens."""
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(("[UNK]", *tokens))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def point(size: int, time: float, package: int) -> Point:
    return Point(size, Measures(10 * time, {"f": 10 * time}, 0.9, 0.8, 0.0, time), size, 10, package)


# --- measures


def test_measures_count_what_they_say() -> None:
    mine = words_only("play", "##ing", "film", "a")
    other = words_only("play", "film", "playing")
    held_out = {"x": ["playing film", "film film"], "y": ["a ? film"]}
    found = Ruler(other, held_out).measure(mine)
    assert found.tokens_per_text_by_file == {"x": 2.5, "y": 3.0}
    assert found.tokens_per_text == pytest.approx(8 / 3)
    assert found.whole_words == pytest.approx(5 / 7)  # playing is two tokens, ? is unknown
    assert found.coverage == pytest.approx(5 / 8)  # play, and film four times; ##ing, a and [UNK] are not the other's
    assert found.unknown_rate == pytest.approx(1 / 8)
    assert found.time == pytest.approx(((5 / 4) * (3 / 3)) ** 0.5)  # geometric mean over the files


def test_the_teacher_measured_by_itself_is_one() -> None:
    mine = teacher("bert")  # truncates: must not matter
    found = Ruler(mine, {"x": LINES, "long": [" ".join(LINES) * 3]}).measure(mine)
    assert (found.time, found.coverage, found.unknown_rate) == (1.0, 1.0, 0.0)
    assert found.tokens_per_text_by_file["long"] > 128


def test_balanced_measures_weigh_files_equally() -> None:
    mine = words_only("a", "b")
    held_out = {"x": ["a"] * 9, "y": ["a b a b"]}
    assert Ruler(mine, held_out, is_balanced=False).measure(mine).tokens_per_text == pytest.approx(1.3)
    assert Ruler(mine, held_out, is_balanced=True).measure(mine).tokens_per_text == pytest.approx(2.5)


@given(n=st.integers(2, 200), seed=st.integers(0, 9))
@settings(deadline=None, derandomize=True)
def test_a_split_is_a_seeded_tenth_and_loses_nothing(n: int, seed: int) -> None:
    texts = [str(number) for number in range(n)]
    train, held_out = split(texts, seed)
    assert sorted(train + held_out) == sorted(texts)
    assert len(held_out) == max(1, round(0.1 * n))
    assert split(texts, seed) == (train, held_out)


def test_one_text_cannot_be_held_out() -> None:
    with pytest.raises(ValueError, match=r"f.txt: 1 texts are too few to hold some out"):
        curve({"f.txt": ["one"]}, [700], "wordpiece", teacher("bert"), bytes_of)


@given(files=st.lists(st.lists(st.text("abc", max_size=3), max_size=7), max_size=4), seed=st.integers(0, 9))
@settings(deadline=None, derandomize=True)
def test_balanced_files_have_equally_many_texts(files: list[list[str]], seed: int) -> None:
    corpus = balanced(files, seed)
    most = max(map(len, files), default=0)
    assert len(corpus) == most * sum(1 for texts in files if texts)
    for texts in files:
        if len(texts) == most:
            assert "".join(texts) in "".join(corpus)


def test_the_example_of_balanced_is_true() -> None:
    assert doctest.testmod(choose).failed == 0


# --- the curve


@pytest.mark.parametrize(("name", "kind"), [("bert", "wordpiece"), ("roberta", "bpe"), ("xlmr", "unigram")])
def test_more_tokens_cut_shorter_and_take_more_bytes(name: str, kind: Any) -> None:
    found = curve({"f": CORPUS}, [900, 640, 760], kind, teacher(name), bytes_of)
    assert [p.size for p in found.points] == [640, 760, 900]
    lengths = [p.measures.tokens_per_text for p in found.points]
    assert lengths == sorted(lengths, reverse=True)
    assert all(p.measures.unknown_rate <= found.teacher.unknown_rate for p in found.points)
    assert [p.vocabulary_bytes for p in found.points] == sorted(p.vocabulary_bytes for p in found.points)
    assert found.n_texts == {"f": len(CORPUS)}


def test_a_size_that_the_corpus_does_not_give_becomes_the_largest_that_it_does() -> None:
    found = curve({"f": LINES * 2}, [640, 40_000, 50_000], "wordpiece", teacher("bert"), bytes_of)
    assert len(found.points) == 2
    assert 640 < found.points[1].size < 40_000


def test_balance_gives_the_small_language_more() -> None:
    files = {"en": ENGLISH * 20, "de": GERMAN}
    sizes = [380]  # the letters take 355
    plain = curve(files, sizes, "wordpiece", teacher("bert"), bytes_of).points[0].measures
    equal = curve(files, sizes, "wordpiece", teacher("bert"), bytes_of, is_balanced=True).points[0].measures
    assert equal.tokens_per_text_by_file["de"] < plain.tokens_per_text_by_file["de"]
    assert equal.tokens_per_text_by_file["en"] >= plain.tokens_per_text_by_file["en"]


# --- the pick

POINTS = [point(1000, 2.0, 100), point(2000, 1.5, 110), point(4000, 1.2, 130), point(8000, 1.1, 170)]


def test_the_pick_has_the_least_product_of_bytes_and_time() -> None:
    found = pick(POINTS)
    assert found is not None
    assert found.point.size == 4000  # 200, 165, 156, 187
    assert found.reasons[0] == "package bytes x time per text is least here among the sizes tried"
    assert "from 2,000 tokens the package grows by 18.2 % and the step saves 20.0 % of the time" in found.reasons
    assert "on to 8,000 tokens the package would grow by 30.8 % and the step would save 8.3 % of the time" in (
        found.reasons
    )


def test_the_pick_keeps_both_limits_and_says_what_they_cost() -> None:
    by_package, by_vocabulary = pick(POINTS, max_bytes=120), pick(POINTS, max_vocabulary_bytes=1500)
    assert by_package is not None and by_vocabulary is not None
    assert (by_package.point.size, by_vocabulary.point.size) == (2000, 1000)
    assert "least at 4,000 tokens, which is over the limit; this is the best that fits" in by_package.reasons[0]
    assert pick(POINTS, max_bytes=99) is None


@given(
    times=st.lists(st.floats(0.5, 3), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 10**6), min_size=8, max_size=8, unique=True),
    limit=st.integers(1, 10**6),
)
@settings(deadline=None, derandomize=True)
def test_no_size_within_the_limit_has_a_smaller_product(times: list[float], sizes: list[int], limit: int) -> None:
    points = [point(size, time, size) for size, time in zip(sorted(sizes), times, strict=False)]
    found = pick(points, max_bytes=limit)
    fitting = [p for p in points if p.package_bytes <= limit]
    assert (found is None) == (not fitting)
    if found is not None:
        products = [p.package_bytes * p.measures.time for p in fitting]
        assert found.point.package_bytes * found.point.measures.time == min(products)
        assert found.point in fitting


# --- the command


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
    from compressor.plan import plan
    from compressor.training import run_vocab

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

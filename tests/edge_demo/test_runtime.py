"""The reader: what it answers, what it refuses, and that it stays small, quick and torch-free."""

import itertools
import json
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_demo import runtime
from exporters.package import make_cases, package_bytes, write_package
from tests.golden.make import KINDS, MAX_LENGTH, TEXTS, build_package, build_tokenizer, write_parts

ROOT = Path(__file__).parents[2]
TEXT = st.text(max_size=60)
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> dict[str, Path]:
    """One package of each kind, never changed."""
    root = tmp_path_factory.mktemp("packages")
    return {kind: build_package(kind, root / kind, root / "work") for kind in KINDS.values()}


@pytest.fixture(scope="session")
def sentiment(packages) -> runtime.Package:
    return runtime.load(packages["classification"])


def test_classification_answers_with_label_and_probabilities(sentiment):
    answer = sentiment.predict("such a lovely film")
    assert (answer.label, answer.value, answer.embedding) == ("positive", None, None)
    assert answer.score == answer.scores["positive"] > 0.9
    assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-6)
    assert sentiment.predict("dull and boring").label == "negative"


def test_regression_answers_with_a_value_for_two_texts(packages):
    package = runtime.load(packages["regression"])
    assert package.predict("a good film", "a good film").value == pytest.approx(5, abs=1e-4)
    assert package.predict("a good film", "awful cold story").value < 4


def test_embedding_answers_with_a_unit_vector(packages):
    vector = runtime.load(packages["embedding"]).predict("a good film").embedding
    assert vector.shape == (8,) and vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_outputs_are_the_rows_that_predict_gives_one_by_one(sentiment):
    rows = sentiment.outputs(TEXTS)
    assert rows.shape == (len(TEXTS), 2)
    for text, row in zip(TEXTS, rows, strict=True):
        assert list(sentiment.predict(text).scores.values()) == row.tolist()


def test_n_bytes_is_the_whole_folder(packages, sentiment):
    assert sentiment.n_bytes == package_bytes(packages["classification"])


def test_the_empty_text_is_answered(sentiment):
    assert sentiment.encode("") == [2, 3]
    assert sentiment.predict("").score == pytest.approx(0.5)


@quick
@given(text=st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_text_is_answered_or_named_invalid(sentiment, text):
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match="valid Unicode"):
            sentiment.predict(text)
    else:
        assert len(sentiment.encode(text)) <= MAX_LENGTH
        assert 0.5 <= sentiment.predict(text).score <= 1


@pytest.mark.parametrize(("kind", "pair", "match"), [("regression", None, "two texts"), ("embedding", "b", "one text")])
def test_the_wrong_number_of_texts_is_refused(packages, kind, pair, match):
    with pytest.raises(ValueError, match=match):
        runtime.load(packages[kind]).predict("a", pair)


def test_another_provider_is_never_replaced_in_silence(packages):
    with pytest.warns(UserWarning, match="available"), pytest.raises(ValueError, match="providers: asked for Abacus"):
        runtime.load(packages["classification"], providers=["AbacusExecutionProvider"])


@quick
@given(first=st.integers(0, 40), second=st.integers(0, 40), max_length=st.integers(4, 40))
def test_pairs_are_cut_as_tokenizers_cuts_longest_first(packages, first, second, max_length):
    ours = runtime.load(packages["regression"], verify=False, self_test=False)
    ours.manifest["max_length"] = max_length
    theirs = build_tokenizer()
    theirs.enable_truncation(max_length, strategy="longest_first")
    expected = theirs.encode("a " * first, "b " * second)
    assert ours.encode("a " * first, "b " * second) == expected.ids


@pytest.mark.parametrize("max_length", [4, 5, 8, 33])
def test_ids_equal_those_of_transformers(tmp_path, max_length):
    from transformers import AutoTokenizer

    package_dir = build_package("regression", tmp_path / "package", tmp_path / "work", max_length)
    ours, theirs = runtime.load(package_dir), AutoTokenizer.from_pretrained(package_dir)
    asked = {"truncation": True, "max_length": max_length, "return_token_type_ids": True}
    words = ["good", "unfathomable", "Zoë's", "漢字", "a-b", "😀"] * 7
    lengths = range(0, max_length + 4, 1 + max_length // 8)
    for first, second in itertools.product([" ".join(words[:n]) for n in lengths], repeat=2):
        # as a batch: alone, transformers takes an empty second text for none
        expected = theirs([first], [second], **asked)
        assert ours._columns(first, second) == {name: rows[0] for name, rows in expected.items()}


def test_two_long_texts_are_cut_in_linear_time(packages):
    package, text = runtime.load(packages["regression"]), "a good film and an awful story " * 30_000
    start = time.process_time()
    assert len(package.encode(text, text)) == MAX_LENGTH
    assert time.process_time() - start < 10


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, encoding="utf-8", check=False, timeout=60
    )


def test_no_torch_no_transformers_no_onnx(packages):
    code = f"""
        import sys
        from edge_demo.__main__ import main
        assert main([{str(packages["classification"])!r}, "a fine film"]) == 0
        print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"torch", "transformers", "onnx", "exporters",
              "compressor", "vocab", "huggingface_hub"}}))
    """
    done = run("-c", textwrap.dedent(code))
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_runtime_alone_in_an_empty_folder_works(packages, tmp_path):
    shutil.copy(ROOT / "edge_demo" / "runtime.py", tmp_path / "runtime.py")
    code = f"import runtime; print(runtime.load({str(packages['classification'])!r}).predict('awful').label)"
    assert run("-I", "-c", f"import sys; sys.path.insert(0, '.'); {code}", cwd=tmp_path).stdout == "negative\n"


def spent(package_dir: Path) -> tuple[float, float]:
    """Return processor seconds and peak megabytes of ``python -m edge_demo``, from start to answer."""
    # Started by a small process: a child's peak counts the memory of the parent that it was forked from.
    code = """
        import resource, subprocess, sys
        subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (2**10 if sys.platform == "linux" else 2**20))
    """
    answer = [sys.executable, "-m", "edge_demo", str(package_dir), "a fine film"]
    seconds, megabytes = run("-c", textwrap.dedent(code), *answer).stdout.split()
    return float(seconds), float(megabytes)


def test_start_to_first_answer_is_quick_and_small(packages):
    seconds, megabytes = min(spent(packages["classification"]) for _ in range(3))
    assert seconds < 0.5 and megabytes < 120


@pytest.mark.slow
def test_a_package_of_six_megabytes_starts_in_half_a_second(tmp_path):
    """The size that devices get: 6 layers of 256, 5000 words, random weights, through the real export."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from exporters.graph.optimize import optimize
    from exporters.graph.quantize import quantize
    from exporters.shape import Scheme
    from exporters.to_onnx import export_model

    torch.manual_seed(0)
    shape = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}
    BertForSequenceClassification(BertConfig(vocab_size=5000, max_position_embeddings=128, **shape)).save_pretrained(
        tmp_path / "checkpoint"
    )
    info = replace(
        write_parts("classification", tmp_path, 128), inputs=("input_ids", "attention_mask", "token_type_ids")
    )
    export_model(tmp_path / "checkpoint", tmp_path / "float.onnx", "classification", 128)
    optimize(tmp_path / "float.onnx", tmp_path / "clean.onnx")
    quantize(tmp_path / "clean.onnx", tmp_path / "model.onnx", Scheme())
    cases = make_cases(tmp_path / "model.onnx", tmp_path, info, TEXTS)
    package_dir = write_package(tmp_path / "model.onnx", tmp_path, {}, info, cases, "", tmp_path / "package")
    assert 5_500_000 < package_bytes(package_dir) < 7_000_000
    seconds, megabytes = min(spent(package_dir) for _ in range(5))
    assert seconds < 0.5 and megabytes < 120


def test_command_line_prints_the_answer_and_its_cost(packages):
    done = run("-m", "edge_demo", str(packages["classification"]), "a fine film")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("positive  0.9")
    assert second.startswith(f"{package_bytes(packages['classification']):,} bytes, ") and second.endswith(" ms")


def test_command_line_prints_json(packages):
    done = run("-m", "edge_demo", str(packages["regression"]), "good", "--pair", "good", "--json", "--threads", "2")
    answer = json.loads(done.stdout)
    assert answer["value"] == pytest.approx(5, abs=1e-4) and answer["n_bytes"] > 0 and answer["ms"] > 0
    done = run("-m", "edge_demo", str(packages["embedding"]), "good", "--json")
    assert len(json.loads(done.stdout)["embedding"]) == 8


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (["nowhere", "text"], 1, "package: nowhere is not a folder"),
        (["PAIR", "text"], 2, "text: this package takes two texts"),
        (["PAIR", "text", "--threads", "0"], 2, "got '0', expected a whole number from 1"),
        (["PAIR"], 2, "TEXT"),
        (["PAIR", b"\xff", "--pair", "b"], 2, "text: expected a string of valid Unicode"),
    ],
)
def test_command_line_refuses_in_one_line(packages, arguments, code, match):
    done = run("-m", "edge_demo", *[str(packages["regression"]) if a == "PAIR" else a for a in arguments])
    assert (done.returncode, done.stdout) == (code, "")
    assert match in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_python_example_of_the_format_page_runs(packages, tmp_path):
    page = (ROOT / "edge_demo" / "README.md").read_text(encoding="utf-8")
    shutil.copytree(packages["classification"], tmp_path / "package")
    code = page.split("```python\n")[1].split("```")[0]
    done = run("-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")

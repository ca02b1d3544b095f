"""Folders that sentence-transformers saved give its own answers, or are refused by name before anything is done."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from compressor.cli import main
from compressor.models.teacher import read_teacher
from compressor.recipe.sections import TeacherSection
from edge_demo import runtime
from tests.models.sentence_folders import (
    LONG,
    MAIN,
    SETTINGS,
    TEXTS,
    edit_json,
    edit_list,
    encoder,
    limit_in,
    lower_cased,
    moved,
    plain_bert,
    scorer,
)
from tests.support.runs import write_table

pytest.importorskip("sentence_transformers")
Change = Callable[[Path], Any]
QUERY = "Represent this sentence: "


def tenmeg(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def nothing(_folder: Path) -> None:
    pass


def prompted(default: str | None, **prompts: str) -> Change:
    return lambda folder: edit_json(folder / MAIN, prompts=prompts, default_prompt_name=default)


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_bert(tmp_path_factory.mktemp("bert") / "plain")


def packaged(folder: Path, where: Path, rows: Path | None = None) -> runtime.Package:
    """Export in float, package, and open with the reader."""
    told = tenmeg("export", folder, "--output", where / "export", "--quantize", "none", "--json")
    assert told.exit_code == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["violations"] == []
    assert [row["step"] for row in found["parity"]] == ["torch to ONNX", "torch to sentence-transformers"]
    more = ["--eval", rows] if rows else []
    done = tenmeg("package", where / "export", "--output", where / "package", *more)
    assert done.exit_code == 0, done.stderr
    return runtime.load(where / "package")


# name: (pooling, ends in Normalize, what is changed, tokens at most, version of the package)
SAME: dict[str, tuple[str, bool, Change, int, int]] = {
    **{
        f"{pooling}, {'unit length' if unit else 'as it is'}": (pooling, unit, nothing, 64, 1)
        for pooling in ("mean", "cls", "max")
        for unit in (True, False)
    },
    "an empty default prompt": ("mean", True, prompted("document", query=QUERY, document=""), 64, 1),
    "lower case": ("mean", True, lower_cased, 64, 1),
    "cut on the left": (
        "mean",
        True,
        lambda folder: edit_json(folder / "tokenizer_config.json", truncation_side="left", model_max_length=12),
        12,
        2,
    ),
    "the model in 0_Transformer": ("mean", True, moved, 64, 1),
    "in 0_Transformer, lower case and short": ("cls", True, both(lower_cased, limit_in("roberta"), moved), 12, 1),
    "in a folder two below": ("mean", True, lambda folder: moved(folder, "model"), 64, 1),
    "a longer limit than the tokenizer's": (
        "mean",
        True,
        lambda folder: (
            edit_json(folder / SETTINGS, max_seq_length=40),
            edit_json(folder / "tokenizer_config.json", model_max_length=12),
        ),
        40,
        1,
    ),
    "the tokenizer's limit": (
        "mean",
        True,
        lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length=12),
        12,
        1,
    ),
    "a limit for the tokenizer": (
        "mean",
        True,
        lambda folder: edit_json(folder / SETTINGS, max_seq_length=40, tokenizer_args={"model_max_length": 10}),
        10,
        1,
    ),
    "no pooling named": (
        "mean",
        True,
        lambda folder: edit_json(folder / "1_Pooling" / "config.json", pooling_mode=None),
        64,
        1,
    ),
    "a limit in another file": ("mean", True, limit_in("roberta"), 12, 1),
}


# Together they take most of a minute: one of each sort is fast enough to be there always.
OFTEN = (
    "mean, unit length",
    "cls, as it is",
    "the model in 0_Transformer",
    "a longer limit than the tokenizer's",
    "lower case",
)


@pytest.mark.parametrize(
    "name", [each if each in OFTEN else pytest.param(each, marks=pytest.mark.slow) for each in SAME]
)
def test_the_float_package_answers_as_encode(plain: Path, tmp_path: Path, name: str) -> None:
    from sentence_transformers import SentenceTransformer

    pooling, normalize, change, limit, version = SAME[name]
    folder = encoder(plain, tmp_path / "model", pooling, normalize=normalize)
    change(folder)
    package = packaged(folder, tmp_path)
    theirs = SentenceTransformer(str(folder), device="cpu")
    assert np.abs(package.outputs(TEXTS) - theirs.encode(TEXTS, batch_size=1)).max() <= 1e-4
    assert package.manifest["max_length"] == theirs.max_seq_length == limit
    assert package.manifest["format_version"] == version


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_the_limit_is_found_in_every_file_that_may_hold_it(plain: Path, tmp_path: Path, name: str) -> None:
    from sentence_transformers import SentenceTransformer

    folder = encoder(plain, tmp_path / "model")
    limit_in(name)(folder)
    theirs = SentenceTransformer(str(folder), device="cpu").max_seq_length
    assert read_teacher(TeacherSection(path=str(folder))).max_length == theirs == 12


def test_a_cross_encoder_of_logits_is_a_score_for_two_texts(plain: Path, tmp_path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    folder = scorer(plain, tmp_path / "model", activation=torch.nn.Identity())
    rows = write_table(tmp_path / "rows.tsv", ["sentence1", "sentence2"], list(zip(TEXTS, TEXTS[::-1], strict=True)))
    package = packaged(folder, tmp_path, rows)
    assert (package.manifest["kind"], package.manifest["pair"]) == ("regression", True)
    theirs = CrossEncoder(str(folder), device="cpu").predict(list(zip(TEXTS, TEXTS[::-1], strict=True)))
    assert np.abs(package.outputs(TEXTS, TEXTS[::-1])[:, 0] - theirs).max() <= 1e-4


def test_a_cross_encoder_is_never_packaged_for_one_text(plain: Path, tmp_path: Path) -> None:
    import torch

    folder = scorer(plain, tmp_path / "model", activation=torch.nn.Identity())
    assert packaged(folder, tmp_path).manifest["pair"]  # of sample sentences
    rows = write_table(tmp_path / "rows.tsv", ["sentence", "label"], [(text, 1) for text in TEXTS])
    for words in (("export", folder), ("package", tmp_path / "export")):
        done = tenmeg(*words, "--eval", rows, "--output", tmp_path / "out")
        assert done.exit_code == 1
        assert "hold one text, and the teacher is a CrossEncoder, which scores two. Name the second" in done.stderr


def test_a_cross_encoder_of_several_labels_tells_what_it_answers(plain: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    folder = scorer(plain, tmp_path / "model", n_labels=3)
    rows = write_table(tmp_path / "rows.tsv", ["sentence1", "sentence2"], list(zip(TEXTS, TEXTS[::-1], strict=True)))
    package = packaged(folder, tmp_path, rows)
    theirs = CrossEncoder(str(folder), device="cpu").predict(
        list(zip(TEXTS, TEXTS[::-1], strict=True)), apply_softmax=True
    )
    assert np.abs(package.outputs(TEXTS, TEXTS[::-1]) - theirs).max() <= 1e-4


REFUSED: dict[str, tuple[Any, Change, str]] = {
    "two poolings": (["cls", "mean"], nothing, r"asks for cls and mean, expected exactly one of mean, cls, max\."),
    "a weighted mean": ("weightedmean", nothing, r"asks for weightedmean, expected exactly one"),
    "the last token": ("lasttoken", nothing, r"asks for lasttoken, expected exactly one"),
    "a default prompt": (
        "mean",
        prompted("query", query=QUERY),
        rf"puts the prompt '{QUERY}' before every text \(default_prompt_name = 'query' in {MAIN}\).* Write it",
    ),
    "a default prompt that is not there": ("mean", prompted("web"), r"is 'web', which is none of its prompts"),
    "shorter vectors": (
        "mean",
        lambda folder: edit_json(folder / MAIN, truncate_dim=16),
        r"keeps the first 16 numbers of every vector \(truncate_dim in .*\), a package keeps all\. Remove",
    ),
    "another kind of model": (
        "mean",
        lambda folder: edit_json(folder / MAIN, model_type="SparseEncoder"),
        r"says model_type 'SparseEncoder', expected SentenceTransformer or CrossEncoder\. Use",
    ),
    "code of its own": (
        "mean",
        lambda folder: edit_list(folder / "modules.json", 0, type="custom_st.Transformer"),
        r"asks for custom_st\.Transformer, which is code of its own, expected modules of sentence_transformers only",
    ),
    "no pooling module": (
        "mean",
        lambda folder: (folder / "modules.json").write_text(
            json.dumps(json.loads((folder / "modules.json").read_text(encoding="utf-8"))[:1]), encoding="utf-8"
        ),
        r"asks for Transformer, expected one Transformer, one Pooling and then perhaps Normalize, in this order\.",
    ),
    "a model outside the folder": (
        "mean",
        lambda folder: edit_list(folder / "modules.json", 0, path="../other"),
        r"puts the model at '\.\./other', expected a folder inside\. Download",
    ),
    "arguments of the model": (
        "mean",
        lambda folder: edit_json(folder / SETTINGS, config_args={"num_hidden_layers": 1}),
        r"config_args in .* sets num_hidden_layers, which changes what sentence-transformers answers",
    ),
    "token vectors of unit length": (
        "mean",
        lambda folder: (folder / "2_Normalize" / "config.json").write_text('{"module_input_name": "token_embeddings"}'),
        r"says module_input_name 'token_embeddings', expected 'sentence_embedding'\.",
    ),
    "a side that is none": (
        "mean",
        lambda folder: edit_json(folder / "tokenizer_config.json", truncation_side="middle"),
        r"truncation_side in .* is 'middle', expected 'right' or 'left'\. Correct it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_done_is_refused_by_name(plain: Path, tmp_path: Path, name: str) -> None:
    pooling, change, says = REFUSED[name]
    folder = encoder(plain, tmp_path / "model", pooling)
    change(folder)
    _refused(folder, tmp_path, says)


def test_further_layers_are_refused_by_name(plain: Path, tmp_path: Path) -> None:
    folder = encoder(plain, tmp_path / "model", dense=True)
    _refused(folder, tmp_path, r"modules\.json asks for Dense, expected Transformer, Pooling and Normalize only\.")


def test_a_cross_encoder_of_sigmoids_is_refused_by_name(plain: Path, tmp_path: Path) -> None:
    folder = scorer(plain, tmp_path / "model")
    says = r"answers with Sigmoid of the logits .* a package answers with the logit itself\. Set activation_fn in "
    _refused(folder, tmp_path, says)
    (folder / MAIN).unlink()  # the architecture and the head are there
    _refused(folder, tmp_path, r"says nothing, which means Sigmoid")
    (folder / "modules.json").unlink()
    edit_json(folder / "config.json", sbert_ce_default_activation_function="torch.nn.modules.activation.Sigmoid")
    _refused(folder, tmp_path, r"answers with Sigmoid of the logits \(sbert_ce_default_activation_function in config")


def _refused(folder: Path, where: Path, says: str) -> None:
    rows = write_table(where / "rows.tsv", ["sentence1", "sentence2"], [(text, text) for text in TEXTS])
    for words in (("export", folder), ("compress", "--teacher", folder, "--train", rows, "--eval", rows)):
        done = tenmeg(*words, "--output", where / "out")
        assert done.exit_code == 1
        assert re.search(says, done.stderr), done.stderr
        assert not (where / "out").exists()


def test_prompts_that_are_no_default_are_told(plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = encoder(plain, tmp_path / "model")
    prompted(None, query=QUERY, document="")(folder)
    assert tenmeg("export", folder, "--output", tmp_path / "out", "--quantize", "none").exit_code == 0
    assert "its prompts (query) are left out, as encode() leaves them out" in caplog.text


def test_a_wrong_reading_shows_beside_sentence_transformers(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoder(plain, tmp_path / "model")
    lower_cased(folder)
    rows = write_table(tmp_path / "rows.tsv", ["sentence"], [(text,) for text in TEXTS])
    monkeypatch.setattr("compressor.models.teacher.lowers", lambda _folder: False)
    words = ("export", folder, "--eval", rows, "--quantize", "none", "--json")
    done = tenmeg(*words, "--output", tmp_path / "out")
    assert done.exit_code == 3
    [sentence] = json.loads(done.stdout)["violations"]
    assert sentence.startswith("parity: torch to sentence-transformers changes an output by ")


def test_a_shorter_length_that_was_asked_for_is_no_difference(plain: Path, tmp_path: Path) -> None:
    folder = encoder(plain, tmp_path / "model")
    rows = write_table(tmp_path / "rows.tsv", ["sentence"], [(LONG,)])
    words = ("export", folder, "--eval", rows, "--quantize", "none", "--max-length", "8", "--json")
    found = json.loads(tenmeg(*words, "--output", tmp_path / "out").stdout)
    assert (found["parity"][1]["step"], found["violations"]) == ("torch to sentence-transformers", [])


def test_where_nothing_was_saved_by_it_nothing_is_compared(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    found = json.loads(tenmeg("export", folder, "--output", tmp_path / "out", "--quantize", "none", "--json").stdout)
    assert [row["step"] for row in found["parity"]] == ["torch to ONNX"]

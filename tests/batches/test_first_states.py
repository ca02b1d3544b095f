"""The teacher's states of the first token: kept beside word states, computed once, and read by whole runs."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from compressor.batches.encoded import Collator, encode_rows
from compressor.batches.outputs import takes_segments, teacher_outputs
from compressor.batches.teacher_cache import ShardOutput, fill_cache, open_cache
from compressor.cli import main
from compressor.data.table import Table
from compressor.models.teacher import TeacherInfo
from compressor.recipe import recipe as recipes
from compressor.recipe.sections import StageSection
from compressor.run.compress import compress
from compressor.run.planning import kept_states
from compressor.run.planning.plan import plan
from compressor.training.contract import model_inputs
from compressor.training.registry import resolve
from edge_demo import runtime
from exporters.shape import Shape
from tests.support.method_cases import LABELS, MAX_LENGTH, N_ROWS, TEACHER_HIDDEN, table, tiny_teacher, tokenizers
from tests.support.runs import make_recipe, pair_rows


def info_of(kind: str = "classification") -> tuple[Any, TeacherInfo]:
    """Return the tiny teacher and what its files would say."""
    model = tiny_teacher(kind, "bert")
    shape = Shape(200, TEACHER_HIDDEN, 3, 2, 2 * TEACHER_HIDDEN, 64)
    return model, TeacherInfo(
        Path(), "tiny", None, model.config.to_dict(), "", kind, LABELS[kind], None, MAX_LENGTH, shape, {}
    )


class TestCache:
    @pytest.mark.parametrize("layers", [(), (1, 3)])
    @pytest.mark.parametrize("first", [(), (3,), (0, 2, 3)])
    def test_first_states_are_those_of_the_first_token_beside_any_word_states(
        self, layers: tuple[int, ...], first: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("compressor.batches.outputs.has_fast_bfloat16", lambda: False)
        model, info = info_of()
        rows = encode_rows(tokenizers()[0], table(), MAX_LENGTH)
        calls: list[int] = []
        model.register_forward_hook(lambda *_: calls.append(1))

        def compute(wanted: range) -> ShardOutput:
            return teacher_outputs(model, info, rows, layers, wanted, first)

        fill_cache(tmp_path, N_ROWS, layers, compute, lambda _n: None, first)
        n_calls = len(calls)
        names = {"output", "starts", *(("states", "units") if layers else ()), *(("first",) if first else ())}
        assert {path.stem for path in (tmp_path / "00000").iterdir()} == names
        fill_cache(tmp_path, N_ROWS, layers, compute, lambda _n: None, first)
        assert len(calls) == n_calls <= N_ROWS  # one pass over the rows, and none the second time
        batch = Collator(rows, 0, takes_segments("bert"), teacher=open_cache(tmp_path, layers, first))([5, 2, 9])
        assert ("teacher_first" in batch) == bool(first) and ("teacher_states" in batch) == bool(layers)
        if first:
            with torch.no_grad():
                hidden = model(**model_inputs(batch), output_hidden_states=True).hidden_states
            expected = torch.stack([hidden[layer][:, 0] for layer in first], dim=1)
            assert batch["teacher_first"].dtype == torch.float16
            torch.testing.assert_close(batch["teacher_first"].float(), expected, atol=1e-5, rtol=1e-3)

    def test_a_killed_teacher_computes_only_the_shards_that_are_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("compressor.batches.teacher_cache.SHARD_ROWS", 10)
        model, info = info_of()
        rows = encode_rows(tokenizers()[0], table(), MAX_LENGTH)
        done: list[range] = []

        def compute(wanted: range) -> ShardOutput:
            if len(done) == 2:
                done.append(range(0))
                raise KeyboardInterrupt
            done.append(wanted)
            return teacher_outputs(model, info, rows, (1,), wanted, (2, 3))

        with pytest.raises(KeyboardInterrupt):
            fill_cache(tmp_path, N_ROWS, (1,), compute, lambda _n: None, (2, 3))
        fill_cache(tmp_path, N_ROWS, (1,), compute, lambda _n: None, (2, 3))
        assert [each for each in done if each] == [range(10), range(10, 20), range(20, N_ROWS)]
        cache = open_cache(tmp_path, (), (2, 3))
        whole = teacher_outputs(model, info, rows, (), range(N_ROWS), (2, 3))
        assert cache.first(range(N_ROWS)).shape == (N_ROWS, 2, TEACHER_HIDDEN)
        np.testing.assert_allclose(cache.first([3, 23]).numpy(), whole.first[[3, 23]], atol=5e-2)
        some = open_cache(tmp_path, (), (3,))
        assert torch.equal(some.first([3, 23]), cache.first([3, 23])[:, 1:])
        for words, first in (((2,), ()), ((), (1,)), ((1,), (2, 3, 4))):
            with pytest.raises(ValueError, match="Delete it to compute it again"):
                open_cache(tmp_path, words, first)

    def test_a_run_keeps_what_its_stages_ask_for_and_without_first_states_its_key_is_the_old_one(self) -> None:
        teacher, student = Shape(30000, 768, 12, 12, 3072, 512), Shape(5000, 192, 3, 3, 768, 128)
        rows = Table(["some words"] * 10, None, None, {}, "", "")

        def kept(*stages: StageSection) -> kept_states.CachedStates:
            return kept_states.cached_states([resolve(each) for each in stages], teacher, student, rows, 64)

        distill, patient = StageSection(method="distill"), StageSection(method="patient")
        assert kept(distill).as_inputs() == {"layers": [6, 12]}
        assert kept(patient) == ((), (4, 8))
        own = StageSection(method="patient", options={"layers": [3, 5]})
        assert kept(distill, patient, own).as_inputs() == {"layers": [6, 12], "first_layers": [4, 6, 8]}

    def test_first_states_take_their_room_from_the_word_states(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        teacher, student = Shape(30000, 768, 12, 12, 3072, 512), Shape(5000, 192, 3, 3, 768, 128)
        rows = Table(["word"] * 10, None, None, {}, "", "")  # two units per row: 30,720 bytes a layer
        monkeypatch.setattr(kept_states, "CACHE_BYTES", 62_000)
        distill, patient = (resolve(StageSection(method=name)) for name in ("distill", "patient"))
        caplog.set_level(logging.WARNING)
        assert kept_states.cached_states((distill,), teacher, student, rows, 64).words == (6, 12) and not caplog.text
        assert kept_states.cached_states((distill, patient), teacher, student, rows, 64) == ((12,), (4, 8))
        assert "1 of 2 layers of hidden states are cached" in caplog.text


FLAGS = ("--method", "patient", "--epochs", "1", "--max-size", "90kB", "--runs", "5", "--no-baselines", "--json")


class TestRuns:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("shape", "first"),
        [(("--layers", 2, "--hidden", 16, "--heads", 2), [1]), (("--layers", 1, "--repeat", "all"), [1])],
    )
    def test_the_command_line_trains_with_patience(
        self, shape: tuple[object, ...], first: list[int], tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
    ) -> None:
        out, given = (
            tmp_path / "out",
            ("--teacher", tiny_teacher_dir, "--train", tiny_rows.train, "--eval", tiny_rows.dev),
        )
        arguments = [str(each) for each in ("compress", *given, "--output", out, *shape, *FLAGS)]
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code in (0, 3), result.output  # 3: the budget of a tiny student may be missed
        log = json.loads((out / "report.json").read_text(encoding="utf-8"))["training"][0]["log"]
        assert all(line["loss_patience"] > 0 for line in log if "loss" in line)
        shard = out / "steps" / "teacher" / "cache" / "00000"
        assert {path.stem for path in shard.iterdir()} == {"output", "starts", "first"}
        assert np.load(shard / "first.npy").shape == (300, len(first), 32)
        assert runtime.load(out / "package").predict("a wonderful film").label in ("negative", "positive")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "stages",
        [
            [{"method": "distill"}, {"method": "patient"}],
            [{"method": "teacher_predictions"}, {"method": "patient"}],
            [{"method": "dual_training"}, {"method": "patient", "options": {"layers": [1]}}],
            [{"method": "weight_squeezing", "options": {"loss": "patient"}}, {"method": "distill"}],
            [{"method": "weight_inheritance", "options": {"loss": "patient", "loss_options": {"layers": [0, 0, 1]}}}],
        ],
        ids=lambda stages: "-".join(stage["method"] for stage in stages),
    )
    def test_it_works_beside_stages_that_read_words_and_inside_those_that_make_weights(
        self, stages: list[dict[str, Any]], tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
    ) -> None:
        stages = [{**stage, "epochs": 1, "batch_size": 32} for stage in stages]
        student: dict[str, Any] = {"hidden": 16, "heads": 2, "layers": 2}
        if stages[0]["method"].startswith("weight_"):
            student["repeat"] = "all"
        recipe = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages, student=student)
        outcome = compress(recipe, tmp_path / "out")
        logs = [stage["log"] for stage in outcome.report["training"]]
        reads = [stage["method"] == "patient" or "loss" in stage.get("options", {}) for stage in stages]
        assert [any("loss_patience" in line for line in log) for log in logs] == reads
        shard = tmp_path / "out" / "steps" / "teacher" / "cache" / "00000"
        has_words = any(stage["method"] in ("distill", "dual_training") for stage in stages)
        assert (shard / "first.npy").is_file() and (shard / "states.npy").is_file() == has_words
        said: list[str] = []
        compress(recipe, tmp_path / "out", echo=said.append)
        assert "teacher: done before" in said

    @pytest.mark.slow
    def test_an_encoder_learns_with_patience(self, tiny_encoder_dir: Path, tmp_path: Path) -> None:
        train = tmp_path / "train.txt"
        train.write_text("\n".join(text for pair in pair_rows(80, 6) for text in pair) + "\n", encoding="utf-8")
        stage = {"method": "patient", "epochs": 1}
        recipe = make_recipe(
            tiny_encoder_dir, train, None, stage=[stage], student={"hidden": 16, "heads": 2, "layers": 2}
        )
        log = compress(recipe, tmp_path / "out").report["training"][0]["log"]
        assert {"loss_embedding", "loss_similarity", "loss_patience"} <= set(log[0])

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"layers": "published"}, r"a teacher of 2 layers and a student of 2"),
            ({"layers": [0, 1]}, r"2 teacher layers, expected 1"),
            ({"layers": [2]}, r"teacher layer 2, expected 0 to 1"),
        ],
    )
    @pytest.mark.parametrize("is_inner", [False, True])
    def test_layers_that_do_not_fit_are_refused_before_anything_runs(
        self, options: dict[str, Any], sentence: str, is_inner: bool, tiny_teacher_dir: Path, tiny_rows: Any
    ) -> None:
        stage: dict[str, Any] = {"method": "patient", "options": options}
        if is_inner:
            stage = {"method": "weight_squeezing", "options": {"loss": "patient", "loss_options": options}}
        with pytest.raises(ValueError, match=rf"option layers = .*{sentence}"):
            plan(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=[stage], student={"layers": 2}))

    def test_labels_are_asked_for_unless_alpha_is_1(
        self, tiny_teacher_dir: Path, tiny_rows: Any, tmp_path: Path
    ) -> None:
        train = tmp_path / "train.txt"
        train.write_text("a wonderful film\na dull film\n" * 20, encoding="utf-8")
        for method, inner in (("patient", False), ("weight_squeezing", True)):
            for alpha in (0.7, 1.0):
                options: dict[str, Any] = {"alpha": alpha}
                options = {"loss": "patient", "loss_options": options} if inner else options
                recipe = make_recipe(
                    tiny_teacher_dir, train, tiny_rows.dev, stage=[{"method": method, "options": options}]
                )
                if alpha == 1.0:
                    assert plan(recipe).train.labels is None
                else:
                    with pytest.raises(ValueError, match="label"):
                        plan(recipe)

    def test_a_recipe_with_pairs_of_layers_reads_back(self, tiny_teacher_dir: Path, tiny_rows: Any) -> None:
        stage = {"method": "patient", "options": {"layers": [[0, 1]]}}
        recipe = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=[stage], student={"layers": 2})
        assert recipes.parse(plan(recipe).resolved.dumps()).stage[0].options == {"layers": [[0, 1]]}

"""Students that are no transformers, through a whole run: the plan, the start, the package, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from benchmarks.same_answers import batched
from compressor.cli import main
from compressor.recipe import recipe as recipes
from compressor.recipe.sections import QuantizeSection
from compressor.recipe.student import StudentSection
from compressor.run.compress import compress
from compressor.run.planning import small_sizing
from compressor.run.planning.plan import plan
from compressor.run.planning.words import Words
from compressor.student.static import SMOOTH, static_table
from edge_demo import runtime
from exporters.budget import OverBudget
from exporters.shape import Shape
from exporters.small.shape import SMALL, SmallShape
from tests.support.runs import files_of, make_recipe, pair_rows, write_table
from tests.support.tiny import TinyRows

TEACHER = Shape(30000, 384, 6, 12, 1536, 128, n_labels=2, head_layers=1)
BASE = {"teacher": {"path": "t"}, "data": {"train": "f"}}
SHORT = [{"method": "distill", "epochs": 20}]


def chosen(family: str, max_bytes: int, **given: Any) -> SmallShape:
    student = StudentSection(family=family, **given)  # type: ignore[arg-type]
    words = Words(500, 20000, tuple(np.linspace(1, 0, 15000) ** 4))
    asked = TEACHER, student, QuantizeSection(), None, words, 64, "wordpiece", max_bytes, None
    shape = small_sizing.choose(*asked, is_pair=False).shape
    assert isinstance(shape, SmallShape)
    return shape


@pytest.mark.parametrize("family", SMALL)
def test_more_bytes_buy_a_larger_shape(family: str) -> None:
    shapes = [chosen(family, n_bytes) for n_bytes in (150_000, 300_000, 600_000, 1_200_000)]
    sizes = [shape.n_parameters for shape in shapes]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] / 3
    assert chosen(family, 600_000, embedding=32).width == 32
    with pytest.raises(OverBudget, match="too many"):
        chosen(family, 9_000)


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        ({"family": "recurrent", "layers": 2}, r"family='recurrent' is no transformer and has no layers\. Leave out"),
        ({"family": "mean", "repeat": "all"}, r"has no repeat"),
        ({"family": "mean", "pretrained": "x"}, r"has no pretrained"),
        ({"embedding": 32}, r"embedding=32 is the token table of a small encoder\. Give family as one of recurrent"),
        ({"family": "transformer", "embedding": 32}, r"Give family as one of recurrent, convolution, mean"),
        ({"family": "lstm"}, r"family = 'lstm': input should be 'transformer', 'recurrent'"),
    ],
)
def test_a_recipe_refuses_what_the_family_has_not(student: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipes.from_dict({**BASE, "student": student})


def test_a_recipe_names_the_family_only_where_it_is_said() -> None:
    assert not {"family", "embedding"} & recipes.from_dict(BASE).student.model_dump().keys()  # digests of old runs hold
    recipe = recipes.from_dict({**BASE, "student": {"family": "recurrent", "embedding": 32, "hidden": 24}})
    assert recipes.parse(recipe.dumps()) == recipe


def test_methods_that_work_on_layers_are_refused(tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path) -> None:
    flags = ["--teacher", str(tiny_teacher_dir), "--train", str(tiny_rows.train), "--output", str(tmp_path / "out")]
    for method in ("weight_squeezing", "patient", "dual_training"):
        done = CliRunner().invoke(main, ["compress", *flags, "--family", "mean", "--method", method])
        assert done.exit_code == 1 and f"no transformer, and method '{method}' works on the layers" in done.output


@pytest.mark.parametrize("family", SMALL)
def test_a_whole_run_makes_a_package_that_answers_like_its_checkpoint(
    family: str, tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    given = {"student": {"family": family, "embedding": 16, **({} if family == "mean" else {"hidden": 24})}}
    recipe = make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=SHORT, **given)
    planned = plan(recipe)
    assert planned.resolved == recipes.parse(planned.resolved.dumps())
    assert plan(planned.resolved).shape == planned.shape
    outcome = compress(recipe, tmp_path / "out")
    report = outcome.report
    assert not outcome.violations and report["metrics"]["package"]["accuracy"] > 0.9
    assert report["size"]["total"] == pytest.approx(sum(report["size"]["predicted"].values()), rel=0.01, abs=1300)
    assert report["student"].startswith(family) and "told" in report["shape"]
    origin = json.loads((tmp_path / "out/steps/student/model/inherit.json").read_text(encoding="utf-8"))["tensors"]
    made = {name for name, line in origin.items() if line["how"] == "principal components"}
    assert len(made) == 1 and made.pop().endswith("word_embeddings.weight")
    card = (outcome.package_dir / "README.md").read_text(encoding="utf-8")
    assert f"| shape | {family}" in card
    exported = tmp_path / "exported"
    checkpoint = tmp_path / "out/steps/train-1-distill/model"
    done = CliRunner().invoke(main, ["export", str(checkpoint), "--quantize", "int8", "--output", str(exported)])
    assert done.exit_code == 0 and "not sharded" not in done.output, done.output
    package = runtime.load(outcome.package_dir)
    rows = tiny_rows.dev.read_text(encoding="utf-8").splitlines()[1:]
    texts = [row.split("\t")[0] for row in rows]
    ids = [package._columns(text, None)["input_ids"] for text in texts]
    assert np.abs(batched(outcome.package_dir, ids) - package.outputs(texts, None)).max() < 1e-6
    again = compress(recipe, tmp_path / "again")
    assert files_of(again.package_dir) == files_of(outcome.package_dir)


def test_a_small_sentence_encoder_is_made_of_its_teachers_table(
    tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    stage = [{"method": "distill", "epochs": 4}]
    given = {"student": {"family": "recurrent", "embedding": 16, "hidden": 24}, "quantize": {"scheme": "int8"}}
    pairs = write_table(tmp_path / "pairs.tsv", ["sentence1", "sentence2"], pair_rows(60, 3))
    scored = [(*pair, index % 5) for index, pair in enumerate(pair_rows(30, 4))]
    dev = write_table(tmp_path / "dev.tsv", ["sentence1", "sentence2", "score"], scored)
    outcome = compress(make_recipe(tiny_encoder_dir, pairs, dev, stage=stage, baselines=True, **given), tmp_path / "o")
    assert not outcome.violations
    beside = {each["name"].partition(",")[0]: each for each in outcome.report["baselines"]}
    static = beside["static vectors of the teacher"]
    assert static["bytes"] < 90_000 and "spearman" in static["metrics"] and static["p50_ms"] > 0
    assert runtime.load(outcome.package_dir).outputs(["The film was great."], None).shape == (1, 32)  # the teacher's


def test_a_start_of_random_weights_takes_nothing_of_the_teacher(
    tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    tables = []
    for init in ("teacher", "random"):
        student = {"family": "mean", "embedding": 16, "init": init}
        out = tmp_path / init
        compress(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, student=student, stage=SHORT), out)
        state = load_file(out / "steps/student/model/model.safetensors")
        tables.append(next(tensor for name, tensor in state.items() if name.endswith("word_embeddings.weight")))
    assert not torch.equal(*tables)
    assert tables[0].norm(dim=1).mean() == pytest.approx(1.0, rel=1e-3)


def test_static_vectors_are_made_of_the_teacher_without_training(
    tiny_encoder_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    given = {"student": {"family": "static", "embedding": 16}}
    recipe = recipes.from_dict({**BASE, **given})
    assert recipe.stage == () and recipes.parse(recipe.dumps()) == recipe
    made = make_recipe(tiny_encoder_dir, tiny_rows.train, tiny_rows.dev, stage=(), **given)
    outcome = compress(made, tmp_path / "out")
    assert not outcome.violations and outcome.report["training"] == []
    package = runtime.load(outcome.package_dir)
    vectors = package.outputs(["good film", "film good", "bad film", "."], None)
    assert vectors.shape == (4, 16)
    assert np.allclose(vectors[0], vectors[1], atol=1e-6) and not np.allclose(vectors[0], vectors[2], atol=1e-2)
    origin = json.loads((tmp_path / "out/steps/student/model/inherit.json").read_text(encoding="utf-8"))["tensors"]
    assert [line["how"].startswith("the teacher's vectors") for line in origin.values()] == [True]


def test_a_static_table_weighs_by_frequency_and_keeps_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(6, 4, generator=generator)
    vectors[0] = 0.0  # a special token
    table = static_table(vectors, np.array([50, 10, 20, 30, 0, 40]), 4)
    assert table.shape == (6, 4) and not table[0].any()
    share = np.array([0, 10, 20, 30, 0, 40]) / 100
    lengths = (SMOOTH / (SMOOTH + share)) * vectors.norm(dim=1).numpy()
    assert np.allclose(table.norm(dim=1), lengths, rtol=1e-4)
    cosines = torch.nn.functional.cosine_similarity
    assert torch.allclose(cosines(table[1], table[2], dim=0), cosines(vectors[1], vectors[2], dim=0), atol=1e-5)


def test_what_is_not_trained_takes_no_stage_and_no_classifier(
    tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"family='static' is made without training\. Leave out \[\[stage\]\]"):
        recipes.from_dict({**BASE, "student": {"family": "static"}, "stage": [{"method": "distill"}]})
    with pytest.raises(ValueError, match=r"Leave out --effort"):
        recipes.from_dict({**BASE, "student": {"family": "static"}, "effort": 2.0})
    flags = ["--teacher", str(tiny_teacher_dir), "--train", str(tiny_rows.train), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["compress", *flags, "--family", "static"])
    assert done.exit_code == 1 and "makes sentence vectors, and teacher" in done.output

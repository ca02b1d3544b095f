"""Students whose layers repeat, through all that a student goes through: shapes, starts, methods, a whole run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from compressor.cli import main
from compressor.inherit.compactors import build_network
from compressor.recipe import recipe as recipes
from compressor.recipe.sections import QuantizeSection
from compressor.recipe.student import StudentSection
from compressor.run.compress import compress
from compressor.run.planning import choice, sizing
from compressor.run.planning.plan import plan
from compressor.run.planning.words import Words
from compressor.student.activations import Activations
from compressor.student.pretrained import load_pretrained
from compressor.student.student import choose_parts, new_model
from compressor.training.registry import method_names
from edge_demo import runtime
from exporters.predicted_bytes import predict_bytes
from exporters.repetition import pattern
from exporters.shape import Scheme, Shape
from tests.support.method_cases import TEACHER_LAYERS, descend, finish, make_case
from tests.support.repeated_models import FAMILIES, layers_of, repeated, repeated_context
from tests.support.runs import make_recipe
from tests.support.tiny import TinyRows

TEACHER = Shape(2000, 64, 6, 4, 128, 64, n_labels=2, head_layers=1)
GRAPH = Shape(3000, 96, 2, 2, 256, 64, n_labels=2, head_layers=1, **pattern("all", 2)._asdict())  # type: ignore[arg-type]
BASE = {"teacher": {"path": "t"}, "data": {"train": "f"}}


def chosen(student: StudentSection, max_bytes: int | None = None) -> choice.Choice:
    bits = QuantizeSection(scheme="int8")
    return sizing.choose(TEACHER, student, bits, 1000, Words(500, 1500), 64, "wordpiece", max_bytes, None)


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        ({"repeat": "top-half"}, r"\[student\] repeat='top-half', expected one of none, all.*Did you mean 'top_half'"),
        ({"repeat": [0, 3], "layers": 3}, r"repeat=\[0, 3\] names layer 3, layers=3 has 0 to 2\. Use layers=4 or more"),
        ({"repeat": []}, r"repeat=\[\], expected the layers that run again, counted from 0"),
        ({"repeat": [1.5]}, r"repeat=\[1\.5\], expected the layers that run again"),
        ({"repeat": True}, r"repeat=True, expected one of none, all"),
        ({"exchange": True}, r"exchange=true without layers that run again\. Give repeat, or leave out exchange\."),
        ({"start_layers": "first", "init": "random"}, r"start_layers='first' beside init='random'"),
        ({"start_layers": "last"}, r"start_layers = 'last': input should be 'even' or 'first'"),
        ({"start_layers": "first", "pretrained": "x"}, r"Leave out start_layers, or pretrained"),
    ],
)
def test_a_recipe_refuses_what_cannot_repeat(student: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipes.from_dict({**BASE, "student": student})


@pytest.mark.parametrize("repeat", ["none", "all", "mirror", [0, 1]])
def test_a_recipe_writes_how_layers_repeat_only_where_it_is_said(repeat: Any) -> None:
    plain = recipes.from_dict(BASE)
    assert not {"repeat", "exchange", "start_layers"} & plain.student.model_dump().keys()  # digests of old runs hold
    recipe = recipes.from_dict({**BASE, "student": {"repeat": repeat, "start_layers": "first"}})
    assert recipes.parse(recipe.dumps()) == recipe and recipe.digest() != plain.digest()


def test_nothing_repeats_unless_it_is_asked_for() -> None:
    for max_bytes in (None, 200_000, 120_000):
        assert chosen(StudentSection(), max_bytes).shape.passes == ()


def test_a_repeated_shape_costs_time_and_no_weights() -> None:
    plain, again = (chosen(StudentSection(layers=3, repeat=repeat)) for repeat in (None, "all"))
    assert again.shape == dataclasses.replace(plain.shape, **pattern("all", 3)._asdict())
    for part in ("embeddings", "weights", "vectors", "tokenizer"):
        assert again.predicted[part] == plain.predicted[part]
    assert 0 < again.predicted["graph"] - plain.predicted["graph"] < 10_000
    times = [choice.estimate_ms(each.shape, each.scheme) for each in (plain, again)]
    assert 1.9 < times[1] / times[0] < 2.0
    assert choice.describe(again.shape, again.scheme).startswith("3 layers, 6 passes x 64, ")
    assert "layers that run again cost time" in " ".join(again.reasons)


def test_a_list_of_layers_asks_for_students_that_have_them() -> None:
    assert chosen(StudentSection(repeat=(2,)), 130_000).shape.layers >= 3
    assert chosen(StudentSection(layers=2, repeat="none")).shape.passes == ()
    assert chosen(StudentSection(layers=2, repeat="all", exchange=False)).shape.exchanged == (False,) * 4


def test_layers_that_no_student_can_have_are_refused_with_what_to_do(
    tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    flags = ["--teacher", str(tiny_teacher_dir), "--train", str(tiny_rows.train), "--output", str(tmp_path / "out")]

    def said(*more: str) -> str:
        done = CliRunner().invoke(main, [*more, *flags])
        assert done.exit_code == 1 and "unexpected" not in done.output
        return done.output

    again = "--repeat 0,5 names layer 5, the teacher has layers 0 to 1. Leave it out of --repeat."
    assert again in said("compress", "--repeat", "0,5") and again in said("vocab", "curve", "--repeat", "0,5")
    given = ["--pretrained", str(tiny_teacher_dir), "--repeat", "9"]
    assert f"--pretrained {tiny_teacher_dir} has layers 0 to 1. Leave it out of --repeat." in said("compress", *given)
    assert "repeat=[9] names layer 9, layers=2 has 0 to 1" in said("vocab", "curve", "--repeat", "9", "--layers", "2")
    divided = said("vocab", "curve", "--hidden", "30", "--heads", "4")
    assert "[student] hidden=30 is not divisible by heads=4. Use hidden=28 or heads=3." in divided


@pytest.fixture(scope="module")
def float_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from benchmarks.predicted_bytes import save_random_bert
    from exporters.graph.optimize import optimize
    from exporters.to_onnx import export_model

    folder = tmp_path_factory.mktemp("repeated")
    save_random_bert(folder / "model", GRAPH)
    export_model(folder / "model", folder / "model.onnx", "classification", 64)
    optimize(folder / "model.onnx", folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("scheme", [Scheme(8, 8), Scheme(4, 4), Scheme(None, None)], ids=lambda scheme: scheme.name)
def test_the_bytes_of_a_repeated_graph_are_predicted(scheme: Scheme, float_graph: Path, tmp_path: Path) -> None:
    from exporters.graph.quantize import quantize

    path = float_graph
    if scheme.weight_bits is not None:
        path = tmp_path / "model.onnx"
        quantize(float_graph, path, scheme)
    predicted = predict_bytes(GRAPH, scheme)
    parts = sum(predicted[name] for name in ("embeddings", "weights", "vectors", "graph"))
    assert parts == pytest.approx(path.stat().st_size, abs=700)


def test_the_first_layers_are_the_papers_start() -> None:
    teacher, student = TEACHER, dataclasses.replace(TEACHER, layers=2)
    ones = [torch.ones(teacher.hidden).double().numpy()] * teacher.layers
    units = [torch.ones(teacher.ffn).double().numpy()] * teacher.layers
    activations = Activations(ones[0], ones, units, {}, {})
    assert list(choose_parts(teacher, student, activations).layers) == [2, 5]
    assert list(choose_parts(teacher, student, activations, "first").layers) == [0, 1]


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("method", method_names())
def test_every_method_trains_a_repeated_student(method: str, model_type: str) -> None:
    context = repeated_context(model_type=model_type)
    case = make_case(method, context)
    losses = descend(case, 6)
    assert losses[-1] < losses[0]
    finish(case)
    student = case.objective.student.eval()
    assert student.config.passes == [0, 1, 0, 1] and len(list(layers_of(student))) == 4
    assert student.state_dict().keys() == context.student.state_dict().keys()


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("method", ["weight_squeezing", "weight_distillation", "weight_inheritance"])
@pytest.mark.parametrize("kind", ["classification", "embedding"])
def test_folds_of_a_repeated_student_are_exact(method: str, model_type: str, kind: str) -> None:
    case = make_case(method, repeated_context(kind, "mirror", model_type=model_type))
    descend(case, 3)
    outputs = finish(case)["outputs"]
    assert outputs["float64"] < 1e-9 * outputs["scale"] and outputs["stored"] < 1e-4 * outputs["scale"]


def test_the_wide_network_of_weight_inheritance_repeats_as_its_student_does() -> None:
    context = repeated_context(repeat="mirror")
    wide = build_network(context, mixes_layers=False, trains_sources=False).model
    assert type(wide) is type(context.student) and wide.config.passes == [0, 1, 1, 0]
    assert wide.config.hidden_size == context.teacher.config.hidden_size


def test_states_are_compared_at_the_relative_depth_of_passes() -> None:
    case = make_case("distill", repeated_context())
    assert case.context.teacher_layers == (1, TEACHER_LAYERS)
    assert case.objective.imitation.layers == [1, 4]  # of 4 passes, beside layers 1 and 3 of 3


@pytest.mark.parametrize(("own", "asked", "expected"), [("all", None, "all"), ("none", "mirror", "mirror"),
                                                        ("all", "none", "none")])  # fmt: skip
def test_a_pretrained_model_keeps_its_passes_or_takes_those_asked_for(
    own: str, asked: str | None, expected: str, tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    if own == "none":
        given = tiny_teacher_dir
    else:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        repeated(AutoModelForSequenceClassification.from_pretrained(tiny_teacher_dir), own).save_pretrained(given)
        AutoTokenizer.from_pretrained(tiny_teacher_dir).save_pretrained(given)
    student = {"pretrained": str(given), **({"repeat": asked} if asked else {})}
    planned = plan(make_recipe(tiny_teacher_dir, *tiny_rows, student=student, vocab={}))
    wanted = pattern(expected, 2)
    assert (planned.shape.passes, planned.shape.exchanged) == (wanted if expected != "none" else ((), ()))
    assert planned.pretrained is not None
    model, origin = load_pretrained(planned.pretrained, planned.info, planned.shape, 0)
    assert {line["how"] for line in origin.values()} == {"pretrained"}
    assert getattr(model.config, "passes", [0, 1]) == list(wanted.passes)


def test_a_new_model_repeats_as_its_shape_does(tiny_teacher_dir: Path, tiny_rows: TinyRows) -> None:
    planned = plan(make_recipe(tiny_teacher_dir, *tiny_rows, student={"layers": 1, "repeat": [0, 0]}))
    model = new_model(planned.info, planned.shape, 0)
    assert (model.config.model_type, model.config.passes) == ("repeated-bert", [0, 0, 0])
    assert any(line.startswith("passes   0 0' 0'") for line in planned.lines())
    assert (planned.resolved.student.repeat, planned.resolved.student.exchange) == ((0, 0), True)


def test_a_start_that_is_not_used_is_refused(tiny_teacher_dir: Path, tiny_rows: TinyRows) -> None:
    stage = [{"method": "weight_squeezing"}]
    with pytest.raises(ValueError, match=r"--start-layers first .* Leave out --start-layers\."):
        plan(make_recipe(tiny_teacher_dir, *tiny_rows, student={"start_layers": "first"}, stage=stage))


@pytest.fixture(scope="module")
def arguments(tiny_teacher_dir: Path, tiny_rows: TinyRows, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a finished run; its output is the last argument."""
    flags = ["--teacher", tiny_teacher_dir, "--train", tiny_rows.train, "--eval", tiny_rows.dev, "--vocab-size", 300,
             "--layers", 2, "--repeat", "mirror", "--start-layers", "first", "--quantize", "int4", "--epochs", 1,
             "--runs", 5, "--no-baselines", "--output", tmp_path_factory.mktemp("repeated") / "out"]  # fmt: skip
    command = ["compress", *map(str, flags)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "2 layers, 4 passes" in done.output and "0 1 1' 0'" in done.output
    return command


def test_a_whole_run_packages_a_repeated_student(arguments: list[str], tiny_rows: TinyRows) -> None:
    out = Path(arguments[-1])
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["shape"]["passes"] == [0, 1, 1, 0] and "2 layers, 4 passes" in report["student"]
    assert json.loads((out / "package" / "config.json").read_text(encoding="utf-8"))["model_type"] == "bert"
    assert "2 layers in 4 passes" in (out / "package" / "README.md").read_text(encoding="utf-8")
    assert runtime.load(out / "package").predict("a wonderful film").label in ("positive", "negative")
    verified = CliRunner().invoke(main, ["verify", str(out / "package"), "--eval", str(tiny_rows.dev)])
    assert verified.exit_code == 0 and "status: ok" in verified.output
    before = sorted((path.stat().st_mtime_ns, path) for path in out.rglob("step.json"))
    assert CliRunner().invoke(main, arguments).exit_code == 0  # nothing is left to do
    assert sorted((path.stat().st_mtime_ns, path) for path in out.rglob("step.json")) == before


@pytest.mark.slow
def test_a_repeated_student_can_teach_be_finetuned_and_exported(
    arguments: list[str], tiny_rows: TinyRows, tmp_path: Path
) -> None:
    model = Path(arguments[-1]) / "steps" / "train-1-distill" / "model"
    recipe = make_recipe(model, *tiny_rows, student={"layers": 1, "repeat": "all"}, vocab={"size": 0})
    again = compress(recipe, tmp_path / "again")
    assert again.report["shape"]["passes"] == [0, 0] and not again.violations
    for command in (["export", str(model)], ["finetune", "--model", str(model), "--train", str(tiny_rows.train)]):
        done = CliRunner().invoke(main, [*command, "--output", str(tmp_path / command[0])])
        assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "finetune" / "config.json").read_text(encoding="utf-8"))
    assert config["passes"] == [0, 1, 1, 0]

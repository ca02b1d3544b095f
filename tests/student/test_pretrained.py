"""A student that exists: its own shape, weights and tokenizer, its head where it answers the same labels."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from compressor.models.families import family_of, shape_of
from compressor.models.teacher import TeacherInfo
from compressor.recipe import recipe as recipes
from compressor.recipe.sections import TeacherSection
from compressor.run.compress import compress
from compressor.run.planning.plan import plan
from compressor.student.pretrained import Pretrained, load_pretrained, read_pretrained
from compressor.training.registry import method_names
from edge_demo import runtime
from exporters.budget import OverBudget
from tests.support.given_models import change_json, save_model, save_teacher
from tests.support.method_cases import MODEL_TYPES, tokenizers
from tests.support.runs import files_of, make_recipe
from vocab.save import save_tokenizer

LABELS = ("negative", "positive")
LEAST = {"teacher": {"path": "t"}, "data": {"train": "f"}}
POSITIONS = 40
OLD, NEW = {"how": "pretrained"}, {"how": "new"}


def read(folder: Path, info: TeacherInfo, **more: bool) -> Pretrained:
    return read_pretrained(str(folder), TeacherSection(path="teacher", **more), info)


def load(folder: Path, info: TeacherInfo, seed: int = 3) -> tuple[PreTrainedModel, dict[str, object]]:
    found = read(folder, info)
    offset = family_of(found.config["model_type"]).position_offset
    return load_pretrained(found, info, found.shape_for(info, POSITIONS + offset), seed)


def states(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, output_hidden_states=True).hidden_states[-1]


def some_ids(n_tokens: int) -> torch.Tensor:
    return torch.randint(5, n_tokens, (4, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> TeacherInfo:
    """A BERT of width 24 and three layers that knows the labels a, b and c."""
    return save_teacher(tmp_path_factory.mktemp("given") / "teacher")


# --- the weights


@pytest.mark.parametrize("model_type", [*MODEL_TYPES, "xlm-roberta"])
@pytest.mark.parametrize("kind", ["classification", "embedding"])
def test_it_answers_as_the_model_in_the_folder_does(kind: str, model_type: str, tmp_path: Path) -> None:
    info = save_teacher(tmp_path / "teacher", "roberta" if model_type == "xlm-roberta" else model_type, kind)
    folder = save_model(tmp_path / "model", model_type, kind)
    student, origin = load(folder, info)
    theirs = (AutoModel if kind == "embedding" else AutoModelForSequenceClassification).from_pretrained(folder)
    ids = some_ids(theirs.config.vocab_size)
    torch.testing.assert_close(states(student, ids), states(theirs.eval(), ids), rtol=0, atol=0)
    if kind == "classification":
        assert torch.equal(student(input_ids=ids).logits, theirs(input_ids=ids).logits)
    assert set(origin) == set(student.state_dict()) and all(line == OLD for line in origin.values())
    shape = shape_of(student.config.to_dict(), 0 if kind == "embedding" else 3)
    assert shape.positions == POSITIONS + family_of(model_type).position_offset
    assert shape.n_parameters == sum(parameter.numel() for parameter in student.parameters())


@pytest.mark.parametrize("kind", ["embedding", "mlm"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_encoder_or_a_masked_language_model_gets_a_fresh_head(kind: str, model_type: str, tmp_path: Path) -> None:
    info = save_teacher(tmp_path / "teacher", model_type)
    folder = save_model(tmp_path / "model", model_type, kind)
    assert read(folder, info).head == "a fresh head"
    student, origin = load(folder, info)
    encoder = AutoModel.from_pretrained(folder).eval()
    ids = some_ids(encoder.config.vocab_size)
    assert torch.equal(states(student, ids), states(encoder, ids))
    prefix = f"{family_of(model_type).prefix}."
    new = {name for name, line in origin.items() if line == NEW}
    assert new == {name for name in student.state_dict() if not name.startswith(prefix) or "pooler" in name}
    assert student.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_fresh_head_is_drawn_from_the_seed_and_from_nothing_else(info: TeacherInfo, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", kind="mlm")
    before = torch.random.get_rng_state()
    first = load(folder, info)[0].state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    again, other = (load(folder, info, seed)[0].state_dict() for seed in (3, 4))
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert changed == {"classifier.weight", "bert.pooler.dense.weight"}


@pytest.mark.parametrize(
    ("labels", "is_taken"),
    [(("a", "b", "c"), True), (("c", "b", "a"), False), (("a", "b"), False), (("x", "y", "z"), False)],
)
def test_a_head_is_taken_for_the_same_labels_only(
    labels: tuple[str, ...], is_taken: bool, info: TeacherInfo, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model", labels=labels)
    assert read(folder, info).has_head == is_taken
    _, origin = load(folder, info)
    assert origin["classifier.weight"] == (OLD if is_taken else NEW)
    assert origin["bert.pooler.dense.weight"] == OLD


def test_rows_that_no_token_has_are_cut_off(info: TeacherInfo, tmp_path: Path) -> None:
    n_tokens = tokenizers()[1].get_vocab_size()
    folder = save_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    weights[name] = torch.cat([weights[name], torch.full((10, 16), 9.0)])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_json(folder / "config.json", vocab_size=n_tokens + 10)
    student, _ = load(folder, info)
    assert torch.equal(student.state_dict()[name], weights[name][:n_tokens])
    assert student.config.vocab_size == n_tokens


def test_a_pickle_is_read_where_the_user_allows_it(info: TeacherInfo, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    expected = load(folder, info)[0].state_dict()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"--pretrained .*: .* holds only pytorch_model\.bin, a pickle .* --allow-pi"):
        read(folder, info)
    found = read(folder, info, allow_pickle=True)
    student, _ = load_pretrained(found, info, found.shape_for(info, POSITIONS), 3, allow_pickle=True)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in student.state_dict().items())


# --- what is refused


@pytest.mark.parametrize(
    ("beside", "sentence"),
    [
        (
            {"student": {"layers": 2}},
            "[student] pretrained brings its own layers, hidden, heads, ffn, init, start_layers. Lea",
        ),
        ({"student": {"init": "teacher"}}, "Leave out init, or pretrained."),
        ({"vocab": {"size": 0}}, "[student] pretrained brings its own tokenizer. Leave out size of [vocab], or pret"),
        ({"vocab": {"path": "x"}}, "[student] pretrained brings its own tokenizer. Leave out path of [vocab], or pre"),
    ],
)
def test_what_it_brings_itself_cannot_be_given(beside: dict[str, dict[str, Any]], sentence: str) -> None:
    student = {"pretrained": "x", **beside.get("student", {})}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        recipes.from_dict({**LEAST, **beside, "student": student})


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:900])


def broken(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.bias"][0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lost(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.0.output.dense.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json\. Give a folder saved by"),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            r"config\.json is not JSON .* Download the checkpoint",
        ),
        (
            lambda folder: change_json(folder / "config.json", model_type="gpt2"),
            r"'gpt2' is not supported, expected one",
        ),
        (
            lambda folder: change_json(folder / "config.json", auto_map={"AutoModel": "x.y"}),
            r"its own code \(auto_map ",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\.safetensors\. Give a folder saved by"),
        (cut, r"is cut off; download it again|is no safetensors file"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"holds no tokenizer\. Add its tokenizer\.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), r"the tokenizer in .* cannot be read"),
        (broken, r"its weights bert\.encoder\.layer\.0\.output\.dense\.bias are not all finite numbers\. The model is"),
        (
            lost,
            r"lack 1 tensors \(bert\.encoder\.layer\.0\.output\.dense\.bias\): .* layer 0, .* is not whole",
        ),
    ],
)
def test_a_damaged_checkpoint_is_a_sentence(
    change: Callable[[Path], object], sentence: str, info: TeacherInfo, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model")
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"^--pretrained \S*model: .*({sentence})") as caught:
        load(folder, info)
    assert "teacher:" not in str(caught.value) and "--teacher" not in str(caught.value)


def test_a_folder_that_is_not_there_is_told(info: TeacherInfo) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"--pretrained \./no: folder \./no does not exist\. Check --pretrained\."
    ):
        read_pretrained("./no", TeacherSection(path="t"), info)
    with pytest.raises(
        FileNotFoundError, match=r"--pretrained nobody/none: .* is not in the local cache \(--offline\)"
    ):
        read_pretrained("nobody/none", TeacherSection(path="t", offline=True), info)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"model_type": "roberta"}, "is of architecture 'roberta', the teacher of 'bert', expected the same family"),
        ({"model_type": "electra"}, "is of architecture 'electra', the teacher of 'bert', expected the same family"),
        ({"hidden": 32}, "has hidden 32, which is more than the teacher's 24. Give a model that is nowhere larger"),
        ({"layers": 4}, "has layers 4, which is more than the teacher's 3."),
        ({"type_vocab_size": 1}, "tells 1 segments apart (type_vocab_size), the teacher 2. Give a model with as many."),
    ],
)
def test_what_does_not_go_with_the_teacher_is_refused(
    more: dict[str, Any], sentence: str, info: TeacherInfo, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model", **more)
    with pytest.raises(ValueError, match=rf"^--pretrained \S*model:? .*{re.escape(sentence)}"):
        read(folder, info)


def test_the_tokenizer_of_another_model_is_refused(info: TeacherInfo, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    save_tokenizer(tokenizers()[0], folder, {}, 60)
    with pytest.raises(
        ValueError, match=r"its tokenizer has \d+ tokens, its embeddings have 150 rows\. They are not of"
    ):
        read(folder, info)


# --- the plan and the run


@pytest.fixture
def make(tiny_teacher_dir: Path, tiny_rows: Any) -> Any:
    """A recipe on the tiny teacher with this student."""

    def made(path: Path, **more: Any) -> recipes.Recipe:
        student = {"pretrained": str(path)}
        return make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, student=student, **more)

    return made


def test_the_plan_has_its_shape_and_the_resolved_recipe_its_name(make: Any, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "small", labels=LABELS)
    planned = plan(make(folder))
    assert (planned.shape.layers, planned.shape.hidden, planned.shape.ffn) == (1, 16, 32)
    assert planned.shape.vocab_size == tokenizers()[1].get_vocab_size()
    assert planned.shape.positions == planned.max_length < 64
    assert "start    small: its weights, its own head" in planned.lines()
    assert f"as it is (--pretrained {folder})" in "\n".join(planned.lines())
    assert planned.as_dict()["pretrained"]["has_head"] is True
    resolved = planned.resolved
    assert resolved.student.pretrained == str(folder) and resolved.student.layers is None
    assert plan(recipes.parse(resolved.dumps())).resolved == resolved


def test_other_labels_are_shown_as_a_fresh_head(make: Any, tmp_path: Path) -> None:
    assert "start    small: its weights, a fresh head" in plan(make(save_model(tmp_path / "small"))).lines()


def test_the_plan_chooses_bits_only_and_refuses_what_does_not_fit(make: Any, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "small")
    assert plan(make(folder)).scheme.name == "int8"
    with pytest.raises(OverBudget, match=r"the smallest student that this recipe allows .* \(1 layers x 16"):
        plan(make(folder, budget={"max_size": "9kB"}))


def test_inputs_are_no_longer_than_its_positions(make: Any, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "small", max_position_embeddings=24)
    assert plan(make(folder)).max_length == 24
    recipe = make(folder)
    longer = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"max_length": 30})})
    sentence = r"--max-length 30 is more than the 24 positions of --pretrained small\. Use --max-length 24 or less\."
    with pytest.raises(ValueError, match=sentence):
        plan(longer)


@pytest.mark.slow
def test_a_run_starts_with_its_weights_and_makes_the_step_again_when_they_change(make: Any, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "small", labels=LABELS)
    recipe = make(folder, stage=[{"method": "distill", "epochs": 1}])
    outcome = compress(recipe, tmp_path / "out")
    assert runtime.load(outcome.package_dir).predict("a wonderful film").label in LABELS
    start = tmp_path / "out" / "steps" / "student" / "model"
    tensors = json.loads((start / "inherit.json").read_text(encoding="utf-8"))["tensors"]
    assert all(line == OLD for line in tensors.values())
    theirs, mine = (load_file(path / "model.safetensors") for path in (folder, start))
    assert all(torch.equal(tensor, theirs[name][: len(tensor)]) for name, tensor in mine.items())
    card = (outcome.package_dir / "README.md").read_text(encoding="utf-8")
    assert "A student of `teacher`, trained from `small`, made by tenmeg." in card and "| shape | 1 layers" in card
    again = compress(recipes.load(tmp_path / "out" / "recipe.toml"), tmp_path / "again")
    assert files_of(again.package_dir) == files_of(outcome.package_dir)

    save_model(folder, labels=LABELS, seed=2)
    said: list[str] = []
    compress(recipe, tmp_path / "out", echo=said.append)
    assert [line for line in said if line.endswith("done before")] == ["teacher: done before"]


@pytest.mark.slow
@pytest.mark.parametrize("method", method_names())
def test_every_method_can_train_it(method: str, make: Any, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "small", kind="mlm")
    stages = [{"method": method, "epochs": 1}, {"method": "distill", "epochs": 1}]
    outcome = compress(make(folder, stage=stages), tmp_path / "out")
    assert runtime.load(outcome.package_dir).predict("a wonderful film").label in LABELS
    assert outcome.report["shape"]["hidden"] == 16


@pytest.mark.slow
def test_a_student_of_an_earlier_run_is_trained_on(make: Any, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    rows = tmp_path / "train.txt"
    rows.write_text("\n".join(f"this is film number {n}" for n in range(120)) + "\n", encoding="utf-8")
    first = compress(make_recipe(tiny_encoder_dir, rows, None, student={"hidden": 16, "heads": 2}), tmp_path / "one")
    model = next((first.report_path.parent / "steps").glob("train-*")) / "model"
    moved = shutil.copytree(model, tmp_path / "student")
    recipe = make_recipe(tiny_encoder_dir, rows, None, student={"pretrained": str(moved)})
    second = compress(recipe, tmp_path / "two")
    assert second.report["shape"] == first.report["shape"]
    start = load_file(tmp_path / "two" / "steps" / "student" / "model" / "model.safetensors")
    assert all(torch.equal(tensor, start[name]) for name, tensor in load_file(moved / "model.safetensors").items())

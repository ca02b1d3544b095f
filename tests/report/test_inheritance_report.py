"""The certificate of a fold on its way into report, card, manifest and the last lines of a run; and what stops it."""

import dataclasses
import hashlib
import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from compressor.commands.folders import make_package
from compressor.inherit import fold
from compressor.models.families import family_of, shape_of
from compressor.packaging.inspection import verify_package
from compressor.recipe.sections import StageSection
from compressor.report import fold_certificates
from compressor.report.fold_certificates import FILE, check, manifest_block, read, sentence, told
from compressor.report.report import REPORT_VERSION, html, model_card
from compressor.run.compress import Outcome, compress
from compressor.training.contract import FoldError, model_inputs
from compressor.training.registry import build_options, resolve
from edge_demo import runtime
from exporters.package import make_cases, package_bytes, write_package
from tests.golden.make import TEXTS, write_parts
from tests.support.method_cases import MODEL_TYPES, N_ROWS, context_of, make_case
from tests.support.runs import files_of, make_recipe

METHOD = "weight_squeezing"
ALL_MAPPED = {"map_biases": True, "map_layernorm": True}


def certificate_of(
    kind: str = "classification", model_type: str = "bert", options: dict[str, Any] | None = None, method: str = METHOD
) -> dict[str, Any]:
    """Fold an untrained tiny student and return what its stage would write."""
    case = make_case(method, context_of(kind, model_type=model_type), options)
    return case.objective.finish([model_inputs(case.collate(range(N_ROWS)))])


@pytest.fixture(scope="module")
def certificate() -> dict[str, Any]:
    return certificate_of()


@pytest.fixture
def block(certificate) -> dict[str, Any]:
    return {"stage": 1, "method": METHOD, **certificate}


def changed(certificate: dict[str, Any], key: str, **values: Any) -> dict[str, Any]:
    return {**certificate, key: {**certificate[key], **values}}


def put(steps_dir: Path, certificate: Any, name: str = f"train-1-{METHOD}") -> Path:
    """Write a step with a certificate as a stage does, and return the certificate's path."""
    path = steps_dir / name / FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(certificate), encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name("step.json").write_text(json.dumps({"files": {FILE: {"sha256": digest}}}), encoding="utf-8")
    return path


def test_the_reader_knows_the_version_that_is_written():
    assert fold.FOLD_VERSION == fold_certificates.VERSION


def test_a_certificate_is_read_with_its_stage_and_method(certificate, tmp_path):
    put(tmp_path, certificate)
    put(tmp_path, certificate, "train-3-weight_distillation")
    (tmp_path / "train-2-distill").mkdir()
    (tmp_path / "train-2-distill" / "step.json").write_text('{"files": {}}')
    found = read(tmp_path, (f"train-1-{METHOD}", "train-2-distill", "train-3-weight_distillation"))
    assert [(each["stage"], each["method"]) for each in found] == [(1, METHOD), (3, "weight_distillation")]
    assert all({**each, **certificate} == each for each in found)


@pytest.mark.parametrize(
    ("key", "values", "says"),
    [
        ("outputs", {"float64": 1e-6}, "outputs in float64 differ by 1e-06 .* allowed 1e-09, so nothing is packaged"),
        ("outputs", {"stored": 0.5}, "outputs as stored differ by 0.5 "),
        ("outputs", {"stored": float("nan")}, "outputs as stored differ by nan "),
        ("largest", {"difference": 0.5}, "tensor .* differ by 0.5 "),
        ("tolerances", {"stored": 0.0, "float64": 0.0, "tensors": -1.0}, "allowed -"),
    ],
)
def test_a_certificate_over_its_own_tolerances_is_refused_in_a_sentence(certificate, key, values, says, tmp_path):
    path = put(tmp_path, changed(certificate, key, **values))
    with pytest.raises(FoldError, match=says) as raised:
        read(tmp_path, [path.parent.name])
    assert str(raised.value).endswith(f"Delete {path.parent} and run again to repeat the stage.")


def test_a_certificate_at_its_tolerance_passes(certificate):
    scale = certificate["outputs"]["scale"]
    check(changed(certificate, "outputs", stored=certificate["tolerances"]["stored"] * scale), Path())


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"version": 1}', '{"version": 1, "outputs": 3, "largest": 1, "tolerances": []}']
)
def test_what_is_no_certificate_is_refused_in_a_sentence(content, certificate, tmp_path):
    path = put(tmp_path, certificate)
    path.write_text(content)
    with pytest.raises(FoldError, match=r"fold\.json is no certificate \(.*\)\. Delete "):
        read(tmp_path, [path.parent.name])


def test_a_certificate_of_another_version_is_refused(certificate, tmp_path):
    path = put(tmp_path, {**certificate, "version": 2})
    with pytest.raises(FoldError, match=r"has version 2, expected 1\. Delete "):
        read(tmp_path, [path.parent.name])


def test_a_certificate_that_was_changed_after_it_was_written_is_refused(certificate, tmp_path):
    path = put(tmp_path, certificate)
    path.write_text(json.dumps(changed(certificate, "outputs", rows=65)))
    with pytest.raises(FoldError, match="was changed after its step had written it"):
        read(tmp_path, [path.parent.name])
    path.unlink()
    with pytest.raises(FoldError, match="is no certificate"):
        read(tmp_path, [path.parent.name])


def test_the_page_and_the_card_say_one_sentence_per_certificate(block):
    other = {**block, "stage": 3, "method": "weight_distillation"}
    report = {"version": REPORT_VERSION, "status": "ok", "inheritance": [block, other]}
    for text in (html(report), model_card(report)):
        assert (
            f"Stage 1 ({METHOD}) folded exactly: largest difference of a tensor {block['largest']['difference']:.2g}"
            in text
        )
        assert f"({block['largest']['tensor']}), of the outputs on {N_ROWS} rows of real text" in text
        assert "Stage 3 (weight_distillation) folded exactly" in text
    for text in (html({**report, "inheritance": []}), model_card({**report, "inheritance": []})):
        assert "folded" not in text and "Weights made" not in text


def test_the_manifest_keeps_two_digits_of_every_tensor(block):
    (kept,) = manifest_block([block])
    assert kept["tensors"].keys() == block["tensors"].keys() and len(kept["tensors"]) > 10
    assert all(kept["tensors"][name] == pytest.approx(value, rel=0.051) for name, value in block["tensors"].items())
    assert all(len(f"{value:g}".replace(".", "").partition("e")[0]) <= 2 for value in kept["tensors"].values())
    assert kept["outputs"]["rows"] == N_ROWS and kept["tolerances"] == block["tolerances"]
    assert told([kept]) == [sentence(block)]


@pytest.mark.parametrize("foreign", [None, "yes", 3, {}, [1], [{}], [{"stage": 1, "largest": {}}]])
def test_a_block_that_is_not_understood_is_passed_over(foreign):
    assert told(foreign) == []


@pytest.mark.parametrize(
    ("kind", "model_type", "options"),
    [("embedding", "bert", {}), *product(["classification"], MODEL_TYPES, ({}, ALL_MAPPED, {"tables": "student"}))],
)
def test_the_bytes_of_a_certificate_are_predicted_within_a_tenth(kind, model_type, options):
    found = {"stage": 1, "method": METHOD, **certificate_of(kind, model_type, options)}
    config = context_of(kind, model_type=model_type).student.config.to_dict()
    shape = shape_of(config, 3 if kind == "classification" else 0)
    stages = [resolve(StageSection(method=METHOD, options=options)), resolve(StageSection(method="distill"))]
    once, per_layer = fold_certificates.predicted_bytes(stages, model_type, shape)
    n_empty, n_bytes = (
        len(json.dumps({"inheritance": manifest_block(each)}, indent=2)) + len(model_card({"inheritance": each}))
        for each in ([], [found])
    )
    assert once + per_layer * shape.layers == pytest.approx(n_bytes - n_empty, rel=0.1)


@pytest.mark.parametrize("method", [METHOD, "weight_distillation", "weight_inheritance"])
def test_of_every_method_the_number_of_certified_tensors_is_predicted(method):
    names = fold_certificates.tensor_names(family_of("bert"), 2, 2, build_options(method, {}))
    assert len(names) == len(certificate_of(method=method)["tensors"])


def test_a_recipe_without_a_fold_predicts_no_bytes_for_it():
    shape = shape_of(context_of().student.config.to_dict(), 3)
    assert fold_certificates.predicted_bytes([resolve(StageSection(method="distill"))], "bert", shape) == (0, 0)


def test_a_package_with_a_certificate_opens_and_verify_repeats_it(block, tmp_path):
    info = dataclasses.replace(write_parts("classification", tmp_path), inheritance=manifest_block([block]))
    cases = make_cases(tmp_path / "model.onnx", tmp_path, info, TEXTS)
    package = write_package(tmp_path / "model.onnx", tmp_path, {}, info, cases, "", tmp_path / "package")
    assert runtime.load(package).manifest["inheritance"] == manifest_block([block])
    assert verify_package(package)["inheritance"] == [sentence(block)]
    plain = dataclasses.replace(info, inheritance=())
    without = write_package(tmp_path / "model.onnx", tmp_path, {}, plain, cases, "", tmp_path / "without")
    assert runtime.load(without).manifest["inheritance"] == []
    assert "inheritance" not in verify_package(without)


@pytest.fixture(scope="module")
def recipe(tiny_teacher_dir, tiny_rows):
    stages = [{"method": METHOD, "epochs": 1}, {"method": "distill", "epochs": 1}]
    return make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages)


@pytest.fixture(scope="module")
def done(recipe, tmp_path_factory) -> Outcome:
    return compress(recipe, tmp_path_factory.mktemp("run") / "out")


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return Path(shutil.copytree(done.report_path.parent, tmp_path / "out"))


@pytest.mark.slow
def test_a_run_tells_its_certificate_everywhere(done):
    (told_in_report,) = json.loads(done.report_path.read_text(encoding="utf-8"))["inheritance"]
    path = done.report_path.parent / "steps" / f"train-1-{METHOD}" / FILE
    assert told_in_report == {"stage": 1, "method": METHOD, **json.loads(path.read_text(encoding="utf-8"))}
    assert told_in_report["outputs"]["rows"] == 60  # all evaluation rows there are
    text = sentence(told_in_report)
    assert text in done.report_path.with_suffix(".html").read_text(encoding="utf-8")
    assert f"- {text}\n" in (done.package_dir / "README.md").read_text(encoding="utf-8")
    package = runtime.load(done.package_dir)
    assert package.manifest["inheritance"] == manifest_block([told_in_report])
    assert package.predict("a wonderful film").label in ("negative", "positive")
    (line,) = [line for line in done.lines() if line.startswith("folded ")]
    largest = told_in_report["largest"]["difference"]
    assert line.startswith(f"folded    {METHOD}: tensors within {largest:.2g}, outputs within ")


@pytest.mark.slow
def test_the_size_of_a_package_with_a_certificate_is_predicted(done):
    """Within the two per cent of packages as small as this one, of which the certificate is more than two."""
    n_bytes = package_bytes(done.package_dir)
    block = json.dumps(runtime.load(done.package_dir).manifest["inheritance"], indent=2)
    assert len(block) > 0.02 * n_bytes
    assert sum(done.report["size"]["predicted"].values()) == pytest.approx(n_bytes, rel=0.02)


@pytest.mark.slow
def test_two_runs_certify_the_same(done, recipe, tmp_path):
    again = compress(recipe, tmp_path / "elsewhere")
    assert files_of(again.package_dir) == files_of(done.package_dir)
    assert again.report["inheritance"] == done.report["inheritance"]


@pytest.mark.slow
def test_a_run_without_such_a_stage_has_an_empty_block(tiny_teacher_dir, tiny_rows, tmp_path):
    stages = [{"method": "distill", "epochs": 1}]
    outcome = compress(make_recipe(tiny_teacher_dir, tiny_rows.train, tiny_rows.dev, stage=stages), tmp_path / "out")
    assert json.loads(outcome.report_path.read_text(encoding="utf-8"))["inheritance"] == []
    assert runtime.load(outcome.package_dir).manifest["inheritance"] == []
    assert not [line for line in outcome.lines() if line.startswith("folded")]


def spoil(path: Path) -> None:
    """Let a certificate say 9 where it said less, in as many bytes: steps are told apart by their files' sizes."""
    text = path.read_text(encoding="utf-8")
    value = str(json.loads(text)["outputs"]["stored"])
    position = text.index(f'"stored": {value}') + len('"stored": ')
    path.write_text(text[:position] + "9" * len(value) + text[position + len(value) :], encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["verify", "package"])
def test_a_certificate_over_tolerance_is_not_packaged(step, recipe, copy):
    """As in a run that was ended before ``step``, and changed by hand, in as many bytes."""
    path = copy / "steps" / f"train-1-{METHOD}" / FILE
    for name in {"verify": ("verify", "package"), "package": ("package",)}[step]:
        shutil.rmtree(copy / "steps" / name)
    for name in ("package", "package.zip", "report.json", "report.html"):
        (shutil.rmtree if (copy / name).is_dir() else Path.unlink)(copy / name)
    spoil(path)
    before = set(copy.iterdir())
    with pytest.raises(FoldError, match=r"outputs as stored differ by .*, so nothing is packaged\. Delete "):
        compress(recipe, copy)
    assert set(copy.iterdir()) == before
    assert not (copy / "steps" / step).exists()


@pytest.mark.slow
def test_a_finished_run_with_a_spoiled_certificate_is_not_delivered_again(recipe, copy, tmp_path):
    spoil(copy / "steps" / f"train-1-{METHOD}" / FILE)
    before = files_of(copy)
    with pytest.raises(FoldError, match="so nothing is packaged"):
        compress(recipe, copy)
    assert files_of(copy) == before
    with pytest.raises(FoldError, match="so nothing is packaged"):
        make_package(copy, tmp_path / "package")
    assert not (tmp_path / "package").exists() and not (tmp_path / "package.zip").exists()


@pytest.mark.slow
def test_a_certificate_of_another_length_repeats_its_stage(recipe, copy, done):
    """The journal sees that the step is not as it was written, does it again, and all is as before."""
    path = copy / "steps" / f"train-1-{METHOD}" / FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(changed(content, "outputs", stored=0.5)), encoding="utf-8")
    said: list[str] = []
    outcome = compress(recipe, copy, echo=said.append)
    assert f"train-1-{METHOD}: done before" not in said and "train-2-distill: done before" in said
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert files_of(outcome.package_dir) == files_of(done.package_dir)

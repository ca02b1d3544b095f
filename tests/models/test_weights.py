"""Weights that are not those of the model: what does not fit is refused with its cause, whatever reads it."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from compressor.models.teacher import TeacherInfo, check_tensors, load_model, read_teacher
from compressor.recipe.sections import TeacherSection
from compressor.run.finetune import load_classifier
from exporters.to_onnx import export_model
from exporters.weights import open_model, wrapper_of
from tests.support.method_cases import MODEL_TYPES, tiny_config, tiny_model
from tests.support.tiny import tiny_tokenizer

Tensors = dict[str, torch.Tensor]


def layer_of(number: int, tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if f"layer.{number}." in name}


def without(tensors: Tensors, word: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if word not in name}


def surplus(tensors: Tensors) -> Tensors:
    more = {name.replace("layer.1.", "layer.2."): tensor.clone() for name, tensor in layer_of(1, tensors).items()}
    return {**tensors, **more}


def cut(tensors: Tensors, word: str) -> Tensors:
    return {name: tensor[:-1].clone() if word in name else tensor for name, tensor in tensors.items()}


def distances(tensors: Tensors) -> Tensors:
    name = next(iter(layer_of(0, tensors))).partition("layer.0.")[0]
    return {**tensors, f"{name}layer.0.attention.self.distance_embedding.weight": torch.zeros(9, 4)}


# What is wrong, and what the sentence says of it: twelve kinds.
WRONG: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "no head": (lambda all_: without(all_, "classifier"), r"lack \d tensors .* on top of the encoder are not there"),
    "half a head": (lambda all_: without(all_, "classifier.bias" if "classifier.bias" in all_ else "out_proj.bias"),
                    r"lack \d tensors .* on top of the encoder are not there"),
    "a layer too few": (lambda all_: without(all_, "layer.1."), r"lack \d+ tensors .* layer 1, counted from 0, is not"),
    "a layer too many": (surplus, r"hold beside the model \d+ tensors .* the file has layer 2, counted from 0"),
    "a tensor lost": (lambda all_: without(without(all_, "0.attention.output.dense.bias"), "0.attention.out_lin.bias"),
                      r"lack 1 tensors .* layer 0, counted from 0, is not whole"),
    "no positions": (lambda all_: without(all_, "position_embeddings"), r"lack 1 tensors .* of another kind"),
    "positions of another kind": (distances, r"beside the model 1 tensors .* positions are of another kind"),
    "fewer positions": (lambda all_: cut(all_, "position_embeddings"), r"hold .*position_embeddings.weight of 63x"),
    "another width": (lambda all_: cut(all_, "layer.1.output.dense.bias" if any("output.dense" in n for n in all_)
                                       else "layer.1.ffn.lin2.bias"), r"hold .* of 15, config.json says 16"),
    "no embeddings": (lambda all_: without(all_, "embeddings."), r"lack \d+ tensors \(.*embeddings"),
    "an unknown wrapper": (lambda all_: {f"student.net.{name}": tensor for name, tensor in all_.items()},
                           r"names begin with 'student.net.', so a wrapper was saved"),
    "another model's": (lambda all_: {f"blocks.{n}": tensor for n, tensor in enumerate(all_.values())},
                        r"they are not of the \w+ForSequenceClassification that config.json describes"),
}  # fmt: skip


def checkpoint(folder: Path, model_type: str, change: Callable[[Tensors], Tensors] = lambda all_: all_) -> Path:
    """Save a tiny classifier of two layers whose tensors were changed."""
    tokenizer = tiny_tokenizer()
    config = tiny_config(model_type, len(tokenizer), 16, 2, 3, max_position_embeddings=64)
    tiny_model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors = change(load_file(folder / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    return folder


def info_of(folder: Path) -> TeacherInfo:
    return read_teacher(TeacherSection(path=str(folder)))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("wrong", WRONG)
def test_weights_that_do_not_fit_are_refused_with_the_cause(model_type: str, wrong: str, tmp_path: Path) -> None:
    change, sentence = WRONG[wrong]
    folder = checkpoint(tmp_path / "model", model_type, change)
    with pytest.raises(ValueError, match=sentence):
        check_tensors(info_of(folder))
    with pytest.raises(ValueError, match=f"export: .*{sentence}"):
        export_model(folder, tmp_path / "model.onnx", "classification", 32)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_weights_that_fit_are_read_as_they_are(model_type: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", model_type)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    ours = load_model(info_of(folder)).state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in theirs)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "_orig_mod.module."])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_names_of_a_wrapper_are_taken_off_and_that_is_said(
    model_type: str, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load_model(info_of(checkpoint(tmp_path / "plain", model_type))).state_dict()
    folder = checkpoint(
        tmp_path / "model", model_type, lambda all_: {prefix + name: tensor for name, tensor in all_.items()}
    )
    with caplog.at_level(logging.WARNING, "exporters.weights"):
        found = load_model(info_of(folder)).state_dict()
    assert f"begin with {prefix!r}, which is taken off" in caplog.text
    assert all(torch.equal(plain[name], found[name]) for name in plain)


def test_only_what_all_names_begin_with_is_a_wrapper() -> None:
    assert wrapper_of(["module.a", "module.b"]) == "module."
    assert wrapper_of(["module.a", "b"]) == "" and wrapper_of([]) == ""
    assert wrapper_of(["_orig_mod.module.a"]) == "_orig_mod.module."


@pytest.mark.parametrize("name", ["cls.predictions.bias", "bert.embeddings.position_ids", "lm_head.weight"])
def test_heads_of_pretraining_and_numbers_that_are_made_again_may_be_left_over(name: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", "bert", lambda all_: {**all_, name: torch.zeros(3)})
    check_tensors(info_of(folder))


def test_an_encoder_leaves_heads_of_tasks_and_nothing_else(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", "bert")
    opened = open_model(AutoModel, folder, is_encoder=True, add_pooling_layer=False)
    assert not opened.missing
    folder = checkpoint(tmp_path / "colbert", "bert", lambda all_: {**all_, "linear.weight": torch.zeros(8, 16)})
    with pytest.raises(ValueError, match=r"beside the model 1 tensors \(linear.weight\)"):
        open_model(AutoModel, folder, is_encoder=True, add_pooling_layer=False)


def test_a_model_to_fine_tune_may_lack_its_head_but_no_layer(tmp_path: Path) -> None:
    headless = checkpoint(tmp_path / "headless", "bert", lambda all_: without(without(all_, "classifier"), "pooler"))
    load_classifier(headless, info_of(headless))
    broken = checkpoint(tmp_path / "broken", "bert", lambda all_: without(all_, "layer.1."))
    with pytest.raises(ValueError, match=r"model: the weights .* lack 16 tensors"):
        load_classifier(broken, info_of(broken))


def test_flags_of_a_configuration_that_change_what_a_call_returns_change_nothing(tmp_path: Path) -> None:
    folder, odd = checkpoint(tmp_path / "plain", "bert"), tmp_path / "odd"
    shutil.copytree(folder, odd)
    config = json.loads((odd / "config.json").read_text(encoding="utf-8"))
    flags = {"return_dict": False, "output_attentions": True, "output_hidden_states": True, "torchscript": True}
    (odd / "config.json").write_text(json.dumps({**config, **flags}), encoding="utf-8")
    plain, said = info_of(folder), info_of(odd)
    assert plain.config == said.config
    ids = torch.tensor([[2, 7, 3]])
    ours, theirs = (load_model(info)(input_ids=ids) for info in (plain, said))
    assert torch.equal(ours.logits, theirs.logits) and theirs.attentions is None
    for name, each in (("plain", folder), ("odd", odd)):
        export_model(each, tmp_path / f"{name}.onnx", "classification", 32)
    assert (tmp_path / "plain.onnx").read_bytes() == (tmp_path / "odd.onnx").read_bytes()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"is_decoder": True}, "is a decoder .* expected an encoder, whose tokens see all"),
        ({"add_cross_attention": True}, "is a decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key', expected 'absolute'"),
        ({"pruned_heads": {"0": [1]}}, "has pruned heads"),
        ({"quantization_config": {"load_in_8bit": True}}, "holds weights in fewer bits"),
        ({"model_type": "deberta"}, r"architecture 'deberta' is not supported, [^?]*$"),
        ({"model_type": "berta"}, r"Did you mean 'bert'\?"),
    ],
)
def test_a_configuration_of_another_model_is_refused_by_name(changes: dict, sentence: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", "bert")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    with pytest.raises(ValueError, match=sentence):
        info_of(folder)


def test_an_adapter_is_refused_also_beside_a_whole_model(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", "bert")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    for name in ("whole", "alone"):
        if name == "alone":
            (folder / "config.json").unlink()
            (folder / "model.safetensors").unlink()
        with pytest.raises(ValueError, match=r"holds an adapter .* Merge it first .*merge_and_unload"):
            info_of(folder)

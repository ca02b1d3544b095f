"""Every supported family, with a tokenizer of its own kind, goes from a tiny teacher to an opened package."""

from pathlib import Path

import pytest
import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from compressor.recipe.recipe import from_dict
from compressor.run.compress import compress
from edge_demo import runtime
from tests.support.vocab_teachers import CORPUS, teacher

NUMBERS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 66, "num_labels": 2,
}  # fmt: skip


def make_model(kind: str, vocab_size: int, pad_id: int) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "distilbert":
        config = DistilBertConfig(
            vocab_size=vocab_size, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=66,
            num_labels=2, pad_token_id=pad_id,
        )  # fmt: skip
        return DistilBertForSequenceClassification(config)
    numbers = {**NUMBERS, "vocab_size": vocab_size, "pad_token_id": pad_id}
    if kind == "electra":
        return ElectraForSequenceClassification(ElectraConfig(**numbers, embedding_size=12))
    if kind == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**numbers, type_vocab_size=1))
    return XLMRobertaForSequenceClassification(XLMRobertaConfig(**numbers, type_vocab_size=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "tokenizer_name", "size"),
    [("distilbert", "bert", 650), ("electra", "bert", 650), ("roberta", "roberta", 500), ("xlm-roberta", "xlmr", 650)],
)
def test_a_teacher_of_the_family_becomes_a_package(kind: str, tokenizer_name: str, size: int, tmp_path: Path) -> None:
    tokenizer = teacher(tokenizer_name)
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    is_bert = tokenizer_name == "bert"
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if is_bert else ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **dict(zip(names, special, strict=True))
    )
    model = make_model(kind, tokenizer.get_vocab_size(), tokenizer.token_to_id(special[0]))
    model.save_pretrained(tmp_path / "teacher")
    wrapped.save_pretrained(tmp_path / "teacher")
    for name, lines in (("train", CORPUS[:120]), ("dev", CORPUS[120:160])):
        rows = [f"{line}\t{index % 2}" for index, line in enumerate(lines)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")
    recipe = from_dict(
        {
            "teacher": {"path": str(tmp_path / "teacher")},
            "data": {"train": str(tmp_path / "train.tsv"), "eval": str(tmp_path / "dev.tsv")},
            "vocab": {"size": size},
            "student": {"hidden": 16, "layers": 1},
            "stage": [{"method": "distill", "epochs": 1.0}],
            "measure": {"runs": 3, "baselines": False},
        }
    )
    outcome = compress(recipe, tmp_path / "out")
    assert outcome.report["vocabulary"]["newly_unknown_texts"] == 0
    assert outcome.report["vocabulary"]["student_size"] == size
    assert abs(outcome.report["size"]["total"] - sum(outcome.report["size"]["predicted"].values())) < 12_000
    assert runtime.load(outcome.package_dir).predict("the film is wonderful").label in ("LABEL_0", "LABEL_1")

"""Shared fixtures: tiny real models and tokenizers, made from a seed in a second or two; no network, one thread."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from exporters.measuring import telemetry
from tests.support.tiny import LABELS, TinyRows, make_rows, teach, tiny_config, tiny_tokenizer

# Before anything imports torch or a Hugging Face library.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
telemetry.switch_off()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="tenmeg-tests-")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed() -> None:
    """Dropout and fresh weights must not depend on which tests ran before in the same process."""
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> TinyRows:
    """300 training and 60 evaluation rows."""
    folder = tmp_path_factory.mktemp("rows")
    for name, n_rows, seed in (("train", 300, 0), ("dev", 60, 1)):
        lines = [f"{text}\t{label}" for text, label in make_rows(n_rows, seed)]
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    return TinyRows(folder / "train.tsv", folder / "dev.tsv")


@pytest.fixture(scope="session")
def tiny_teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer BERT of width 32 that has learned to tell the two labels of ``tiny_rows`` apart."""
    import torch
    from transformers import BertForSequenceClassification

    folder = tmp_path_factory.mktemp("tiny") / "teacher"
    tokenizer = tiny_tokenizer()
    names = dict(enumerate(LABELS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = tiny_config(len(tokenizer), id2label=names, label2id={name: i for i, name in names.items()})
        model = BertForSequenceClassification(config).train()
        teach(model, tokenizer)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder of the same size, saved as sentence-transformers does: mean pooling, length one."""
    import torch
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("tiny") / "encoder"
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(tiny_config(len(tokenizer))).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    pooling = {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir()
    (folder / "modules.json").write_text(json.dumps(modules, indent=2), encoding="utf-8")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 64, "do_lower_case": false}', encoding="utf-8"
    )
    return folder

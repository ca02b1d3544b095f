"""Shared fixtures: tiny real models and tokenizers, made from a seed in a second or two; no network, one thread."""

import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

# Before anything imports torch or a Hugging Face library.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="tenmeg-tests-")

LABELS = ("negative", "positive")
THINGS = (
    "film",
    "movie",
    "story",
    "plot",
    "cast",
    "camera",
    "music",
    "ending",
    "dialogue",
    "director",
    "script",
    "thriller",
)
GOOD = (
    "wonderful",
    "delightful",
    "moving",
    "clever",
    "charming",
    "brilliant",
    "touching",
    "funny",
    "honest",
    "gripping",
)
BAD = ("dull", "tedious", "clumsy", "awful", "boring", "shallow", "lifeless", "bland", "messy", "pointless", "grating")
OPENINGS = ("the", "this", "its", "every", "a rather long", "that old")
LINKS = ("is", "was", "feels", "turns out", "remains", "seems truly")
CLOSINGS = (
    "",
    " from start to finish",
    ", as so often",
    " and I said so",
    "!",
    " in spite of the 1990s look",
    " for once",
)


class TinyRows(NamedTuple):
    """Two tab-separated files with the columns sentence and label (0 negative, 1 positive)."""

    train: Path
    dev: Path


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


def make_rows(n_rows: int, seed: int) -> list[tuple[str, int]]:
    """Return sentences whose adjective says their label, alternating between the labels."""
    rng = random.Random(seed)
    rows = []
    for index in range(n_rows):
        label = index % 2
        word = rng.choice(GOOD if label else BAD)
        sentence = f"{rng.choice(OPENINGS)} {rng.choice(THINGS)} {rng.choice(LINKS)} {word}{rng.choice(CLOSINGS)}"
        rows.append((sentence, label))
    return rows


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> TinyRows:
    """300 training and 60 evaluation rows."""
    folder = tmp_path_factory.mktemp("rows")
    for name, n_rows, seed in (("train", 300, 0), ("dev", 60, 1)):
        lines = [f"{text}\t{label}" for text, label in make_rows(n_rows, seed)]
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    return TinyRows(folder / "train.tsv", folder / "dev.tsv")


def tiny_tokenizer():
    """Return a transformers tokenizer: a WordPiece of at most 400 tokens trained on the rows."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((text for text, _ in make_rows(300, 0)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **dict(zip(names, special, strict=True)),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def tiny_config(vocab_size: int, **more):
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        attn_implementation="eager",
        **more,
    )


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
        _teach(model, tokenizer)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _teach(model, tokenizer) -> None:
    import torch

    rows = make_rows(300, 0)
    batch = dict(tokenizer([text for text, _ in rows], padding=True, return_tensors="pt"))
    labels = torch.tensor([label for _, label in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(30):
        part = slice(step % 3 * 100, step % 3 * 100 + 100)
        loss = model(**{name: tensor[part] for name, tensor in batch.items()}, labels=labels[part]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


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

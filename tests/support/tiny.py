"""Tiny real rows, tokenizers and models, made from a seed in a second or two."""

import random
from pathlib import Path
from typing import NamedTuple

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


def teach(model, tokenizer) -> None:
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


MOODS = {"anger": BAD[:5], "calm": GOOD[:5], "joy": GOOD[5:], "sadness": BAD[5:]}


def make_moods(n_rows: int, seed: int) -> list[tuple[str, list[str]]]:
    """Return sentences with the moods that their adjectives say: none to three of four."""
    rng = random.Random(seed)
    rows = []
    for _ in range(n_rows):
        moods = sorted(rng.sample(sorted(MOODS), rng.choice((0, 1, 1, 2, 3))))
        words = [rng.choice(MOODS[mood]) for mood in moods]
        rows.append((f"{rng.choice(OPENINGS)} {rng.choice(THINGS)} {rng.choice(LINKS)} {' and '.join(words)}", moods))
    return rows

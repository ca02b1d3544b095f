"""A tiny teacher and rows out of a seed: real files for the benchmarks of failures, made in seconds, no network.

The teacher is a BERT of two layers that has learned to tell the two labels of :func:`make_rows` apart; the sentences
are built from word lists, so that they can be as many as a run should take long. Beside it is one that answers any
number of ``EMOTIONS``, with random weights.
"""

import random
import re
from pathlib import Path
from typing import Any, NamedTuple

LABELS = ("negative", "positive")
EMOTIONS = ("anger", "joy", "sadness", "surprise")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = {
    "opening": ["the", "this", "its", "every", "a rather long", "that old", "such a", "their second"],
    "thing": [
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
        "comedy",
        "scene",
    ],
    "link": ["is", "was", "feels", "turns out", "remains", "seems truly", "never stops being"],
    "good": [
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
        "warm",
    ],
    "bad": [
        "dull",
        "tedious",
        "clumsy",
        "awful",
        "boring",
        "shallow",
        "lifeless",
        "bland",
        "messy",
        "pointless",
        "grating",
    ],
    "closing": [
        "",
        " from start to finish",
        ", as so often",
        " and I said so",
        "!",
        " in spite of the 1990s look",
        " for once",
    ],
}


class Tiny(NamedTuple):
    """Folders of teachers and two tab-separated files with the columns sentence and label (0 negative, 1 positive)."""

    teacher: Path
    train: Path
    dev: Path
    several: Path  # a teacher of several labels a row


def make_tiny(folder: Path, n_train: int = 300, n_dev: int = 60) -> Tiny:
    """Write teachers and rows below ``folder``; the same numbers write the same bytes."""
    tiny = Tiny(folder / "teacher", folder / "train.tsv", folder / "dev.tsv", folder / "several")
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(tiny.train, make_rows(n_train, seed=0))
    write_rows(tiny.dev, make_rows(n_dev, seed=1))
    make_teacher(tiny.teacher)
    names = dict(enumerate(EMOTIONS))
    ids = {name: index for index, name in names.items()}
    kind = "multi_label_classification"
    save_model(tiny.several, "bert", len(EMOTIONS), id2label=names, label2id=ids, problem_type=kind)
    return tiny


def make_rows(n_rows: int, seed: int) -> list[tuple[str, int]]:
    """Return sentences whose adjective says their label, alternating between the labels."""
    draw = random.Random(seed)
    rows = []
    for index in range(n_rows):
        kind = "good" if index % 2 else "bad"
        opening, thing, link, word, closing = (
            draw.choice(WORDS[name]) for name in ("opening", "thing", "link", kind, "closing")
        )
        rows.append((f"{opening} {thing} {link} {word}{closing}", index % 2))
    return rows


def write_rows(path: Path, rows: list[tuple[str, int]]) -> None:
    """Write a .tsv with a header."""
    lines = [f"{text}\t{label}" for text, label in rows]
    path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")


def make_teacher(folder: Path) -> None:
    """Save a BERT of width 32 that knows the labels, with its WordPiece tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = _tokenizer()
    names = dict(enumerate(LABELS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64, attn_implementation="eager",
            id2label=names, label2id={name: index for index, name in names.items()},
        )  # fmt: skip
        model = BertForSequenceClassification(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for step in range(30):
            rows = make_rows(100, seed=step % 3)
            batch = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
            loss = model(**batch, labels=torch.tensor([label for _, label in rows])).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_model(
    folder: Path, model_type: str, n_labels: int, *, hidden: int = 32, layers: int = 2, **more: Any
) -> None:  # Any: whatever a configuration says
    """Save a model of a family with random weights and the same tokenizer; without labels it is the bare encoder.

    ``more`` is said in its config.json.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    tokenizer = _tokenizer()
    spelled = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    if model_type == "distilbert":
        spelled = ("dim", "n_layers", "n_heads", "hidden_dim")
    numbers: dict[str, Any] = dict(zip(spelled, (hidden, layers, 2, 2 * hidden), strict=True))
    numbers |= {"embedding_size": 24} if model_type == "electra" else {}
    config = AutoConfig.for_model(
        model_type, vocab_size=len(tokenizer), max_position_embeddings=66, num_labels=max(n_labels, 1),
        pad_token_id=0, initializer_range=0.1, **numbers, **more,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(n_labels)
        auto = AutoModelForSequenceClassification if n_labels else AutoModel
        auto.from_config(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:  # a transformers.PreTrainedTokenizerFast, not imported before it is needed
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # Not trained: the trainer of tokenizers breaks ties by chance.
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted({word for text, _ in make_rows(1000, seed=0) for word in re.findall("[a-z0-9]{2,}", text)})
    pieces = sorted({f"##{word[place:]}" for word in words for place in (1, 2, 3) if len(word) > place + 1})
    continuing = [f"##{character}" for character in characters if character.isalnum()]
    tokens = [*SPECIAL, *characters, *continuing, *words, *pieces]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **dict(zip(roles, SPECIAL, strict=True)),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )

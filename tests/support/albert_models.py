"""A tiny ALBERT that can tell the two labels of ``conftest.make_rows`` apart, with its Unigram tokenizer."""

from pathlib import Path

from tests.support.tiny import LABELS, make_rows


def albert_tokenizer(vocab_size: int = 300):
    """Return a transformers tokenizer: ALBERT's pipeline around a Unigram vocabulary trained on the rows."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import AlbertTokenizer

    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator((text for text, _ in make_rows(300, 0)), trainer)
    scores = dict.fromkeys(trained.get_vocab(), -10.0)
    pieces = sorted(scores, key=trained.token_to_id)
    return AlbertTokenizer(vocab=[(piece, 0.0 if piece in special else -10.0) for piece in pieces], model_max_length=48)


def albert_config(vocab_size: int, **more):
    from transformers import AlbertConfig

    return AlbertConfig(
        vocab_size=vocab_size, embedding_size=16, hidden_size=64, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=160, max_position_embeddings=48, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **more,
    )  # fmt: skip


def make_albert(folder: Path, **more) -> Path:
    """Save a trained classifier with its tokenizer in ``folder`` and return it."""
    import torch
    from transformers import AlbertForSequenceClassification

    tokenizer = albert_tokenizer()
    names = dict(enumerate(LABELS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = albert_config(len(tokenizer), id2label=names, label2id={name: i for i, name in names.items()}, **more)
        model = AlbertForSequenceClassification(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        rows = make_rows(300, 0)
        for step in range(30):
            part = rows[step % 6 * 50 : step % 6 * 50 + 50]
            batch = tokenizer([text for text, _ in part], padding=True, return_tensors="pt")
            loss = model(**batch, labels=torch.tensor([label for _, label in part])).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

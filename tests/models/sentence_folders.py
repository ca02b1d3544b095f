"""Folders that sentence-transformers itself saves, of a tiny BERT, and changes of them as people make them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.tiny import tiny_config, tiny_tokenizer

MAIN, SETTINGS = "config_sentence_transformers.json", "sentence_bert_config.json"
LONG = (
    "the film is wonderful and the story is dull and the plot was gripping and the music never stops being awful, as "
    "so often, and I said so"
)
TEXTS = ["The film is Wonderful", LONG, "a", "Ünïcode Straße", LONG.upper(), "x  y 😀 z"]


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def edit_list(file: Path, index: int, **changes: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    content[index] |= changes
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def plain_bert(folder: Path) -> Path:
    """A BERT without a head, as transformers saves it."""
    import torch
    from transformers import BertModel

    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(tiny_config(len(tokenizer), initializer_range=0.2)).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoder(plain: Path, folder: Path, pooling: Any = "mean", *, normalize: bool = True, dense: bool = False) -> Path:
    """A sentence encoder as the installed sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    modules = [Transformer(str(plain)), Pooling(32, pooling)]
    modules += [Dense(32, 16)] if dense else []
    modules += [Normalize()] if normalize else []
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def scorer(plain: Path, folder: Path, n_labels: int = 1, activation: Any = None) -> Path:
    """A CrossEncoder as the installed sentence-transformers saves it; its head is drawn."""
    import torch
    from sentence_transformers import CrossEncoder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CrossEncoder(str(plain), num_labels=n_labels, device="cpu", activation_fn=activation)
    model.save_pretrained(str(folder))
    return folder


def keeps_case(folder: Path) -> None:
    """Let the tokenizer tell upper from lower case."""
    normalizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["normalizer"]
    edit_json(folder / "tokenizer.json", normalizer=normalizer | {"lowercase": False, "strip_accents": False})


def lower_cased(folder: Path) -> None:
    """A tokenizer that keeps case, and sentence-transformers told to lower it."""
    keeps_case(folder)
    edit_json(folder / SETTINGS, do_lower_case=True)


def moved(folder: Path, name: str = "0_Transformer") -> None:
    """Put the model into a folder of its own, as before 2021."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name not in ("modules.json", MAIN)]
    (folder / name).mkdir()
    for path in paths:
        shutil.move(path, folder / name / path.name)
    edit_list(folder / "modules.json", 0, path=name)


def limit_in(name: str, limit: int = 12) -> Callable[[Path], None]:
    """Return what writes the limit into another file than the usual one."""

    def change(folder: Path) -> None:
        edit_json(folder / SETTINGS, max_seq_length=limit)
        (folder / SETTINGS).rename(folder / f"sentence_{name}_config.json")

    return change

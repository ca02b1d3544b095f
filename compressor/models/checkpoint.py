"""The files of a checkpoint, looked at before anything is loaded: JSON, weights and tokenizer. No torch here.

A weight file that is cut off, a shard that is missing, weights of another size than config.json says and a folder
without a tokenizer (for which transformers would make up an empty one) are refused with what to do about it.
"""

import contextlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from compressor.refused import Refused
from exporters.shape import Shape

TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model"
)  # fmt: skip
MOST_PER_BYTE = 4  # parameters in a byte of weights: twice what 4 bits hold
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"


def checkpoint_json(path: Path) -> Any:  # any JSON value
    """Return the content of one of the checkpoint's JSON files."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Refused(f"teacher: {path} is not JSON ({error}). Download the checkpoint again.") from error


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return the tokenizer_config.json of a checkpoint; empty if it has none."""
    path = folder / "tokenizer_config.json"
    return checkpoint_json(path) if path.is_file() else {}


def truncation_side(folder: Path) -> Literal["right", "left"]:
    """Return where its tokenizer cuts a text that is too long: as tokenizer_config.json says, else tokenizer.json."""
    said = tokenizer_config(folder)
    side = said.get("truncation_side") if isinstance(said, dict) else None
    path = folder / "tokenizer.json"
    if side is None and path.is_file():
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
            side = json.loads(path.read_text(encoding="utf-8"))["truncation"]["direction"]
    side = str(side or "right").lower()  # tokenizer.json writes "Left"
    if side not in ("right", "left"):
        raise Refused(
            f"teacher: truncation_side in {folder / 'tokenizer_config.json'} is {side[:40]!r}, expected 'right' or "
            "'left'. Correct it."
        )
    return "left" if side == "left" else "right"


def cutting(config: dict[str, Any], side: str) -> dict[str, Any]:
    """Return a tokenizer_config.json that cuts on this side; the right is what none that says nothing does."""
    return config if (config.get("truncation_side") or "right") == side else {**config, "truncation_side": side}


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder that holds no tokenizer at all."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(f"teacher: {folder} holds no tokenizer. Add its tokenizer.json to the folder.")


def check_adapter(folder: Path) -> None:
    """Refuse a folder that holds an adapter, alone or beside a whole model."""
    if (folder / ADAPTER).is_file():
        raise Refused(
            f"teacher: {folder} holds an adapter ({ADAPTER}), expected a whole model: its weights are a change of "
            "another model's. Merge it first (peft: model.merge_and_unload(), then save_pretrained into a new folder), "
            f"or delete {ADAPTER} if the model beside it is meant without it."
        )


def check_weights(folder: Path, shape: Shape, allow_pickle: bool) -> None:
    """Refuse weights that are not there, not whole, pickled, or of another size than config.json says."""
    found = weight_files(folder)
    if not found:
        _check_pickles(folder, allow_pickle)
    for path in found:
        _check_words(path, shape)
    n_bytes = sum(path.stat().st_size for path in found)
    if found and shape.n_parameters > MOST_PER_BYTE * n_bytes:
        raise Refused(
            f"teacher: config.json says sizes of {shape.n_parameters:,} parameters, the weights in {folder} have "
            f"{n_bytes:,} bytes. They are not of one checkpoint; download both again."
        )


def read_embeddings(folder: Path) -> npt.NDArray[np.float32]:
    """Return the table of word embeddings (tokens, width) without loading the rest of the model.

    Raises:
        ValueError: if the folder holds no safetensors file with such a table, or one that is not of numbers.
    """
    for path in weight_files(folder):
        with _opened(path, "pt") as file:  # numpy knows no bfloat16
            for name in file.keys():  # noqa: SIM118 - not a dict
                if name.endswith("word_embeddings.weight"):
                    table = file.get_tensor(name)
                    if not table.is_floating_point():
                        raise Refused(f"teacher: {path} holds word embeddings as {table.dtype}, expected real numbers.")
                    return table.float().numpy()  # type: ignore[no-any-return]  # safetensors has no types
    raise Refused(
        f"teacher: {folder} holds no safetensors file with word embeddings, which --vocab-rule embedding compares. "
        "Save the model as safetensors (save_pretrained does), or use another --vocab-rule."
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold a checkpoint's weights; none where it has only pickles.

    Raises:
        FileNotFoundError: if the index lists a shard that is not there.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    return _shards(folder) or sorted(folder.glob("*.safetensors"))


def _check_pickles(folder: Path, allow_pickle: bool) -> None:
    pickles = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
    if pickles and not allow_pickle:
        raise Refused(
            f"teacher: {folder} holds only {pickles[0]}, a pickle that can run code when it is loaded. Save it as "
            "safetensors (save_pretrained does), or give --allow-pickle if you trust it."
        )
    if not pickles:
        raise FileNotFoundError(f"teacher: {folder} has no model.safetensors. Give a folder saved by save_pretrained.")


def _shards(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        return []
    try:
        shards = [folder / str(name) for name in sorted(set(checkpoint_json(folder / INDEX)["weight_map"].values()))]
    except (LookupError, TypeError, AttributeError) as error:
        raise Refused(f"teacher: {folder / INDEX} holds no weight_map. Download the checkpoint again.") from error
    for path in shards:
        if not path.is_file():
            raise FileNotFoundError(f"teacher: {path}, which {INDEX} lists, is missing. Download the checkpoint again.")
    return shards


def _opened(path: Path, framework: str = "np") -> Any:  # Any: a context manager without types
    """Open a safetensors file, which checks its header against its size."""
    try:
        return safe_open(path, framework=framework)
    except SafetensorError as error:
        n_bytes = f"{path.stat().st_size:,} bytes"
        what = f"is no safetensors file ({n_bytes}). It is damaged or something else"
        if "not fully covered" in str(error):
            what = f"has {n_bytes}, expected those that its header names. It is cut off"
        raise Refused(f"teacher: {path} {what}; download it again.") from error


def _check_words(path: Path, shape: Shape) -> None:
    expected = [shape.vocab_size, shape.embedding_size or shape.hidden]
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            got = file.get_slice(name).get_shape()
            if name.endswith("word_embeddings.weight") and got != expected:
                raise Refused(
                    f"teacher: {path} holds word embeddings of {' x '.join(map(str, got))}, config.json says "
                    f"{expected[0]} x {expected[1]}. They are not of one checkpoint; download both again."
                )

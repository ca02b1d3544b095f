"""The files of a checkpoint, looked at before anything is loaded: JSON, weights and tokenizer. No torch here.

A weight file that is cut off, a shard that is missing, weights of another size than config.json says and a folder
without a tokenizer (for which transformers would make up an empty one) are refused with what to do about it.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.refused import Refused
from exporters.shape import Shape

TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model"
)  # fmt: skip
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


def read_json(path: Path) -> Any:  # any JSON value
    """Return the content of one of the checkpoint's JSON files."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Refused(f"teacher: {path} is not JSON ({error}). Download the checkpoint again.") from error


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder that holds no tokenizer at all."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(f"teacher: {folder} holds no tokenizer. Add its tokenizer.json to the folder.")


def check_weights(folder: Path, shape: Shape, allow_pickle: bool) -> None:
    """Refuse weights that are not there, not whole, pickled, or of another size than the configuration."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        _check_pickles(folder, allow_pickle)
        return
    whole = [folder / "model.safetensors"] if (folder / "model.safetensors").is_file() else _shards(folder)
    for path in whole or found:
        _check_words(path, _tensors(path), shape)


def read_embeddings(folder: Path) -> npt.NDArray[np.float32]:
    """Return the table of word embeddings (tokens, width) without loading the rest of the model.

    Raises:
        ValueError: if the folder holds no safetensors file with such a table, or one in an unknown type.
    """
    whole = [folder / "model.safetensors"] if (folder / "model.safetensors").is_file() else _shards(folder)
    for path in whole or sorted(folder.glob("*.safetensors")):
        for name, entry in _tensors(path).items():
            if name.endswith("word_embeddings.weight"):
                return _read_table(path, entry)
    raise Refused(
        f"teacher: {folder} holds no safetensors file with word embeddings, which --vocab-rule embedding compares. "
        "Save the model as safetensors (save_pretrained does), or use another --vocab-rule."
    )


def _read_table(path: Path, entry: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Read one tensor by its place in the header."""
    types = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}
    if entry["dtype"] not in types:
        raise Refused(f"teacher: {path} holds word embeddings as {entry['dtype']}, expected {', '.join(types)}.")
    first, end = entry["data_offsets"]
    with path.open("rb") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + n_header + first)
        values = np.frombuffer(file.read(end - first), dtype=types[entry["dtype"]])
    if entry["dtype"] == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(entry["shape"]).astype(np.float32)


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
        shards = [folder / str(name) for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]
    except (LookupError, TypeError, AttributeError) as error:
        raise Refused(f"teacher: {folder / INDEX} holds no weight_map. Download the checkpoint again.") from error
    for path in shards:
        if not path.is_file():
            raise FileNotFoundError(f"teacher: {path}, which {INDEX} lists, is missing. Download the checkpoint again.")
    return shards


def _tensors(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: dtype, shape and place of every tensor."""
    n_bytes = path.stat().st_size
    try:
        with path.open("rb") as file:
            (n_header,) = struct.unpack("<Q", file.read(8))
            if n_header > min(n_bytes, MAX_HEADER_BYTES):
                raise ValueError("no header")
            header = json.loads(file.read(n_header))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        n_expected = 8 + n_header + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise Refused(
            f"teacher: {path} is no safetensors file ({n_bytes:,} bytes). It is damaged or something else; "
            "download it again."
        ) from error
    if n_bytes != n_expected:
        raise Refused(
            f"teacher: {path} has {n_bytes:,} bytes, expected {n_expected:,}. It is cut off; download it again."
        )
    return tensors


def _check_words(path: Path, tensors: dict[str, Any], shape: Shape) -> None:
    expected = [shape.vocab_size, shape.embedding_size or shape.hidden]
    for name, entry in tensors.items():
        if name.endswith("word_embeddings.weight") and entry.get("shape") != expected:
            got = " x ".join(map(str, entry.get("shape") or ()))
            raise Refused(
                f"teacher: {path} holds word embeddings of {got}, config.json says {expected[0]} x {expected[1]}. "
                "They are not of one checkpoint; download both again."
            )

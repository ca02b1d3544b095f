"""How a sentence encoder turns token states into one vector, as the checkpoint's own files say (torch-free).

Reads and writes the sentence-transformers layout: ``modules.json``, ``1_Pooling/config.json`` and, when the vectors are
brought to unit length, ``2_Normalize``. Modes other than mean, cls and max are refused by name.
"""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from exporters.refused import Refused

MODES = ("mean", "cls", "max")
_KEYS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


class Pooling(NamedTuple):
    """Pooling of token states; ``normalize`` brings the vector to unit length."""

    mode: Literal["mean", "cls", "max"]
    normalize: bool


class Module(NamedTuple):
    """One entry of modules.json."""

    name: str  # of its class
    path: str  # of its folder, inside the checkpoint's


def read_modules(model_dir: Path) -> list[Module] | None:
    """Return the modules of a sentence-transformers folder, or ``None`` when it has no ``modules.json``.

    Raises:
        ValueError: for a module that is not sentence-transformers' own.
    """
    modules_path = model_dir / "modules.json"
    if not modules_path.is_file():
        return None
    entries = [(str(item["type"]), str(item["path"])) for item in _json(modules_path)]
    foreign = [kind for kind, _ in entries if not kind.startswith("sentence_transformers.")]
    if foreign:
        raise Refused(
            f"teacher: modules.json asks for {', '.join(foreign)}, which is code of its own, expected modules of "
            "sentence_transformers only. Use a sentence encoder without further layers."
        )
    return [Module(kind.rsplit(".", 1)[-1], path) for kind, path in entries]


def read_pooling(model_dir: Path) -> Pooling | None:
    """Return the pooling of a sentence-transformers folder, or ``None`` when it has no ``modules.json``.

    Raises:
        ValueError: for a module or a pooling mode that is not supported.
    """
    modules = read_modules(model_dir)
    if modules is None:
        return None
    names = [module.name for module in modules]
    unknown = [name for name in names if name not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise Refused(
            f"teacher: modules.json asks for {', '.join(unknown)}, expected Transformer, Pooling and Normalize only. "
            "Use a sentence encoder without further layers."
        )
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise Refused(
            f"teacher: modules.json asks for {', '.join(names) or 'nothing'}, expected one Transformer, one Pooling "
            "and then perhaps Normalize, in this order. Use a sentence encoder of these modules."
        )
    for module in modules[2:]:
        _check_normalize(model_dir / module.path / "config.json")
    return Pooling(_read_mode(model_dir, modules[1].path), len(names) == 3)


def _read_mode(model_dir: Path, path: str) -> Literal["mean", "cls", "max"]:
    config = _json(model_dir / path / "config.json")
    asked = config.get("pooling_mode")
    if isinstance(asked, str):
        chosen = [asked]
    elif asked:
        chosen = [str(mode) for mode in asked]
    else:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        chosen = [_KEYS.get(key, key) for key in flags] or ["mean"]  # as sentence-transformers does where none is said
    if len(chosen) != 1 or chosen[0] not in MODES:
        raise Refused(
            f"teacher: {path}/config.json asks for {' and '.join(chosen)}, expected exactly one of "
            f"{', '.join(MODES)}. Use an encoder with one of these poolings."
        )
    return chosen[0]  # type: ignore[return-value]


def _check_normalize(path: Path) -> None:
    """Refuse a module that brings something else than the text's vector to unit length."""
    config = _json(path) if path.is_file() else {}
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise Refused(
                f"teacher: {path} says {key} {config[key]!r}, expected 'sentence_embedding'. Use a sentence encoder "
                "whose own vectors are brought to unit length."
            )


def write_pooling(model_dir: Path, pooling: Pooling, hidden: int, max_length: int) -> None:
    """Write the files that make ``model_dir`` open in sentence-transformers."""
    names = ["Transformer", "Pooling"] + (["Normalize"] if pooling.normalize else [])
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": index, "name": str(index), "path": paths[index], "type": f"sentence_transformers.models.{name}"}
        for index, name in enumerate(names)
    ]
    _write(model_dir / "modules.json", modules)
    _write(model_dir / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    flags: dict[str, Any] = {key: mode == pooling.mode for key, mode in _KEYS.items()}
    (model_dir / "1_Pooling").mkdir(exist_ok=True)
    _write(model_dir / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **flags})
    if pooling.normalize:
        (model_dir / "2_Normalize").mkdir(exist_ok=True)


def _json(path: Path) -> Any:  # any JSON value
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

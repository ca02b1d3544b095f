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


def read_pooling(model_dir: Path) -> Pooling | None:
    """Return the pooling of a sentence-transformers folder, or ``None`` when it has no ``modules.json``.

    Raises:
        ValueError: for a module or a pooling mode that is not supported.
    """
    modules_path = model_dir / "modules.json"
    if not modules_path.is_file():
        return None
    modules = [(str(item["type"]).rsplit(".", 1)[-1], str(item["path"])) for item in _json(modules_path)]
    unknown = [name for name, _ in modules if name not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise Refused(
            f"teacher: modules.json asks for {', '.join(unknown)}, expected Transformer, Pooling and Normalize only. "
            "Use a sentence encoder without further layers."
        )
    normalize = any(name == "Normalize" for name, _ in modules)
    pooling_dirs = [path for name, path in modules if name == "Pooling"]
    if not pooling_dirs:
        return Pooling("mean", normalize)
    config = _json(model_dir / pooling_dirs[0] / "config.json")
    asked = config.get("pooling_mode")
    chosen = [asked] if isinstance(asked, str) else [
        _KEYS.get(key, key) for key, value in config.items() if key.startswith("pooling_mode_") and value is True
    ]  # fmt: skip
    if len(chosen) != 1 or chosen[0] not in MODES:
        raise Refused(
            f"teacher: 1_Pooling/config.json asks for {', '.join(chosen) or 'nothing'}, expected exactly one of "
            f"{', '.join(MODES)}. Use an encoder with one of these poolings."
        )
    return Pooling(chosen[0], normalize)  # type: ignore[arg-type]


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

"""Open a checkpoint so that every tensor of the model is in its file, and every tensor of the file is accounted for.

transformers fills what a file lacks with random numbers, and leaves out what it does not know: a model that answers by
chance looks like any other. Here the names of a wrapper that a model was saved in (``module.``, ``_orig_mod.``,
``model.``) are taken off, and that is said; then a tensor that is missing, left over or of another size is refused with
the likely cause. ``HARMLESS`` is all that may be left over: heads of other tasks, and numbers that are made again.
"""

import atexit
import functools
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from exporters.refused import Refused

logger = logging.getLogger(__name__)

PREFIXES = ("module.", "_orig_mod.", "model.")  # of torch's DataParallel and compile, and of Lightning
# What a file may hold beside the model: heads of pretraining, and numbers that are made again.
HARMLESS = (
    r"(.*\.)?position_ids", r"cls\..*", r"lm_head\..*", r"mlm\..*", r"vocab_(transform|layer_norm|projector)\..*",
    r"(generator|discriminator)_(predictions|lm_head)\..*", r"(sop_classifier|predictions)\..*",
)  # fmt: skip
# Heads of tasks; an encoder, or a model that gets a new head, has no use for them.
OF_TASKS = (r"(.*\.)?pooler\..*", r"(pre_)?classifier\..*", r"qa_outputs\..*", r"score\..*", r"sequence_summary\..*")
# What a configuration may say of how a call answers; a run needs the usual answer.
ANSWERS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False, "torchscript": False}
N_SHOWN = 3  # names in a refusal


class Opened(NamedTuple):
    """A model, and the tensors of it that are not in the file: a new head's."""

    model: Any  # a PreTrainedModel of any architecture
    missing: frozenset[str]


def open_model(
    model_class: Any,
    folder: Path,
    *,
    where: str = "teacher",
    allow_pickle: bool = False,
    is_new_head: bool = False,
    is_encoder: bool = False,
    **how: Any,
) -> Opened:
    """Return the model of a checkpoint.

    Args:
        model_class: an auto class of transformers.
        folder: the checkpoint.
        where: begins the sentence of a refusal.
        allow_pickle: load .bin checkpoints.
        is_new_head: what stands on top of the encoder may be missing, or of another size.
        is_encoder: heads of tasks may be left over.
        **how: keywords of ``from_pretrained``; ``device_map="meta"`` compares names and sizes and reads no weight.

    Raises:
        ValueError: if the weights cannot be read, or are not those of the model.
    """
    import torch

    source = unwrapped(folder)
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    usual = {name: value for name, value in ANSWERS.items() if said.get(name, value) != value}
    how = {"dtype": torch.float32, **usual, **how}
    # They print a table of what is refused below, and how a model is not spread over devices.
    logs = [logging.getLogger(f"transformers.{name}") for name in ("modeling_utils", "distributed.tensor_parallel")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        model, report = model_class.from_pretrained(
            source,
            use_safetensors=None if allow_pickle else True,
            ignore_mismatched_sizes=True,  # compared below
            output_loading_info=True,
            **how,
        )
    except Exception as error:  # safetensors, torch and transformers each raise their own kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Refused(
            f"{where}: the weights in {folder} cannot be read ({first}). Save or download them again."
        ) from error
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
    base = f"{model.base_model_prefix}."
    has_base = any(name.startswith(base) for name in model.state_dict())

    def is_head(name: str) -> bool:
        inside = name.removeprefix(base)
        return (has_base and inside == name) or inside.startswith("pooler.")

    def is_drawn(name: str) -> bool:
        return is_new_head and is_head(name)

    missing = sorted(name for name in report["missing_keys"] if not is_drawn(name) and not _fits(name, HARMLESS))
    known = (*HARMLESS, *(OF_TASKS if is_encoder or is_new_head else ()))
    left = sorted(name for name in report["unexpected_keys"] if not _fits(name, known))
    sizes = sorted(each for each in report["mismatched_keys"] if not is_drawn(each[0]))
    if missing or left or sizes:
        raise Refused(f"{where}: the weights in {folder} {_unfit(missing, left, sizes, is_head, model)}")
    new = frozenset(report["missing_keys"]) | {name for name, *_ in report["mismatched_keys"]}
    return Opened(model, new)


def unwrapped(folder: Path) -> Path:
    """Return the folder itself or, where all names of its weights begin with a wrapper's, a copy without them."""
    prefix = wrapper_of(names_of(folder))
    if not prefix:
        return folder
    logger.warning("the names of the weights in %s begin with %r, which is taken off", folder, prefix)
    return _copy_without(folder, prefix)


def wrapper_of(names: Iterable[str]) -> str:
    """Return what all names begin with of the known wrappers, one inside the other: ``"_orig_mod.module."`` or ""."""
    left, found = list(names), ""
    while left:
        prefix = next((each for each in PREFIXES if all(name.startswith(each) for name in left)), "")
        if not prefix:
            break
        found += prefix
        left = [name.removeprefix(prefix) for name in left]
    return found


def names_of(folder: Path) -> list[str]:
    """Return the names of a checkpoint's tensors, of all its safetensors files; none where it has only pickles."""
    from safetensors import safe_open

    names: list[str] = []
    for path in _files(folder):
        with safe_open(path, framework="np") as file:
            names += file.keys()
    return names


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        whole = folder / "model.safetensors"
        return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    return [folder / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))]


@functools.cache
def _copy_without(folder: Path, prefix: str) -> Path:
    """Write config.json and the weights, with shorter names, into a folder that lasts as long as the process."""
    from safetensors.torch import load_file, save_file

    copy = Path(tempfile.mkdtemp(prefix="tenmeg-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copyfile(folder / "config.json", copy / "config.json")
    tensors = {name.removeprefix(prefix): tensor for path in _files(folder) for name, tensor in load_file(path).items()}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _unfit(
    missing: list[str], left: list[str], sizes: list[tuple[str, Any, Any]], is_head: Any, model: Any
) -> str:  # Any: a function of names, a PreTrainedModel
    """Return the rest of the sentence: what does not fit, why that may be, and what to do."""
    if sizes and not missing and not left:
        name, got, expected = sizes[0]
        many = f" and {len(sizes) - 1} others" if len(sizes) > 1 else ""
        return (
            f"hold {name}{many} of {_shape(got)}, config.json says {_shape(expected)}. They are not of one checkpoint: "
            "take both files from the same place."
        )
    parts = [
        f"{what} {len(names)} tensors ({', '.join(names[:N_SHOWN])}{', ...' if len(names) > N_SHOWN else ''})"
        for what, names in (("lack", missing), ("hold beside the model", left))
        if names
    ]
    return f"{' and '.join(parts)}: {_cause(missing, left, is_head, model)}"


def _cause(missing: list[str], left: list[str], is_head: Any, model: Any) -> str:
    if missing and all(map(is_head, missing)):
        return (
            "the layers on top of the encoder are not there, and random ones would answer by chance. Give the whole "
            "classifier, or make one with 'tenmeg finetune'."
        )
    wrapped = next((extra for name in left if (extra := _extra(name, missing))), "")
    if wrapped:
        return f"names begin with {wrapped!r}, so a wrapper was saved. Save the model inside it with save_pretrained."
    layers = {name: {int(found) for found in _layers(names)} for name, names in (("lack", missing), ("left", left))}
    n_layers = getattr(model.config, "num_hidden_layers", 0)
    if layers["left"] and min(layers["left"]) >= n_layers:
        return (
            f"config.json says {n_layers} layers, the file has layer {max(layers['left'])}, counted from 0. Take both "
            "from the same checkpoint, or correct num_hidden_layers."
        )
    if layers["lack"] and not left:
        return (
            f"config.json says {n_layers} layers, and layer {min(layers['lack'])}, counted from 0, is not whole. Take "
            "both from the same checkpoint."
        )
    positions = [name for name in (*missing, *left) if "position" in name or "distance" in name or "rotary" in name]
    if positions and len(positions) == len(missing) + len(left):
        return f"positions are of another kind ({positions[0]}) than the model's. Give a model with absolute positions."
    return (
        f"they are not of the {type(model).__name__} that config.json describes. Take both from the same checkpoint, "
        "or save the model again with save_pretrained."
    )


def _extra(name: str, missing: list[str]) -> str:
    """Return what a name has in front of one that is missing."""
    return next((name.removesuffix(each) for each in missing if name != each and name.endswith(f".{each}")), "")


def _layers(names: Iterable[str]) -> list[str]:
    return [found for name in names for found in re.findall(r"\blayer\.(\d+)\.", name)]


def _shape(size: Any) -> str:  # Any: torch.Size
    return "x".join(map(str, size))

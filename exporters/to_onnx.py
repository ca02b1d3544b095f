"""Export a saved Hugging Face encoder to one ONNX file with the whole task inside.

``text-classification`` gives ``logits`` and ``probabilities`` (regression: ``logits`` alone); ``feature-extraction``
gives ``last_hidden_state`` and ``sentence_embedding``, pooled and normalised as the checkpoint's own files ask. Batch
and sequence are dynamic, operators are standard (opset 20), labels and limits are in the model's metadata, and no
path, stack trace or time is: one folder always gives the same bytes.

A weight that several layers or passes read (ALBERT's, or those of ``exporters.repeats``) is one tensor of the graph.

It refuses other architectures than BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA and ALBERT, pooling it does not know, a
``max_length`` beyond the position table, and pickled weights unless they are allowed.
"""

import contextlib
import inspect
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from optimum.exporters.tasks import TasksManager
from torch import nn
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

import exporters.repeats  # noqa: F401 - registers the architectures whose layers repeat
from exporters.graph.optimize import save, strip
from exporters.graph.stored_once import digest
from exporters.heads.classification import Classifier
from exporters.heads.embedding import Embedder
from exporters.pooling import MODES, Pooling
from exporters.refused import Refused
from exporters.repetition import plain_type

logger = logging.getLogger(__name__)

OPSET = 20  # the first with Gelu; later ones add nothing an encoder needs
MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert")
POSITION_OFFSET_TYPES = ("roberta", "xlm-roberta", "camembert")  # positions are counted from pad_token_id + 1
TASKS = ("text-classification", "feature-extraction")


class ExportResult(NamedTuple):
    """What was written."""

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    n_nodes: int
    n_bytes: int
    parameters: dict[str, str]  # the model's tensors, each once: name by ``exporters.graph.stored_once.digest``


def export_model(
    model_dir: Path,
    out_path: Path,
    task: str,
    max_length: int,
    pooling: Pooling | None = None,
    *,
    allow_pickle: bool = False,
) -> ExportResult:
    """Write the model in ``model_dir`` to ``out_path`` as ONNX.

    Raises:
        FileNotFoundError: if the folder has no config.json or no weights.
        ValueError: if the task, the architecture, the pooling or the length cannot be exported.
    """
    config = _checked_config(model_dir, task, max_length, pooling)
    model = _load(model_dir, task, allow_pickle)
    n_labels = int(config.num_labels) if task == "text-classification" else 0
    names = ["input_ids", "attention_mask"]
    accepts = inspect.signature(model.forward).parameters
    if getattr(config, "type_vocab_size", 0) > 1 and "token_type_ids" in accepts:
        names.append("token_type_ids")
    wrapper: nn.Module
    if task == "feature-extraction":
        assert pooling is not None
        wrapper, outputs = Embedder(model, pooling), ["last_hidden_state", "sentence_embedding"]
    else:
        wrapper, outputs = Classifier(model, n_labels), ["logits", "probabilities"][: 1 if n_labels == 1 else 2]
    # .eval() on the wrapper: the exporter restores the wrapper's mode afterwards, and a fresh one is in train mode
    graph = _to_graph(wrapper.eval(), names, outputs, max_length)
    _shorten_tensor_names(graph, str(getattr(model, "base_model_prefix", "")))
    facts = {"task": task, "max_length": str(max_length)}
    if task == "text-classification":
        facts["labels"] = json.dumps([config.id2label[index] for index in range(n_labels)], ensure_ascii=False)
    elif pooling is not None:
        facts |= {"pooling": pooling.mode, "normalize": str(pooling.normalize).lower()}
    strip(graph)  # stack traces with paths of this machine, in every node and value
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, facts)
    save(graph, out_path)
    parameters = {digest(tensor.detach().numpy()): name for name, tensor in model.named_parameters()}
    n_bytes = out_path.stat().st_size
    return ExportResult(out_path, tuple(names), tuple(outputs), len(graph.graph.node), n_bytes, parameters)


# config: PretrainedConfig's attributes depend on the architecture, so its type says nothing here
def _checked_config(model_dir: Path, task: str, max_length: int, pooling: Pooling | None) -> Any:
    if not (model_dir / "config.json").is_file():
        raise FileNotFoundError(f"export: {model_dir} has no config.json. Give a folder saved by save_pretrained.")
    config = AutoConfig.from_pretrained(model_dir, local_files_only=True)
    if task not in TASKS:
        raise Refused(f"export: task {task!r} is not known. Use one of {', '.join(TASKS)}.")
    if plain_type(config.model_type) not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise Refused(f"export: architecture {config.model_type!r} is not known. Use one of {known}.")
    if task == "feature-extraction" and (pooling is None or pooling.mode not in MODES):
        mode = pooling.mode if pooling else None
        raise Refused(f"export: feature-extraction needs pooling mean, cls or max, got {mode}. Name one of them.")
    positions = int(config.max_position_embeddings)
    if plain_type(config.model_type) in POSITION_OFFSET_TYPES:
        positions -= int(config.pad_token_id) + 1
    if not 1 < max_length <= positions:
        raise Refused(
            f"export: max_length {max_length} is outside 2..{positions}, the positions of {model_dir}. "
            f"Use --max-length {positions} or less."
        )
    return config


def _load(model_dir: Path, task: str, allow_pickle: bool) -> nn.Module:
    model_class = TasksManager.get_model_class_for_task(task, framework="pt")
    if not allow_pickle and not list(model_dir.glob("*.safetensors")):
        raise FileNotFoundError(
            f"export: {model_dir} has no model.safetensors. Save the model with safe_serialization=True, "
            "or allow pickled weights if you trust their author."
        )
    with _quiet():
        model: nn.Module = model_class.from_pretrained(
            model_dir,
            attn_implementation="eager",  # one MatMul, Add, Softmax, MatMul: what runtimes have fast kernels for
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=None if allow_pickle else True,
        )
    if task == "feature-extraction" and hasattr(model, "pooler"):
        # A sentence vector comes from the token vectors; the pooler would be dead weight.
        setattr(model, "pooler", None)  # noqa: B010 - mypy takes the attribute for a tensor
    return model.eval()


def _to_graph(wrapper: nn.Module, names: list[str], outputs: list[str], max_length: int) -> onnx.ModelProto:
    # a batch of two: an example of size one would be taken for a constant
    length = min(8, max_length)
    example = {name: torch.ones((2, length), dtype=torch.int64) for name in names}
    if "token_type_ids" in example:
        example["token_type_ids"].zero_()
    batch, tokens = torch.export.Dim("batch", min=1, max=1024), torch.export.Dim("sequence", min=1, max=max_length)
    with _quiet():
        program = torch.onnx.export(
            wrapper,
            (),
            kwargs=example,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=names,
            output_names=outputs,
            dynamic_shapes={name: {0: batch, 1: tokens} for name in names},
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    return graph


def _shorten_tensor_names(model: onnx.ModelProto, base_prefix: str) -> None:
    """Name tensors as the checkpoint does, less what all of them have in common: names cost bytes, twice each."""
    short: dict[str, str] = {}
    for tensor in model.graph.initializer:
        name = tensor.name
        for prefix in ("model.", f"{base_prefix}.", "encoder.", "transformer."):
            name = name.removeprefix(prefix)
        short[tensor.name] = tensor.name if name in short.values() else name
        tensor.name = short[tensor.name]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = short.get(name, name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence notes that a user can do nothing about (absent torchvision, deprecated internals, a loading bar)."""
    onnx_logger = logging.getLogger("torch.onnx")
    level, had_bar = onnx_logger.level, transformers_logging.is_progress_bar_enabled()
    onnx_logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnx_logger.setLevel(level)
        if had_bar:
            transformers_logging.enable_progress_bar()

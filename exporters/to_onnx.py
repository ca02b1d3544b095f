"""Export a saved Hugging Face encoder to one ONNX file with the whole task inside.

``text-classification`` gives ``logits`` and ``probabilities`` (regression: ``logits`` alone); ``feature-extraction``
gives ``last_hidden_state`` and ``sentence_embedding``, pooled and normalised as the checkpoint's own files ask. Batch
and sequence are dynamic, operators are standard (opset 20), labels and limits are in the model's metadata, and no
path, stack trace or time is: one folder always gives the same bytes.

A weight that several layers or passes read (ALBERT's, or those of ``exporters.repeats``) is one tensor of the graph.

A small encoder (``exporters.small.models``) says in the metadata that its activations stay float: products are so few
that rounding them would cost more than it saves, and would make an answer depend on what else is in the batch.

It refuses other architectures than BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA, ALBERT and the small ones, pooling it
does not know, a ``max_length`` beyond the position table, and pickled weights unless they are allowed.
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
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

import exporters.repeats
import exporters.small.layers
import exporters.small.models
from exporters.graph.optimize import save, strip
from exporters.graph.stored_once import digest
from exporters.head import Head, load_head
from exporters.pooling import MODES, Pooling
from exporters.refused import Refused
from exporters.repetition import plain_type
from exporters.small.shape import FLOAT_ACTIVATIONS, PREFIX, SMALL, TFIDF, is_small
from exporters.weights import open_model

logger = logging.getLogger(__name__)

OPSET = 20  # the first with Gelu; later ones add nothing an encoder needs
MODEL_TYPES = (
    "bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert",
    *(f"{PREFIX}{family}" for family in (*SMALL, TFIDF)),
)  # fmt: skip
POSITION_OFFSET_TYPES = ("roberta", "xlm-roberta", "camembert")  # positions are counted from pad_token_id + 1


class Answering(nn.Module):
    """A model and its head."""

    def __init__(self, model: nn.Module, head: type[Head], pooling: Pooling | None) -> None:
        super().__init__()
        self.model, self.head, self.pooling = model, head, pooling
        self.is_small = is_small(str(getattr(model.config, "model_type", "")))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the head's outputs for ids and mask, each (batch, tokens).

        The mask is made here as the attention adds it, because the models' own code makes it from ranges and index
        arithmetic, which is 20 nodes more in the graph.
        """
        mask = attention_mask
        if not self.is_small:
            visible = attention_mask[:, None, None, :].to(torch.float32)  # (batch, 1, 1, tokens)
            mask = (1.0 - visible) * torch.finfo(torch.float32).min
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=mask, **types)
        return self.head.outputs(output, attention_mask, self.pooling)


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
    kind: str,
    max_length: int,
    pooling: Pooling | None = None,
    *,
    allow_pickle: bool = False,
) -> ExportResult:
    """Write the model in ``model_dir`` to ``out_path`` as ONNX, with the outputs of the head of its ``kind`` of task.

    Raises:
        FileNotFoundError: if the folder has no config.json or no weights.
        ValueError: if the kind, the architecture, the pooling or the length cannot be exported.
    """
    head = load_head(kind)
    config = _checked_config(model_dir, head, max_length, pooling)
    if head.has_layer and not max(head.fewest_labels, 1) <= config.num_labels <= (head.n_values or config.num_labels):
        raise Refused(f"export: {model_dir} has {config.num_labels} labels, which is not a model for {kind}.")
    model = _load(model_dir, head, allow_pickle)
    names = ["input_ids", "attention_mask"]
    accepts = inspect.signature(model.forward).parameters
    if getattr(config, "type_vocab_size", 0) > 1 and "token_type_ids" in accepts:
        names.append("token_type_ids")
    # .eval() on the wrapper: the exporter restores the wrapper's mode afterwards, and a fresh one is in train mode
    graph = _to_graph(Answering(model, head, pooling).eval(), names, list(head.names), max_length)
    _shorten_tensor_names(graph, str(getattr(model, "base_model_prefix", "")))
    facts = {"task": head.task, "max_length": str(max_length)}
    if head.has_layer:
        labels = [config.id2label[index] for index in range(int(config.num_labels))]
        facts["labels"] = json.dumps(labels, ensure_ascii=False)
    elif pooling is not None:
        facts |= {"pooling": pooling.mode, "normalize": str(pooling.normalize).lower()}
    if is_small(config.model_type):
        facts[FLOAT_ACTIVATIONS] = "true"
    strip(graph)  # stack traces with paths of this machine, in every node and value
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, facts)
    save(graph, out_path)
    parameters = {digest(tensor.detach().numpy()): name for name, tensor in model.named_parameters()}
    n_bytes = out_path.stat().st_size
    return ExportResult(out_path, tuple(names), head.names, len(graph.graph.node), n_bytes, parameters)


# config: PretrainedConfig's attributes depend on the architecture, so its type says nothing here
def _checked_config(model_dir: Path, head: type[Head], max_length: int, pooling: Pooling | None) -> Any:
    if not (model_dir / "config.json").is_file():
        raise FileNotFoundError(f"export: {model_dir} has no config.json. Give a folder saved by save_pretrained.")
    config = AutoConfig.from_pretrained(model_dir, local_files_only=True)
    if plain_type(config.model_type) not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise Refused(f"export: architecture {config.model_type!r} is not known. Use one of {known}.")
    if not head.has_layer and (pooling is None or pooling.mode not in MODES):
        mode = pooling.mode if pooling else None
        raise Refused(f"export: {head.task} needs pooling mean, cls or max, got {mode}. Name one of them.")
    positions = int(config.max_position_embeddings)
    if plain_type(config.model_type) in POSITION_OFFSET_TYPES:
        positions -= int(config.pad_token_id) + 1
    if not 1 < max_length <= positions:
        raise Refused(
            f"export: max_length {max_length} is outside 2..{positions}, the positions of {model_dir}. "
            f"Use --max-length {positions} or less."
        )
    return config


def _load(model_dir: Path, head: type[Head], allow_pickle: bool) -> nn.Module:
    model_class = TasksManager.get_model_class_for_task(head.task, framework="pt")
    if not allow_pickle and not list(model_dir.glob("*.safetensors")):
        raise FileNotFoundError(
            f"export: {model_dir} has no model.safetensors. Save the model with safe_serialization=True, "
            "or allow pickled weights if you trust their author."
        )
    model: nn.Module
    with _quiet():
        model, _ = open_model(
            model_class,
            model_dir,
            where="export",
            allow_pickle=allow_pickle,
            is_encoder=not head.has_layer,
            is_new_head=not head.has_layer,  # the pooler, which goes below
            attn_implementation="eager",  # one MatMul, Add, Softmax, MatMul: what runtimes have fast kernels for
            local_files_only=True,
        )
    if not head.has_layer and hasattr(model, "pooler"):
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
            custom_translation_table={torch.ops.tenmeg.recurrent.default: exporters.small.layers.recurrent_to_onnx},
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

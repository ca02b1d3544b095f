"""Hugging Face encoders whose stored layers run more than once; importing this module registers them.

``import exporters.repeats`` is all that transformers needs to open such a folder: AutoConfig, AutoModel and the Auto
classes with a head then know ``model_type`` "repeated-bert", "repeated-roberta", "repeated-distilbert" and so on, and
no code lies in the checkpoint. The configuration has two keys more, ``passes`` (the stored layer of each pass) and
``exchanged`` (whether that pass exchanges query and key); ``num_hidden_layers`` is the number of *stored* layers, and
the weights have the names and shapes of the plain model with so many layers, each once (Pea-KD, 2009.14822, its
shuffled parameter sharing; see ``exporters.repetition``).

A model returns the hidden states and the attention of all passes: ``n_passes + 1`` states. An exchanged pass runs the
stored layer itself, hooks and all, while its two projections have changed places, so one model must not be run by two
threads at the same time. It refuses gradient checkpointing, which would run a layer again when they have changed back.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

from exporters.repetition import CLASS_PREFIX, PREFIX, Pattern, check_pattern, n_passes, pattern

__all__ = ["AUTO_CLASSES", "PLACES", "Exchanged", "RepeatedLayers", "n_passes", "pattern"]

AUTO_CLASSES = (AutoModel, AutoModelForSequenceClassification, AutoModelForMaskedLM)


class Place(NamedTuple):
    """Where an architecture keeps its layers, and a layer its query and key."""

    encoder: str  # holds the list ``layer``; path inside the bare model
    attention: str  # path inside a layer
    query: str
    key: str


_BERT = Place("encoder", "attention.self", "query", "key")
PLACES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": Place("transformer", "attention", "q_lin", "k_lin"),
}


class Exchanged:
    """A stored layer whose query and key projections change places while it runs (2009.14822)."""

    def __init__(self, layer: nn.Module, place: Place) -> None:
        """Take the layer as it is; it stays the only owner of its weights."""
        self.layer, self.place = layer, place

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the layer; inputs and output are its own."""
        attention = self.layer.get_submodule(self.place.attention)
        query, key = getattr(attention, self.place.query), getattr(attention, self.place.key)
        setattr(attention, self.place.query, key)
        setattr(attention, self.place.key, query)
        try:
            return self.layer(*inputs, **named)
        finally:
            setattr(attention, self.place.query, query)
            setattr(attention, self.place.key, key)

    def __getattr__(self, name: str) -> Any:
        """Return the layer's own attribute."""
        if name in ("layer", "place"):  # not there yet: while it is copied
            raise AttributeError(name)
        return getattr(self.layer, name)


class RepeatedLayers(nn.ModuleList):
    """The stored layers, which an encoder's loop meets once per pass; everything else sees each of them once."""

    def __init__(self, layers: nn.ModuleList | None = None, found: Pattern | None = None, place: Place = _BERT) -> None:
        """Take over the layers; without passes each runs once, as those of a slice do."""
        super().__init__(layers)
        self.found, self.place = found or Pattern((), ()), place

    def __iter__(self) -> Iterator[Any]:
        """Yield what runs in each pass."""
        layers = list(self._modules.values())
        if not self.found.passes:
            yield from layers
            return
        for index, is_exchanged in zip(*self.found, strict=True):
            layer = layers[index]
            assert layer is not None
            yield Exchanged(layer, self.place) if is_exchanged else layer

    def __repr__(self) -> str:
        """Show each stored layer once."""
        return nn.Module.__repr__(self)

    def extra_repr(self) -> str:
        """Show the passes."""
        return f"passes={list(self.found.passes)}, exchanged={list(self.found.exchanged)}"


def _config_class(plain: Any) -> type:  # Any: a configuration class of transformers, which has no types
    class Repeated(plain):  # type: ignore[misc]
        """The plain configuration, and what each pass runs; without ``passes`` every layer runs once."""

        model_type = f"{PREFIX}{plain.model_type}"

        def __init__(
            self, passes: list[int] | None = None, exchanged: list[bool] | None = None, **numbers: Any
        ) -> None:
            super().__init__(**numbers)
            n_layers = int(self.num_hidden_layers)
            passes = list(range(n_layers)) if passes is None else list(passes)
            exchanged = [False] * len(passes) if exchanged is None else list(exchanged)
            check_pattern(passes, exchanged, n_layers)
            self.passes, self.exchanged = passes, exchanged

    return _named(Repeated, plain)


def _model_class(plain: Any, config_class: type, place: Place) -> type:  # Any: a model class of transformers
    own_config = config_class

    class Repeated(plain):  # type: ignore[misc]
        """The plain model whose encoder runs ``config.passes``."""

        config_class = own_config
        supports_gradient_checkpointing = False

        def __init__(self, config: Any, *inputs: Any, **named: Any) -> None:
            found = check_pattern(config.passes, config.exchanged, int(config.num_hidden_layers))
            super().__init__(config, *inputs, **named)
            encoder = self.base_model.get_submodule(place.encoder)
            encoder.layer = RepeatedLayers(encoder.layer, found, place)
            if "head_mask" in signature(encoder.forward).parameters:  # transformers 4: an entry per layer, or None
                encoder.register_forward_pre_hook(partial(_spread_head_mask, found.passes), with_kwargs=True)

    return _named(Repeated, plain)


def _spread_head_mask(passes: Sequence[int], _encoder: nn.Module, inputs: Any, named: dict[str, Any]) -> Any:
    """Give every pass the head mask of its stored layer."""
    masks = named.get("head_mask")
    return inputs, named if masks is None else {**named, "head_mask": [masks[index] for index in passes]}


def _named(made: type, plain: type) -> type:
    """Call a class after the plain one and put it into this module, where pickle looks for it."""
    made.__name__ = made.__qualname__ = f"{CLASS_PREFIX}{plain.__name__}"
    globals()[made.__name__] = made
    return made


def _register() -> None:
    for plain_type, place in PLACES.items():
        plain_config = CONFIG_MAPPING[plain_type]
        config_class: Any = _config_class(plain_config)
        AutoConfig.register(config_class.model_type, config_class)
        for auto_class in AUTO_CLASSES:
            plain: type[PreTrainedModel] = auto_class._model_mapping[plain_config]
            auto_class.register(config_class, _model_class(plain, config_class, place))
        _register_tokenizer(plain_config, config_class)


def _register_tokenizer(plain_config: type, config_class: type) -> None:
    """Let a folder whose tokenizer_config.json names no class be read as the plain architecture's."""
    found: Any = TOKENIZER_MAPPING[plain_config]  # a class; before transformers 5 a slow one and a fast one
    if isinstance(found, tuple):
        slow, fast = found
        AutoTokenizer.register(config_class, slow_tokenizer_class=slow, fast_tokenizer_class=fast)
    elif found is not None:
        register: Callable[..., None] = AutoTokenizer.register
        register(config_class, found)


_register()

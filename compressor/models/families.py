"""Weight roles (query, key, ffn in, ...) by architecture, and the shape numbers of a configuration.

A family is data: where the tensors of one role live and how the configuration spells width, depth and heads. What is
not listed is refused by name; nothing is guessed. Encoders with post-LayerNorm residual blocks only (BERT's layout),
because the inheritance and the compensation in ``compressor.student.student`` rely on it. No torch here.
"""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from compressor.models.configuration import is_architecture
from compressor.refused import Refused, did_you_mean
from exporters.repetition import PREFIX, Pattern, check_pattern, n_passes, pattern, plain_type
from exporters.shape import Shape
from exporters.small.shape import PREFIX as SMALL_PREFIX
from exporters.small.shape import SMALL, TFIDF, is_small, shape_in

# What methods need of shapes: they know no exporters.
__all__ = ["Shape", "n_passes", "pattern", "plain_type"]

# Roles inside one layer. Values are module names relative to the layer.
BERT_LAYER = MappingProxyType(
    {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "ffn_in": "intermediate.dense",
        "ffn_out": "output.dense",
        "ffn_norm": "output.LayerNorm",
    }
)
DISTILBERT_LAYER = MappingProxyType(
    {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_out": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "ffn_in": "ffn.lin1",
        "ffn_out": "ffn.lin2",
        "ffn_norm": "output_layer_norm",
    }
)
BERT_CONFIG = MappingProxyType(
    {
        "hidden": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "ffn": "intermediate_size",
        "positions": "max_position_embeddings",
    }
)
DISTILBERT_CONFIG = MappingProxyType(
    {
        "hidden": "dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "ffn": "hidden_dim",
        "positions": "max_position_embeddings",
    }
)


@dataclass(frozen=True)
class Family:
    """Where the tensors of an architecture are."""

    prefix: str  # of the encoder inside a model with a head
    layer: str  # path of layer ``{}``, relative to the encoder
    roles: MappingProxyType[str, str]
    config: MappingProxyType[str, str]
    has_token_types: bool = True
    position_offset: int = 0  # RoBERTa counts positions from padding_idx + 1
    head_layers: int = 1  # dense hidden x hidden layers before the classifier
    has_pooler: bool = False  # the bare encoder ends in a pooler, which sentence embeddings do not use
    embeddings: tuple[str, ...] = field(default=("word_embeddings", "position_embeddings", "token_type_embeddings"))

    @property
    def without_pooler(self) -> dict[str, bool]:
        """Arguments that build the bare encoder without its pooler."""
        return {"add_pooling_layer": False} if self.has_pooler else {}

    def module(self, layer: int, role: str) -> str:
        """Return the module path of a role in a layer, relative to the encoder."""
        return f"{self.layer.format(layer)}.{self.roles[role]}"


_BERT = Family("bert", "encoder.layer.{}", BERT_LAYER, BERT_CONFIG, has_pooler=True)
_ROBERTA = Family("roberta", "encoder.layer.{}", BERT_LAYER, BERT_CONFIG, position_offset=2, has_pooler=True)
FAMILIES = MappingProxyType(
    {
        "bert": _BERT,
        "roberta": _ROBERTA,
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "electra": Family("electra", "encoder.layer.{}", BERT_LAYER, BERT_CONFIG),
        "distilbert": Family(
            "distilbert", "transformer.layer.{}", DISTILBERT_LAYER, DISTILBERT_CONFIG, has_token_types=False,
            embeddings=("word_embeddings", "position_embeddings"),
        ),
    }
)  # fmt: skip

# Exported as they are. Nothing else takes them: a student of such a shape cannot be built from their layers.
EXPORT_ONLY = MappingProxyType(
    {
        "albert": Family(
            "albert", "encoder.albert_layer_groups.{}", MappingProxyType({}),
            MappingProxyType({**BERT_CONFIG, "layers": "num_hidden_groups"}), has_pooler=True,
        ),
        **{
            f"{SMALL_PREFIX}{name}": Family("small", "", MappingProxyType({}), MappingProxyType({}))
            for name in (*SMALL, TFIDF)
        },
    }
)  # fmt: skip


def family_of(model_type: str, *, for_export: bool = False) -> Family:
    """Return the family of a configuration's ``model_type``, whether its layers repeat or not.

    Args:
        model_type: as in config.json.
        for_export: knows the families of ``EXPORT_ONLY`` as well.

    Raises:
        ValueError: for an architecture that is not known here, with the known ones.
    """
    kind = plain_type(model_type)
    if for_export and kind in EXPORT_ONLY:
        return EXPORT_ONLY[kind]
    if kind not in FAMILIES:
        hint = "" if is_architecture(model_type) else did_you_mean(model_type, FAMILIES)
        raise Refused(
            f"teacher: architecture {model_type!r} is not supported, expected one of "
            f"{', '.join(sorted(FAMILIES))}.{hint} Use a checkpoint of one of these families."
        )
    return FAMILIES[kind]


def shape_of(config: dict[str, Any], n_labels: int, *, for_export: bool = False) -> Shape:
    """Return the shape in a configuration (the content of ``config.json``).

    ``n_labels`` is 0 for sentence embeddings, whose pooler is not deployed.
    """
    family = family_of(config["model_type"], for_export=for_export)
    if is_small(config["model_type"]):
        return shape_in(config, n_labels)
    for key in (*family.config.values(), "vocab_size"):
        if not isinstance(config.get(key), int) or config[key] <= 0:
            got = repr(config[key])[:40] if key in config else "nothing"
            raise Refused(
                f"teacher: config.json says {got} for {key}, expected a whole number above 0. Download the checkpoint "
                "again."
            )
    numbers = {name: int(config[key]) for name, key in family.config.items()}
    is_narrow = plain_type(config["model_type"]) in ("electra", *EXPORT_ONLY)
    narrow = int(config.get("embedding_size", numbers["hidden"])) if is_narrow else numbers["hidden"]
    found = _pattern(config, numbers["layers"])
    return Shape(
        vocab_size=int(config["vocab_size"]),
        token_types=int(config.get("type_vocab_size", 2)) if family.has_token_types else 0,
        embedding_size=narrow if narrow != numbers["hidden"] else None,
        n_labels=n_labels,
        head_layers=family.head_layers if n_labels else 0,
        passes=found.passes,
        exchanged=found.exchanged,
        **numbers,
    )


def _pattern(config: dict[str, Any], n_layers: int) -> Pattern:
    """Return the passes of a configuration whose layers repeat; none where each runs once."""
    if not config["model_type"].startswith(PREFIX):
        return Pattern((), ())
    try:
        passes, exchanged = config.get("passes"), config.get("exchanged")  # null is absent, as transformers reads it
        passes = range(n_layers) if passes is None else passes
        found = check_pattern(passes, [False] * len(passes) if exchanged is None else exchanged, n_layers)
    except (TypeError, ValueError) as error:
        raise Refused(f"teacher: {error} Download the checkpoint again.") from error
    is_plain = found == (tuple(range(n_layers)), (False,) * n_layers)
    return Pattern((), ()) if is_plain else found


def config_numbers(config: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """Return the configuration with the numbers of ``shape``, of an architecture whose layers repeat where its do."""
    family, kind = family_of(config["model_type"]), plain_type(config["model_type"])
    changed: dict[str, Any] = {key: getattr(shape, name) for name, key in family.config.items()}
    if kind == "electra":
        changed["embedding_size"] = shape.embedding_size or shape.hidden
    changed["model_type"] = f"{PREFIX}{kind}" if shape.passes else kind
    if shape.passes:
        changed |= {"passes": list(shape.passes), "exchanged": list(shape.exchanged)}
    kept = {key: value for key, value in config.items() if key not in ("passes", "exchanged")}
    return {**kept, **changed, "vocab_size": shape.vocab_size}

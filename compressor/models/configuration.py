"""What a config.json may say that makes a model another one than its architecture promises: refused. No torch."""

import importlib
from collections.abc import Mapping
from typing import Any

from compressor.refused import Refused


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse models that are not what the code of a plain encoder computes.

    Raises:
        ValueError: for a decoder, positions that are not absolute, pruned heads, and weights in fewer bits.
    """
    causes = (
        (
            bool(config.get("is_decoder") or config.get("add_cross_attention") or config.get("is_encoder_decoder")),
            "is a decoder (is_decoder or cross-attention), whose tokens see those before them only",
            "an encoder, whose tokens see all. Give one, or set is_decoder to false if the model was trained as one",
        ),
        (
            config.get("position_embedding_type", "absolute") != "absolute",
            f"has position_embedding_type {config.get('position_embedding_type')!r}",
            "'absolute'. Give a model with absolute positions",
        ),
        (
            bool(config.get("pruned_heads")),
            f"has pruned heads ({str(config.get('pruned_heads'))[:40]})",
            "layers with all their heads. Give the model before its heads were pruned",
        ),
        (
            bool(config.get("quantization_config")),
            "holds weights in fewer bits (quantization_config)",
            "weights as numbers. Give the model that it was made from",
        ),
    )
    for is_so, what, wanted in causes:
        if is_so:
            raise Refused(f"teacher: by its config.json the model {what}, expected {wanted}.")


def is_architecture(model_type: str) -> bool:
    """Return whether transformers has an architecture of this name: it is no misspelling of another."""
    try:
        known = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES
    except (ImportError, AttributeError):
        return False
    return model_type in known

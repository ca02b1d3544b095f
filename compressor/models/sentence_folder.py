"""What stands around the model in a folder that sentence-transformers saved, read as sentence-transformers reads it.

``modules.json`` says where the model lies and what follows it, ``config_sentence_transformers.json`` what is put before
every text, and one of seven files beside the model at which length texts are cut and whether they are lower-cased. What
changes an answer is done as there, or refused by name. Looks at files only (no torch).
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compressor.models.checkpoint import checkpoint_json
from compressor.refused import Refused
from exporters.pooling import Module, Pooling, read_modules, read_pooling

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)
MAIN = "config_sentence_transformers.json"
# sentence-transformers takes the first of them that is there and holds something.
SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
UNLIMITED_LENGTH = 100_000  # tokenizers write 1e30 when they know no limit
EMBEDS, SCORES = "SentenceTransformer", "CrossEncoder"  # as ``model_type`` says it
# What a folder may hand on to transformers without changing an answer; our own reading decides on dtype and code.
HARMLESS = {"attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "padding_side", "torch_dtype"}
HARMLESS |= {"trust_remote_code", "use_fast", "use_safetensors", "add_pooling_layer"}


class Surroundings(NamedTuple):
    """What a checkpoint's files say besides model and tokenizer."""

    root: Path
    folder: Path  # of config.json, weights and tokenizer
    saved_as: str | None  # "SentenceTransformer", "CrossEncoder", or None: nothing of sentence-transformers
    pooling: Pooling | None
    max_length: int | None  # in tokens, special ones included; of more weight than the tokenizer's own limit


def read_surroundings(root: Path) -> Surroundings:
    """Return what stands around the model in a checkpoint's folder.

    Raises:
        ValueError: for what changes an answer and is not done here.
    """
    modules = _modules(root)
    if modules is None:
        return Surroundings(root, root, None, None, None)
    folder = model_folder(root)
    saved_as = _saved_as(root, folder, modules)
    if saved_as == SCORES:
        _check_scorer(root, folder, modules)
    pooling = None if saved_as == SCORES else _broken(root, lambda: read_pooling(root))
    _check_main(root)
    return Surroundings(root, folder, saved_as, pooling, _checked_length(folder, saved_as))


def model_folder(root: Path) -> Path:
    """Return where config.json, weights and tokenizer lie: where modules.json says, else the folder itself."""
    places = [module.path for module in _modules(root) or () if module.name == "Transformer"]
    if len(places) != 1:
        return root  # of several modules.json is refused when the pooling is read
    folder = root / places[0]
    if not folder.resolve().is_relative_to(root.resolve()):
        raise Refused(
            f"teacher: modules.json in {root} puts the model at {places[0]!r}, expected a folder inside. "
            "Download the checkpoint again."
        )
    if not folder.is_dir():
        raise FileNotFoundError(
            f"teacher: {folder}, where modules.json puts the model, does not exist. Download the checkpoint again."
        )
    return folder


def max_length(around: Surroundings, n_positions: int) -> int:
    """Return the longest input in tokens: what positions allow, and sentence-transformers or else the tokenizer."""
    limits = [n_positions]
    if around.max_length is not None:
        return min(n_positions, around.max_length)
    path = around.folder / "tokenizer_config.json"
    content = checkpoint_json(path) if path.is_file() else {}
    if isinstance(content, dict):
        value = content.get("model_max_length", content.get("max_len"))
        if isinstance(value, int | float) and 0 < value < UNLIMITED_LENGTH:
            limits.append(int(value))
    return min(limits)


def lowers(folder: Path) -> bool:
    """Return whether sentence-transformers lower-cases texts for the tokenizer in ``folder``, whatever that does."""
    roots = [root for root in (folder, *folder.parents[:2]) if (root / "modules.json").is_file()]
    for root in roots:
        try:
            if model_folder(root) == folder:
                return _settings(folder)[1].get("do_lower_case") is True
        except (Refused, FileNotFoundError):
            if root == folder:
                raise
    return False


def lower_case(tokenizer: "Tokenizer") -> None:
    """Let a tokenizer lower-case texts before all else, as sentence-transformers does; one that does so stays."""
    from tokenizers import normalizers

    first = json.loads(tokenizer.to_str())["normalizer"] or {"type": "Sequence", "normalizers": []}
    parts = first["normalizers"] if first["type"] == "Sequence" else [first]
    if any(part["type"] == "Lowercase" or part.get("lowercase") is True for part in parts):
        return  # BertNormalizer gives the same whether its text was lower-cased before or not
    own = [tokenizer.normalizer] if parts else []
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])  # type: ignore[assignment]


def _modules(root: Path) -> list[Module] | None:
    return _broken(root, lambda: read_modules(root))


def _broken(root: Path, read: Any) -> Any:  # any function without arguments
    try:
        return read()
    except (json.JSONDecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError, OSError) as error:
        raise Refused(
            f"teacher: modules.json in {root} or the pooling's config.json cannot be read ({error}). "
            "Download the checkpoint again."
        ) from error


def _saved_as(root: Path, folder: Path, modules: list[Module]) -> str:
    """Return what sentence-transformers saved: files that do not say so hold a SentenceTransformer, or have a head."""
    usual = EMBEDS
    if all(module.name == "Transformer" for module in modules) and _has_head(folder):
        usual = SCORES
    saved_as = read_main(root).get("model_type") or usual
    if saved_as not in (EMBEDS, SCORES):
        raise Refused(
            f"teacher: {MAIN} says model_type {saved_as!r}, expected {EMBEDS} or {SCORES}. "
            "Use a model with one vector for a text, or one score for two."
        )
    return str(saved_as)


def _has_head(folder: Path) -> bool:
    path = folder / "config.json"
    config = checkpoint_json(path) if path.is_file() else {}
    names = config.get("architectures") if isinstance(config, dict) else None
    return any(str(name).endswith("ForSequenceClassification") for name in names or ())


def _check_scorer(root: Path, folder: Path, modules: list[Module]) -> None:
    others = [module.name for module in modules if module.name != "Transformer"]
    if others or len(modules) != 1:
        what = ", ".join(others) or f"{len(modules)} Transformers"
        raise Refused(
            f"teacher: modules.json in {root} asks for {what}, expected a Transformer alone for a CrossEncoder. "
            "Use one whose score is the model's own output."
        )
    if not _has_head(folder):
        raise Refused(
            f"teacher: {root} is a CrossEncoder, and the architectures in its config.json are none for sequence "
            "classification. Use one whose score is the model's own output."
        )


def read_main(root: Path) -> dict[str, Any]:
    """Return what sentence-transformers says of the whole model; nothing where it says nothing."""
    return _object(root / MAIN)


def _object(path: Path) -> dict[str, Any]:
    content = checkpoint_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise Refused(f"teacher: {path} holds {str(content)[:40]}, expected an object. Download the checkpoint again.")
    return content


def _check_main(root: Path) -> None:
    """Refuse what is put before every text and what is cut off every vector; tell of prompts that have to be asked."""
    told = read_main(root)
    prompts, name = told.get("prompts") or {}, told.get("default_prompt_name")
    if not isinstance(prompts, dict):
        raise Refused(
            f"teacher: prompts in {root / MAIN} is {str(prompts)[:40]}, expected names and texts. Correct it."
        )
    if name is not None and name not in {"query", "document", *prompts}:
        raise Refused(
            f"teacher: default_prompt_name in {root / MAIN} is {name!r}, which is none of its prompts "
            f"({', '.join(prompts) or 'there are none'}). Correct or remove it."
        )
    if name is not None and prompts.get(name):
        raise Refused(
            f"teacher: sentence-transformers puts the prompt {prompts[name]!r} before every text (default_prompt_name "
            f"= {name!r} in {MAIN}), a package does not. Write it into your rows and remove default_prompt_name."
        )
    others = [key for key, prompt in prompts.items() if prompt]
    if others:
        logger.warning(
            "teacher: its prompts (%s) are left out, as encode() leaves them out; write one into your rows to use it",
            ", ".join(others),
        )
    if told.get("truncate_dim") is not None:
        raise Refused(
            f"teacher: sentence-transformers keeps the first {told['truncate_dim']} numbers of every vector "
            f"(truncate_dim in {MAIN}), a package keeps all. Remove truncate_dim, and shorten the vectors you get."
        )


def _settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file beside the model that sentence-transformers reads, and what it holds."""
    for name in SETTINGS:
        if content := _object(folder / name):
            return folder / name, content
    return folder / SETTINGS[0], {}


def _checked_length(folder: Path, saved_as: str) -> int | None:
    """Return the length at which texts are cut, None where the tokenizer decides; refuse other ways to run a model."""
    path, settings = _settings(folder)
    for kwargs, before in (("model_kwargs", "model_args"), ("config_kwargs", "config_args")):
        _refuse_others(path, kwargs if kwargs in settings else before, settings, HARMLESS)
    of_tokenizer = "tokenizer_args" if "tokenizer_args" in settings else "processor_kwargs"
    _refuse_others(path, of_tokenizer, settings, HARMLESS | {"model_max_length"})
    asked = settings.get("processing_kwargs") or {}
    _refuse_others(path, "processing_kwargs", {"processing_kwargs": {k: v for k, v in asked.items() if v}}, set())
    wanted = "sequence-classification" if saved_as == SCORES else "feature-extraction"
    if settings.get("transformer_task", wanted) != wanted:
        raise Refused(
            f"teacher: transformer_task in {path} is {settings['transformer_task']!r}, expected {wanted!r}. "
            "Use a model of that task."
        )
    text = (settings.get("modality_config") or {}).get("text")
    if isinstance(text, dict):
        output = "logits" if saved_as == SCORES else "last_hidden_state"
        if (text.get("method", "forward"), text.get("method_output_name", output)) != ("forward", output):
            raise Refused(
                f"teacher: modality_config in {path} takes {text.get('method_output_name')!r} of {text.get('method')!r}"
                f", expected {output!r} of 'forward'. Use a model that is read so."
            )
    given = (settings.get(of_tokenizer) or {}).get("model_max_length", settings.get("max_seq_length"))
    if given is None:
        return None
    if not isinstance(given, int) or given < 1:
        raise Refused(f"teacher: max_seq_length in {path} is {given!r}, expected a whole number from 1. Correct it.")
    return given


def _refuse_others(path: Path, key: str, settings: Mapping[str, Any], known: set[str]) -> None:
    found = settings.get(key) or {}
    others = sorted(set(found) - known) if isinstance(found, dict) else [str(found)[:40]]
    if others:
        raise Refused(
            f"teacher: {key} in {path} sets {', '.join(others)}, which changes what sentence-transformers answers and "
            "is not done here. Remove it if the model was not trained with it, or use another model."
        )

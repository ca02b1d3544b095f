"""The teacher: what its files say, and its frozen model.

:func:`read_teacher` looks at the files only (no torch): task, labels, maximum length, pooling, shape.
:func:`load_model` loads weights from safetensors; pickled checkpoints and code from the checkpoint are refused unless
the user allows them. What it says of the training rows is kept by ``compressor.batches.teacher_cache``.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compressor.files import hash_files, user_path
from compressor.models.checkpoint import check_adapter, check_tokenizer, check_weights, checkpoint_json, truncation_side
from compressor.models.configuration import check_config, check_counts, named_labels
from compressor.models.cross_encoder import check_activation, takes_pairs
from compressor.models.families import Family, family_of, shape_of
from compressor.models.sentence_folder import lower_case, lowers, max_length, read_surroundings
from compressor.recipe.sections import TeacherSection
from compressor.refused import Refused, did_you_mean
from compressor.scoring.contract import TaskSpec
from compressor.scoring.registry import kind_of, known_tasks, load_kind
from exporters.pooling import Pooling
from exporters.repetition import CLASS_PREFIX
from exporters.shape import Shape
from exporters.small.shape import plain_class
from exporters.weights import ANSWERS, open_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*", "2_Normalize/*"]


@dataclass(frozen=True)
class TeacherInfo:
    """What a teacher's files say."""

    folder: Path
    name: str  # as the user wrote it, without the folder's parents
    revision: str | None
    config: dict[str, Any]
    task: str
    kind: str  # of task, a file in compressor/tasks
    labels: tuple[str, ...]
    pooling: Pooling | None
    max_length: int  # the longest input it can take, in its own tokens
    shape: Shape
    hashes: dict[str, str]  # sha256 of the files that decide its behaviour
    truncation: Literal["right", "left"] = "right"  # where a text that is too long loses tokens
    saved_in: Path | None = None  # what sentence-transformers opens, where it saved the checkpoint
    needs_pairs: bool = False  # it scores two texts

    @property
    def family(self) -> Family:
        """What is known of its architecture; ``read_teacher`` has refused those that do not serve."""
        return family_of(self.config["model_type"], for_export=True)

    @property
    def answers(self) -> type[TaskSpec]:
        """What is known of its kind of task."""
        return load_kind(self.kind)

    def spec(self, *, pair: bool, scored: bool = True, metric: str | None = None) -> TaskSpec:
        """Return its task; the arguments are those of ``TaskSpec.of``."""
        return self.answers.of(self.labels, pair=pair, scored=scored, metric=metric)

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """Its tokenizer, read once; do not change it."""
        return load_tokenizer(self.folder)._tokenizer  # the tokenizers.Tokenizer inside


def read_teacher(section: TeacherSection, *, for_export: bool = False) -> TeacherInfo:
    """Return what the checkpoint's files say; ``for_export`` takes the families that are only exported, too.

    Raises:
        FileNotFoundError: if there is neither such a folder nor such a hub id.
        ValueError: if the checkpoint is of a kind that is refused.
    """
    root = find_folder(section.path, section.revision, section.offline, section.allow_pickle)
    around = read_surroundings(root)
    folder = around.folder
    config = read_config(folder)
    if "auto_map" in config and not section.trust_remote_code:
        raise Refused(
            f"teacher: {section.path} wants to run its own code (auto_map in config.json). Give --trust-remote-code if "
            "you trust it, or use a checkpoint of a standard architecture."
        )
    family = family_of(str(config.get("model_type")), for_export=for_export)
    check_config(config)
    pooling = around.pooling
    task = section.task or infer_task(config, pooling)
    kind = kind_of(task, config)
    labels = _labels(config) if kind.has_head else ()
    if kind.has_head:
        pooling = None
        check_activation(around, config, kind.kind)
    elif pooling is None:
        pooling = Pooling("mean", normalize=True)
        logger.warning("teacher: no modules.json, so mean pooling and unit length are assumed")
    shape = shape_of(config, n_labels=len(labels), for_export=for_export)
    check_weights(folder, shape, section.allow_pickle)
    check_tokenizer(folder)
    return TeacherInfo(
        folder=folder,
        name=Path(section.path).name if Path(section.path).is_dir() else section.path,
        revision=section.revision,
        config=config,
        task=task,
        kind=kind.kind,
        labels=labels,
        pooling=pooling,
        max_length=max_length(around, shape.positions - family.position_offset),
        shape=shape,
        hashes=hash_files(root),
        truncation=truncation_side(folder),
        saved_in=root if around.saved_as else None,
        needs_pairs=kind.has_head and takes_pairs(around, config),
    )


def find_folder(path: str, revision: str | None, offline: bool, allow_pickle: bool = False) -> Path:
    """Return the folder of a checkpoint, downloading a hub id first."""
    folder = user_path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise Refused(f"teacher: {path} is a file, expected a model folder or a hub id. Give the folder it is in.")
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise FileNotFoundError(f"teacher: folder {path} does not exist.{_meant(path) or ' Check --teacher.'}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    patterns = HUB_FILES + (["*.bin"] if allow_pickle else [])
    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=offline, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        how = "is not in the local cache (--offline)" if offline else "could not be fetched from the hub"
        raise FileNotFoundError(
            f"teacher: {path} is no folder here and {how} ({type(error).__name__}). "
            f"{_meant(path).strip() or 'Check the name and the network, or give a folder.'}"
        ) from error


def _meant(path: str) -> str:
    """Return the question that names the folder that was meant, where one beside it is called almost so."""
    folder = user_path(path)
    try:
        beside = [str(Path(path).parent / each.name) for each in folder.parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    return did_you_mean(path, beside)


def infer_task(config: dict[str, Any], pooling: Pooling | None) -> str:
    """Return the Hugging Face task of a checkpoint, from its architecture, as optimum's TasksManager maps it."""
    if pooling is not None:
        return "feature-extraction"
    names = config.get("architectures") or []
    if not names:
        raise Refused("teacher: config.json names no architecture. Give --task, or add 'architectures' to config.json.")
    import transformers
    from optimum.exporters.tasks import TasksManager

    model_class = getattr(transformers, plain_class(str(names[0]).removeprefix(CLASS_PREFIX)), None)
    if model_class is None:
        raise Refused(f"teacher: transformers has no {names[0]}. Use a checkpoint of a standard architecture.")
    task = str(TasksManager.infer_task_from_model(model_class))
    known = known_tasks()
    if task not in known:
        raise Refused(
            f"teacher: {names[0]} is made for {task}, expected {' or '.join(known)}. Fine-tune it first with 'tenmeg "
            "finetune', or give --task feature-extraction."
        )
    return task


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return the checkpoint's fast tokenizer."""
    from transformers import AutoTokenizer

    import exporters.repeats
    import exporters.small.models  # noqa: F401 - registers the small encoders

    check_tokenizer(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise Refused(
            f"teacher: the tokenizer in {folder} cannot be read ({str(error).splitlines()[0]}). Add its tokenizer.json."
        ) from error
    if not tokenizer.is_fast:
        raise Refused(f"teacher: {folder} has no fast tokenizer. Add a tokenizer.json to it.")
    if lowers(folder):
        lower_case(tokenizer._tokenizer)
    return tokenizer


def load_model(info: TeacherInfo, allow_pickle: bool = False, trust_remote_code: bool = False) -> "PreTrainedModel":
    """Return the frozen model in float32, in evaluation mode."""
    auto_class, extra = auto_class_of(info.answers, info.family)
    how: dict[str, Any] = {"attn_implementation": "sdpa", "trust_remote_code": trust_remote_code, **extra}
    is_encoder = not info.answers.has_head
    model: PreTrainedModel
    model, _ = open_model(auto_class, info.folder, allow_pickle=allow_pickle, is_encoder=is_encoder, **how)
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise Refused(
                f"teacher: the weights {name} in {info.folder} are not all finite numbers. The model is broken: train "
                "or download it again."
            )
    model.requires_grad_(False)
    return model.eval()


def check_tensors(info: TeacherInfo, allow_pickle: bool = False, trust_remote_code: bool = False) -> None:
    """Refuse weights whose names or sizes are not those of the model; no weight is read."""
    auto_class, extra = auto_class_of(info.answers, info.family)
    how: dict[str, Any] = {"trust_remote_code": trust_remote_code, "device_map": "meta", **extra}
    open_model(auto_class, info.folder, allow_pickle=allow_pickle, is_encoder=not info.answers.has_head, **how)


def auto_class_of(kind: type[TaskSpec], family: Family) -> tuple[Any, dict[str, bool]]:
    """Return the class of transformers that opens a task's models, and what it is told: an encoder has no pooler."""
    import transformers

    import exporters.repeats
    import exporters.small.models  # noqa: F401 - registers the small encoders

    return getattr(transformers, kind.model_class), {} if kind.has_head else family.without_pooler


def read_config(folder: Path) -> dict[str, Any]:
    """Return ``config.json`` of a checkpoint."""
    path = folder / "config.json"
    check_adapter(folder)
    if not path.is_file():
        raise FileNotFoundError(f"teacher: {folder} has no config.json. Give a folder saved by save_pretrained.")
    config = checkpoint_json(path)
    if not isinstance(config, dict) or "model_type" not in config:
        raise Refused(f"teacher: {path} names no model_type. Give a folder saved by save_pretrained.")
    check_counts(config, path)
    # How a call answers is not what a model is: a student is not to learn it.
    return {name: value for name, value in config.items() if ANSWERS.get(name, value) == value}


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label")
    if not names:
        return tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels", 2))))
    try:
        return named_labels(names)
    except Refused:
        raise
    except (ValueError, TypeError, LookupError) as error:
        raise Refused(
            f"teacher: id2label in config.json is {str(names)[:80]}, expected a name for each of 0, 1, ... Correct it."
        ) from error

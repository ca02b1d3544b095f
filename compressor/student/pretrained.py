"""A student that exists already: a smaller model of the teacher's family, with its own shape, weights and tokenizer.

``--pretrained`` names a folder or a hub id: an encoder, a masked language model, a classifier, or a student that a run
has made. Its files are looked at as the teacher's are: safetensors unless ``--allow-pickle``, and no code of its own,
ever. The positions and tokens that a run does not use are cut off; the head is taken where it answers the same labels,
and is fresh, drawn from the seed, otherwise. Refused: another family than the teacher's, anything larger than it, and a
tokenizer that does not go with its tokenizer.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.files import hash_files
from compressor.models.checkpoint import check_tokenizer, check_weights, tokenizer_config
from compressor.models.configuration import check_config
from compressor.models.families import family_of, shape_of
from compressor.models.sentence_folder import model_folder
from compressor.models.teacher import (
    TeacherInfo,
    auto_class_of,
    find_folder,
    load_tokenizer,
    read_config,
    read_teacher,
)
from compressor.models.vocabulary import GivenVocabulary, given_vocabulary, speaking_of
from compressor.recipe.sections import TeacherSection
from compressor.refused import Refused
from compressor.scoring.contract import TaskSpec
from exporters.shape import Shape
from exporters.weights import open_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OF_LABELS = ("id2label", "label2id", "num_labels", "problem_type")
PRETRAINED, NEW = {"how": "pretrained"}, {"how": "new"}


@dataclass(frozen=True)
class Pretrained:
    """What the files of a given student say."""

    folder: Path
    name: str  # as the user wrote it, without the folder's parents
    config: dict[str, Any]
    shape: Shape  # the checkpoint's own; without a head
    has_head: bool  # for the teacher's labels
    vocabulary: GivenVocabulary
    hashes: dict[str, str]  # sha256 of the files that decide its behaviour

    @property
    def head(self) -> str:
        """Where the task's head comes from, in words."""
        return "its own head" if self.has_head else "a fresh head"

    def shape_for(self, info: TeacherInfo, positions: int) -> Shape:
        """Return the student's shape: rows for the tokens and positions in use, and the teacher's labels."""
        n_labels, head_layers = info.shape.n_labels, info.shape.head_layers
        n_tokens = self.vocabulary.size
        return replace(self.shape, vocab_size=n_tokens, positions=positions, n_labels=n_labels, head_layers=head_layers)

    def as_dict(self) -> dict[str, Any]:
        """Return what a plan says of it."""
        return {"name": self.name, "has_head": self.has_head, "sha256": self.hashes}


def read_pretrained(path: str, teacher: TeacherSection, info: TeacherInfo) -> Pretrained:
    """Return what the files of a smaller model say.

    Args:
        path: folder or hub id.
        teacher: whose ``offline`` and ``allow_pickle`` hold for it too.
        info: what the teacher's files say.

    Raises:
        FileNotFoundError: if there is neither such a folder nor such a hub id, or a file is missing.
        ValueError: if it is damaged, of another family than the teacher, or larger.
    """
    source = f"--pretrained {path}"
    with speaking_of(source):
        folder = model_folder(find_folder(path, None, teacher.offline, teacher.allow_pickle))
        config = _read_config(folder)
        shape = shape_of(config, n_labels=0)
        check_weights(folder, shape, teacher.allow_pickle)
        check_tokenizer(folder)
        tokenizer = load_tokenizer(folder)._tokenizer  # the tokenizers.Tokenizer inside
        hashes = hash_files(folder)
        settings = tokenizer_config(folder)
    _check_fit(source, config, shape, info)
    vocabulary = given_vocabulary(source, tokenizer, settings, hashes)
    if vocabulary.size > shape.vocab_size:
        raise Refused(
            f"{source}: its tokenizer has {vocabulary.size:,} tokens, its embeddings have {shape.vocab_size:,} rows. "
            "They are not of one checkpoint; download both again."
        )
    name = Path(path).name if Path(path).is_dir() else path
    return Pretrained(folder, name, config, shape, _has_head(config, info), vocabulary, hashes)


def load_pretrained(
    pretrained: Pretrained, info: TeacherInfo, shape: Shape, seed: int, allow_pickle: bool = False
) -> tuple["PreTrainedModel", dict[str, object]]:
    """Return the initial student, and of each of its tensors ``{"how": "pretrained"}`` or ``{"how": "new"}``.

    Args:
        pretrained: what its files say.
        info: what the teacher's files say: the task and its labels.
        shape: of the student, as ``Pretrained.shape_for`` gives it.
        seed: for the head, where the checkpoint has none for these labels.
        allow_pickle: load .bin checkpoints.

    Raises:
        ValueError: if the weights cannot be read, are not whole or not finite.
    """
    from compressor.student.student import new_model

    config = {name: value for name, value in pretrained.config.items() if name not in OF_LABELS}
    config |= {name: info.config[name] for name in OF_LABELS if name in info.config}
    student = new_model(replace(info, config=config), shape, seed)
    theirs = _read_weights(pretrained, info.answers, allow_pickle)
    family = family_of(config["model_type"])
    prefix = f"{family.prefix}." if info.answers.has_head else ""
    state, origin = student.state_dict(), {}
    for name, fresh in state.items():
        is_head = not name.startswith(prefix)
        found = None if is_head and not pretrained.has_head else theirs.get(name)
        if found is not None and name.endswith(("word_embeddings.weight", "position_embeddings.weight")):
            found = found[: len(fresh)]  # the tokens and positions in use
        is_taken = found is not None and found.shape == fresh.shape
        state[name] = found if is_taken else fresh
        origin[name] = PRETRAINED if is_taken else NEW
    student.load_state_dict(state)
    return student.eval(), {name: dict(line) for name, line in sorted(origin.items())}


def _read_weights(pretrained: Pretrained, kind: type[TaskSpec], allow_pickle: bool) -> dict[str, Any]:
    """Return the tensors that are really in the checkpoint, by the names of a model for the task."""
    import torch

    model_class, extra = auto_class_of(kind, family_of(pretrained.config["model_type"]))
    with torch.random.fork_rng(devices=[]):  # what is missing is drawn, and not used
        model, missing = open_model(
            model_class,
            pretrained.folder,
            where=f"--pretrained {pretrained.name}",
            allow_pickle=allow_pickle,
            is_new_head=True,
            is_encoder=not kind.has_head,
            trust_remote_code=False,
            **extra,
        )
    found = {name: tensor for name, tensor in model.state_dict().items() if name not in missing}
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise Refused(
                f"--pretrained {pretrained.name}: its weights {name} are not all finite numbers. The model is broken: "
                "train or download it again."
            )
    return found


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    if "auto_map" in config:
        raise Refused(
            "teacher: it wants to run its own code (auto_map in config.json), which a student never may. Give a "
            "checkpoint of a standard architecture."
        )
    family_of(str(config["model_type"]))
    check_config(config)
    return config


def _check_fit(source: str, config: dict[str, Any], shape: Shape, info: TeacherInfo) -> None:
    """Refuse another family, and a model that is larger than the teacher somewhere."""
    ours, theirs = config["model_type"], info.config["model_type"]
    if family_of(ours) != family_of(theirs):
        raise Refused(
            f"{source} is of architecture {ours!r}, the teacher of {theirs!r}, expected the same family. Give a "
            f"smaller {theirs} model."
        )
    for name in ("layers", "hidden", "ffn"):
        if getattr(shape, name) > getattr(info.shape, name):
            raise Refused(
                f"{source} has {name} {getattr(shape, name)}, which is more than the teacher's "
                f"{getattr(info.shape, name)}. Give a model that is nowhere larger than its teacher."
            )
    if shape.token_types < info.shape.token_types:
        raise Refused(
            f"{source} tells {shape.token_types} segments apart (type_vocab_size), the teacher "
            f"{info.shape.token_types}. Give a model with as many."
        )


def _has_head(config: dict[str, Any], info: TeacherInfo) -> bool:
    """Return whether the checkpoint says that it answers the teacher's labels."""
    names = config.get("architectures") or [""]
    if not info.answers.has_head or not str(names[0]).endswith("ForSequenceClassification"):
        return False
    if not info.answers.claims(info.task, config):
        return False
    labels = config.get("id2label")
    if isinstance(labels, dict):
        ours = tuple(str(label) for _, label in sorted(labels.items(), key=lambda item: str(item[0]).zfill(9)))
    else:
        ours = tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels", 2))))
    return ours == info.labels or len(ours) == len(info.labels) == 1  # the name of a score says nothing


def read_base(base: str, teacher: TeacherSection, info: TeacherInfo) -> TeacherInfo:
    """Return what the files of the pretrained model say, as the start of teachers with the given one's labels.

    Args:
        base: folder or hub id.
        teacher: the section of the given one, whose ``offline`` holds for it too.
        info: what the given teacher's files say.

    Raises:
        FileNotFoundError: if there is neither such a folder nor such a hub id.
        ValueError: if it is of a kind that is refused, or the given teacher itself.
    """
    section = TeacherSection(path=base, task="text-classification", offline=teacher.offline)
    try:
        with speaking_of(f"option base = {base!r}"):
            found = read_teacher(section)
    except (FileNotFoundError, ValueError) as error:  # its remedies are flags that say nothing about a base
        raise type(error)(_without_flags(str(error))) from error
    weights = {name: digest for name, digest in found.hashes.items() if name.endswith(".safetensors")}
    if weights and weights.items() <= info.hashes.items():
        raise Refused(
            f"option base = {base!r} is the teacher itself, which has seen every row, expected the pretrained model "
            "that it was made from. Name that one."
        )
    return replace(found, task=info.task, kind=info.kind, labels=info.labels, pooling=None)


def _without_flags(sentence: str) -> str:
    sentence = sentence.replace("Check option.", "Check the path.")
    sentence = sentence.replace("Give --trust-remote-code if you trust it, or use", "Use")
    return sentence.replace(", or give --allow-pickle if you trust it.", ": a base is read from safetensors only.")

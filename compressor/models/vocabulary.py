"""A vocabulary that exists already, for the student: read, and held against the teacher's.

``--vocab-from`` names a folder with a tokenizer.json (or that file); a model given with ``--pretrained`` has its own.
It is used as it is. Refused: token ids with gaps, models other than WordPiece, Unigram and BPE, and special tokens that
do something else than the teacher's (``vocab.roles``). No torch here.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from compressor.files import sha256_file, user_path
from compressor.models.checkpoint import tokenizer_config
from compressor.refused import Refused
from vocab.roles import Roles, role_problems, roles_of
from vocab.save import compact_json
from vocab.surfaces import Kind, bare, kind_of, spec_of, vocab_of

if TYPE_CHECKING:
    from compressor.models.teacher import TeacherInfo

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class GivenVocabulary:
    """A tokenizer that is not trained here."""

    source: str  # as the user wrote it, with the flag: "--vocab-from FOLDER"
    tokenizer: Tokenizer  # without truncation and padding; do not change
    config: dict[str, Any]  # the tokenizer_config.json beside it; empty without one
    hashes: dict[str, str]  # sha256 by file name

    @property
    def size(self) -> int:
        """Number of tokens."""
        return int(self.tokenizer.get_vocab_size())

    @property
    def kind(self) -> Kind:
        """Algorithm of the vocabulary."""
        return kind_of(self.tokenizer.to_str())

    @property
    def roles(self) -> Roles:
        """The token of every role."""
        return roles_of(spec_of(self.tokenizer), self.config)

    @property
    def n_bytes(self) -> int:
        """Bytes of the tokenizer.json in a package."""
        return len(compact_json(self.tokenizer).encode("utf-8")) + 1

    def config_for(self, teacher: dict[str, Any]) -> dict[str, Any]:
        """Return its configuration with the class of the teacher's, which says whether the model reads segments."""
        return {**self.config, **{key: teacher[key] for key in ("tokenizer_class",) if key in teacher}}

    def as_dict(self) -> dict[str, Any]:
        """Return what a plan says of it."""
        return {"source": self.source, "kind": self.kind, "size": self.size, "sha256": self.hashes}


def vocabulary_file(path: str) -> Path:
    """Return the tokenizer.json that a path names, or is in the folder that it names."""
    place = user_path(path)
    file = place / "tokenizer.json" if place.is_dir() else place
    if not file.is_file():
        got = "holds no tokenizer.json" if place.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"--vocab-from {path} {got}. Give a folder that 'tenmeg vocab train' or save_pretrained wrote."
        )
    return file


def read_vocabulary(path: str) -> GivenVocabulary:
    """Return the vocabulary in a folder with a tokenizer.json, or in that file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read.
    """
    file, source = vocabulary_file(path), f"--vocab-from {path}"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises plain Exception
        first = (str(error).splitlines() or ["damaged"])[0]
        raise Refused(
            f"{source} is no tokenizer.json ({first}). Give one that 'tenmeg vocab train' or save_pretrained wrote."
        ) from error
    config_path = file.with_name("tokenizer_config.json")
    with speaking_of(source):
        config = tokenizer_config(file.parent)
    hashes = {each.name: sha256_file(each) for each in (file, config_path) if each.is_file()}
    return given_vocabulary(source, tokenizer, config, hashes)


def given_vocabulary(
    source: str, tokenizer: Tokenizer, config: dict[str, Any], hashes: dict[str, str]
) -> GivenVocabulary:
    """Return a tokenizer as a student's vocabulary.

    Raises:
        ValueError: if its kind is not supported or its ids have gaps.
    """
    found = GivenVocabulary(source, bare(tokenizer), config, hashes)
    try:
        kind = found.kind
    except ValueError as error:
        raise Refused(f"{source}: {str(error).rpartition('. ')[0]}. Give WordPiece, Unigram or BPE.") from error
    ids = vocab_of(spec_of(found.tokenizer))
    highest = max(ids.values(), default=-1)
    if not len(ids) == found.size == highest + 1:
        raise Refused(
            f"{source}: the {kind} tokenizer has {len(ids):,} tokens with ids up to {highest:,}, expected an id for "
            "each without gaps. Give another one, or train one with --vocab-size."
        )
    return found


def check_vocabulary(
    given: GivenVocabulary, info: "TeacherInfo", teacher: Tokenizer, *, is_pair: bool, hides_words: bool
) -> None:
    """Refuse special tokens with other roles than the teacher's.

    Args:
        given: the student's vocabulary.
        info: what the teacher's files say.
        teacher: its tokenizer.
        is_pair: whether two texts are read together.
        hides_words: whether a stage learns from hidden words.

    Raises:
        ValueError: naming what is wrong with it.
    """
    theirs = roles_of(spec_of(teacher), tokenizer_config(info.folder))
    has_segments = info.shape.token_types > 1
    problems = role_problems(
        (given.tokenizer, given.roles), (teacher, theirs), is_pair=is_pair, has_segments=has_segments
    )
    offset = info.family.position_offset
    pad_id = given.tokenizer.token_to_id(given.roles.get("pad_token", ""))
    if offset and pad_id != offset - 1:  # positions are counted from the padding's id
        problems.append(f"its padding token has id {pad_id}, and {info.config['model_type']} needs {offset - 1}")
    if hides_words and not any(given.tokenizer.token_to_id(name) is not None for name in ("[MASK]", "<mask>")):
        problems.append("it has neither [MASK] nor <mask>, which objective = 'mlm' needs")
    if problems:
        raise Refused(
            f"{given.source}: the tokenizer does not go with the teacher's: {'; '.join(problems)}. Give one with the "
            "teacher's special tokens ('tenmeg vocab train' makes such ones)."
        )


@contextlib.contextmanager
def speaking_of(source: str) -> Iterator[None]:
    """Let what reads a teacher's files name ``source`` in its sentences."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(_renamed(str(error), source)) from error
    except ValueError as error:
        raise Refused(_renamed(str(error), source)) from error


def _renamed(sentence: str, source: str) -> str:
    return sentence.replace("teacher: ", f"{source}: ", 1).replace("--teacher", source.partition(" ")[0])

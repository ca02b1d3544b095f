"""The vocabulary curve on SST-2, by every rule, and on English and German together (Multi30k).

    python -m benchmarks.vocab_curve --data DIR --teacher MODEL

``DIR`` holds SST-2/train.tsv and Multi30k/train.en, train.de. Every vocabulary is trained on nine tenths of the lines
and measured on the rest, for the student that ``tenmeg compress --max-size 7MB`` would choose. On SST-2 the rules are
also compared by the *embedding error*: over the running words of held-out texts, the mean of |mean of the teacher's
embeddings of its own pieces - mean of the student's first embeddings of its pieces|^2, over the mean of the former's
square. Writes docs/results/vocab_curve.json, docs/vocab-sst2.svg and docs/vocab-en-de.svg; takes some minutes.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple, get_args

import click
import numpy as np
from tokenizers import Tokenizer

from compressor.commands.vocabulary import as_json, measure_sizes, student_shape
from compressor.data.table import read_table
from compressor.files import write_json, write_text
from compressor.models.checkpoint import read_embeddings
from compressor.models.teacher import TeacherInfo, load_tokenizer, read_teacher
from compressor.recipe.sections import QuantizeSection, TeacherSection
from compressor.recipe.student import StudentSection
from compressor.report.vocabulary_figure import Panel, draw, picture
from compressor.run.planning.choice import Choice
from exporters.budget import parse_size
from exporters.measuring.machine import versions
from vocab import mapping
from vocab.choosing import DEFAULT_RULE, Floats, Rule
from vocab.comparing.align import NO_WORD, align_batch
from vocab.comparing.curve import Curve, pick, split
from vocab.mapping import Integers
from vocab.surfaces import bare, kind_of
from vocab.train import train_sizes

RESULT_PATH = Path("docs/results/vocab_curve.json")
PICTURES = {"sst2": Path("docs/vocab-sst2.svg"), "en_de": Path("docs/vocab-en-de.svg")}
MAX_SIZE = "7MB"
SEED = 0
ERROR_SIZES = (3000, 4000, 6000, 8000, 12000)  # of the embedding error
ERROR_TEXTS = 3000


class Job(NamedTuple):
    """What all curves of one corpus share."""

    info: TeacherInfo
    tokenizer: Tokenizer
    files: dict[str, list[str]]
    choice: Choice


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data sets.")
@click.option("--teacher", required=True, help="Folder or hub id of an English classifier.")
def main(data: Path, teacher: str) -> None:
    """Draw the curves and write them."""
    started = time.monotonic()
    phrases = read_table(str(data / "SST-2" / "train.tsv"), needs_label=False).texts
    # Multi30k's suffixes, .en and .de, are no file types; its lines are plain text.
    pairs = {f"train.{code}": _lines(data / "Multi30k" / f"train.{code}") for code in ("en", "de")}
    sst2, en_de = prepare(teacher, {"train.tsv": phrases}), prepare(teacher, pairs)
    rules = {rule: measure(sst2, rule) for rule in get_args(Rule)}
    languages = measure(en_de, DEFAULT_RULE)
    content = {
        "version": 1,
        "command": "python -m benchmarks.vocab_curve --data DIR --teacher MODEL",
        "max_size": MAX_SIZE,
        "seed": SEED,
        "sst2": {rule: _json(sst2, found) for rule, found in rules.items()},
        "en_de": _json(en_de, languages),
        "embedding_error": embedding_errors(sst2),
        "versions": versions(),
        "seconds": round(time.monotonic() - started),
    }
    write_json(RESULT_PATH, content)
    write_text(PICTURES["sst2"], _picture_of_rules(rules))
    picked = pick(languages.points, parse_size(MAX_SIZE))
    write_text(PICTURES["en_de"], picture(languages, picked, is_transparent=False))


def prepare(teacher: str, files: dict[str, list[str]]) -> Job:
    """Read the teacher and choose the student that a run on these texts would get."""
    info = read_teacher(TeacherSection(path=teacher))
    tokenizer = load_tokenizer(info.folder)._tokenizer  # the tokenizers.Tokenizer inside
    kind = kind_of(tokenizer.to_str())
    wanted, bits = StudentSection(), QuantizeSection()
    choice = student_shape(info, tokenizer, files, kind, wanted, bits, None, parse_size(MAX_SIZE))
    return Job(info, tokenizer, files, choice)


def measure(job: Job, rule: Rule) -> Curve:
    """Return the curve by one rule."""
    kind = kind_of(job.tokenizer.to_str())
    found = measure_sizes(job.info, job.tokenizer, job.files, kind, rule, job.choice, seed=SEED)
    click.echo(f"{', '.join(job.files)}, {rule}: {len(found.points)} sizes")
    return found


def embedding_errors(job: Job) -> dict[str, dict[str, float]]:
    """Return the embedding error by rule and size, on held-out texts."""
    texts, held_out = split(next(iter(job.files.values())), SEED)
    table = read_embeddings(job.info.folder)
    teacher = bare(job.tokenizer)
    kind = kind_of(teacher.to_str())
    words, theirs = word_means(teacher, table, held_out[:ERROR_TEXTS])
    scale = float((theirs**2).sum(axis=1).mean())
    errors: dict[str, dict[str, float]] = {}
    for rule in get_args(Rule):
        found = train_sizes(texts, ERROR_SIZES, kind, teacher, rule=rule, embeddings=table)
        errors[rule] = {}
        for size, student in zip(ERROR_SIZES, found, strict=True):
            rows = mapping.apply(mapping.map_vocabulary(student, teacher), table)
            student_words, ours = word_means(student, rows, held_out[:ERROR_TEXTS])
            _, mine, other = np.intersect1d(student_words, words, assume_unique=True, return_indices=True)
            error = float(((ours[mine] - theirs[other]) ** 2).sum(axis=1).mean())
            errors[rule][str(size)] = round(error / scale, 6)
    return errors


def word_means(tokenizer: Tokenizer, table: Floats, texts: list[str]) -> tuple[Integers, Floats]:
    """Return the running words in which a token starts, numbered alike for all tokenizers, and their mean embeddings.

    Shapes: (words,) and (words, width).
    """
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    numbers, first = [], 0
    for words, text in zip(align_batch(texts, None, encodings), texts, strict=True):
        numbers.append(np.where(words == NO_WORD, NO_WORD, words + first))
        first += len(text)  # at least as many as it has words
    of_word = np.concatenate(numbers)  # (tokens,)
    ids = np.array([id_ for encoding in encodings for id_ in encoding.ids])[of_word != NO_WORD]
    found, starts, counts = np.unique(of_word[of_word != NO_WORD], return_index=True, return_counts=True)
    sums = np.add.reduceat(table[ids], starts, axis=0)  # tokens of one word stand together
    return found.astype(np.int64), (sums / counts[:, None]).astype(np.float32)


def _json(job: Job, found: Curve) -> dict[str, Any]:
    max_bytes = parse_size(MAX_SIZE)
    return as_json(found, pick(found.points, max_bytes), job.choice, (max_bytes, None))


def _picture_of_rules(rules: dict[Rule, Curve]) -> str:
    lengths = {str(r): [(p.size, p.measures.tokens_per_text) for p in found.points] for r, found in rules.items()}
    shares = {str(r): [(p.size, 100 * p.measures.coverage) for p in found.points] for r, found in rules.items()}
    picked = pick(rules[DEFAULT_RULE].points, parse_size(MAX_SIZE))
    panels = [Panel("tokens per text", lengths, {}), Panel("% of tokens that the teacher has", shares, {})]
    return draw(panels, picked.point.size if picked else None, is_transparent=False)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


if __name__ == "__main__":
    main()

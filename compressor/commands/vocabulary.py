"""``tenmeg vocab``: train a vocabulary on files of text, or draw the curve of sizes and pick one by bytes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.commands.beforehand import check_files
from compressor.data.columns import DETECTED, Columns
from compressor.files import new_folder, write_json, write_text
from compressor.models.checkpoint import tokenizer_config
from compressor.recipe.recipe import from_dict
from compressor.recipe.sections import QuantizeSection, TeacherSection
from compressor.recipe.student import StudentSection
from compressor.refused import Refused
from exporters.budget import parse_size

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from compressor.models.teacher import TeacherInfo
    from compressor.run.planning.choice import Choice
    from vocab.comparing.curve import Curve, Pick

CURVE_VERSION = 1
UNLIMITED = 10**15
FEWEST_SIZES = 4  # of the usual sizes between the least and the teacher's; with fewer, sizes are spread evenly


def train_vocab(
    teacher: str,
    train_files: Sequence[str],
    vocab_size: int,
    out_dir: Path,
    *,
    vocab_kind: Any = None,  # a Kind; the flag's own check
    vocab_rule: Any = None,  # a Rule, likewise
    balance: bool = False,
    seed: int | None = None,
    columns: Columns = DETECTED,
    revision: str | None = None,
    offline: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train a vocabulary on the rows, map it onto the teacher's, and write tokenizer, map and statistics."""
    from compressor.models.checkpoint import read_embeddings
    from compressor.models.sentence_folder import model_folder
    from compressor.models.teacher import find_folder, load_tokenizer
    from vocab import mapping
    from vocab.choosing import DEFAULT_RULE, check_rule
    from vocab.comparing.curve import balanced
    from vocab.comparing.word_report import statistics
    from vocab.save import save_tokenizer
    from vocab.train import kind_of, train_vocabulary

    if vocab_size == 0:
        raise Refused("--vocab-size 0 keeps the teacher's vocabulary: there is nothing to train. Give a size.")
    check_files(teacher, train_files, columns)
    folder = model_folder(find_folder(teacher, revision, offline))
    tokenizer = load_tokenizer(folder)
    theirs = tokenizer._tokenizer  # the tokenizers.Tokenizer inside
    kind, rule = vocab_kind or kind_of(theirs.to_str()), vocab_rule or DEFAULT_RULE
    check_rule(rule, kind)
    files = read_files(train_files, columns, offline)
    texts = [text for file in files.values() for text in file]
    corpus = balanced(list(files.values()), seed or 0) if balance else texts
    table = read_embeddings(folder) if rule == "embedding" else None
    ours = train_vocabulary(corpus, vocab_size, kind, theirs, rule=rule, embeddings=table)
    numbers = {"kind": kind, "rule": rule, **statistics(ours, theirs, texts)}
    with new_folder(out_dir, overwrite) as part:
        save_tokenizer(ours, part, tokenizer_config(folder), min(int(tokenizer.model_max_length), 512))
        mapping.save(mapping.map_vocabulary(ours, theirs), part / "map.npz")
        numbers["tokenizer_bytes"] = (part / "tokenizer.json").stat().st_size
        write_json(part / "statistics.json", numbers)
    return {"output": str(out_dir), **numbers}


def draw_curve(
    teacher: str,
    train_files: Sequence[str],
    out_dir: Path,
    *,
    sizes: str | None = None,
    vocab_kind: Any = None,  # a Kind; the flag's own check
    vocab_rule: Any = None,  # a Rule, likewise
    balance: bool = False,
    max_size: str | None = None,
    vocab_bytes: str | None = None,
    quantize: Any = None,  # a scheme's name; the flag's own check
    embedding_bits: Any = None,
    block_size: Any = None,
    max_length: int | None = None,
    seed: int | None = None,
    columns: Columns = DETECTED,
    revision: str | None = None,
    offline: bool = False,
    overwrite: bool = False,
    **shape: Any,  # keys of [student]: layers, hidden, heads, ffn, repeat
) -> tuple[dict[str, Any], list[str]]:
    """Measure vocabularies of several sizes, pick one, write curve.json and curve.svg; return the result and its lines.

    ``violations`` of the result name the limits that no size keeps.
    """
    from compressor.models.teacher import read_teacher
    from compressor.report.vocabulary_figure import picture
    from vocab.choosing import DEFAULT_RULE, check_rule
    from vocab.comparing.curve import pick
    from vocab.train import kind_of

    limits = [parse_size(text) if text else None for text in (max_size, vocab_bytes)]
    tried = parse_sizes(sizes)
    check_files(teacher, train_files, columns)
    info = read_teacher(TeacherSection(path=teacher, revision=revision, offline=offline))
    theirs = info.tokenizer
    kind, rule = vocab_kind or kind_of(theirs.to_str()), vocab_rule or DEFAULT_RULE
    check_rule(rule, kind)
    files = read_files(train_files, columns, offline)
    bits = {"scheme": quantize or "auto", "embedding_bits": embedding_bits, "block_size": block_size}
    source = {"teacher": {"path": teacher}, "data": {"train": train_files[0]}}
    run = from_dict({**source, "student": shape, "quantize": bits})  # refuses in the sentences of a recipe
    choice = student_shape(info, theirs, files, kind, run.student, run.quantize, max_length, limits[0])
    found = measure_sizes(info, theirs, files, kind, rule, choice, tried, balance, seed or 0)
    picked = pick(found.points, *limits)
    content = as_json(found, picked, choice, limits)
    about = {"teacher": info.name, "kind": kind, "rule": rule, "balance": balance, "seed": seed or 0}
    with new_folder(out_dir, overwrite) as part:
        write_json(part / "curve.json", {"version": CURVE_VERSION, **about, **content})
        write_text(part / "curve.svg", picture(found, picked))
    return {"output": str(out_dir), **about, **content}, lines_of(found, picked, choice)


def read_files(sources: Sequence[str], columns: Columns, offline: bool) -> dict[str, list[str]]:
    """Return the texts of each file, both texts of a pair."""
    from compressor.data.table import read_table

    twice = [source for place, source in enumerate(sources) if source in sources[:place]]
    if twice:
        raise Refused(f"--train {twice[0]} is given twice. Give every file once; --balance weighs files equally.")
    files = {}
    for source in sources:
        table = read_table(source, columns=columns, offline=offline, needs_label=None)
        files[source] = [*table.texts, *(table.pairs or [])]
    return files


def parse_sizes(text: str | None) -> list[int] | None:
    """Return the numbers in ``2000,4000,8000``."""
    if text is None:
        return None
    try:
        sizes = [int(number) for number in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise Refused(f"--sizes {text}: expected numbers of tokens with commas between, for example 2000,4000,8000.")
    return sizes


def student_shape(
    info: "TeacherInfo",
    teacher: "Tokenizer",
    files: Mapping[str, Sequence[str]],
    kind: Any,
    student: StudentSection,
    quantize: QuantizeSection,
    max_length: int | None,
    max_bytes: int | None,
) -> "Choice":
    """Return the shape and bits that a run on these texts would get; the vocabulary in it is only a first guess."""
    from compressor.run.planning import rows, sizing
    from compressor.run.planning.words import words_of
    from vocab.alphabet import least_size

    texts = [text for file in files.values() for text in file]
    if max_length is None:
        words = sorted(len(text.split()) for text in texts)
        longest = words[int(rows.LENGTH_QUANTILE * (len(words) - 1))] + teacher.num_special_tokens_to_add(is_pair=False)
        max_length = min(info.max_length, max(rows.MIN_LENGTH, math.ceil(longest * rows.FINER_CUT / 8) * 8))
    is_given = None not in (student.layers, student.hidden, student.ffn)
    return sizing.choose(
        info.shape,
        student,
        sizing.with_blocks(quantize, info.answers.block_size),
        None,
        words_of(least_size(teacher, kind), texts),
        max_length + info.family.position_offset,
        kind,
        max_bytes or (UNLIMITED if is_given else None),  # without a budget there is one for what is left open only
        None,
    )


def measure_sizes(
    info: "TeacherInfo",
    teacher: "Tokenizer",
    files: Mapping[str, Sequence[str]],
    kind: Any,
    rule: Any,
    choice: "Choice",
    sizes: Sequence[int] | None = None,
    balance: bool = False,
    seed: int = 0,
) -> "Curve":
    """Return the curve of vocabularies for a student of the chosen shape and bits."""
    from compressor.models.checkpoint import read_embeddings
    from exporters.predicted_bytes import predict_bytes
    from vocab.alphabet import least_size
    from vocab.comparing.curve import Bytes, curve

    def bytes_of(size: int, n_tokenizer_bytes: int) -> Bytes:
        shape = replace(choice.shape, vocab_size=size)
        package = predict_bytes(shape, choice.scheme, n_tokenizer_bytes, kind)
        words_only = predict_bytes(replace(shape, positions=0, token_types=0), choice.scheme, n_tokenizer_bytes, kind)
        return Bytes(words_only["embeddings"], sum(package.values()))

    sizes = sizes or usual_sizes(least_size(teacher, kind), teacher.get_vocab_size())
    table = read_embeddings(info.folder) if rule == "embedding" else None
    return curve(files, sizes, kind, teacher, bytes_of, rule=rule, embeddings=table, is_balanced=balance, seed=seed)


def usual_sizes(least: int, teacher_size: int) -> list[int]:
    """Return the sizes that a run chooses from, between the least and the teacher's; or some evenly spread ones."""
    from compressor.run.planning.choice import VOCABULARY_SIZES

    sizes = sorted(size for size in VOCABULARY_SIZES if least <= size < teacher_size)
    if len(sizes) >= FEWEST_SIZES:
        return sizes
    least = min(least, teacher_size)
    return sorted({round(least * (teacher_size / least) ** (step / 6)) for step in range(7)})


def as_json(found: "Curve", picked: "Pick | None", choice: "Choice", limits: Sequence[int | None]) -> dict[str, Any]:
    """Return the curve, the student it is for, the pick and the limits that nothing keeps."""
    smallest = found.points[0]
    totals = (
        (smallest.package_bytes, "as a package", "--max-size"),
        (smallest.vocabulary_bytes, "alone", "--vocab-bytes"),
    )
    missed = [
        f"size: the smallest vocabulary tried, {smallest.size:,} tokens, takes {n_bytes:,} bytes {how}, "
        f"allowed {limit:,} ({flag})"
        for (n_bytes, how, flag), limit in zip(totals, limits, strict=True)
        if limit is not None and n_bytes > limit
    ]
    student = {**choice.shape.as_dict(), "scheme": choice.scheme.name}
    del student["vocab_size"]
    return {
        "files": found.n_texts,
        "student": student,
        "teacher_cut": found.teacher.as_dict(),
        "points": [point.as_dict() for point in found.points],
        "pick": {"size": picked.point.size, "reasons": list(picked.reasons)} if picked else None,
        "violations": missed,
    }


def lines_of(found: "Curve", picked: "Pick | None", choice: "Choice") -> list[str]:
    """Return the table and the pick for people."""
    from compressor.run.planning.choice import describe

    names = list(found.n_texts)
    by_file = names if len(names) > 1 else []
    short = [Path(name).name[-14:] for name in by_file]
    head = ["tokens", "per text", *short, "one-token words", "teacher's tokens", "time"]
    head += ["vocabulary bytes", "package bytes"]
    rows = []
    for size, measures, *n_bytes in [
        ("teacher", found.teacher, "", ""),
        *((f"{p.size:,}", p.measures, f"{p.vocabulary_bytes:,}", f"{p.package_bytes:,}") for p in found.points),
    ]:
        lengths = [measures.tokens_per_text, *(measures.tokens_per_text_by_file[name] for name in by_file)]
        shares = [f"{100 * measures.whole_words:.1f} %", f"{100 * measures.coverage:.1f} %", f"{measures.time:.3f}"]
        rows.append([size, *(f"{length:.2f}" for length in lengths), *shares, *n_bytes])
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    student = describe(choice.shape, choice.scheme).split(", ")
    about = f"student: {', '.join(part for part in student if not part.endswith('tokens'))}"
    if picked is None:
        return [*table, about, "pick: none"]
    return [*table, about, f"pick: --vocab-size {picked.point.size}", *(f"  {reason}" for reason in picked.reasons)]

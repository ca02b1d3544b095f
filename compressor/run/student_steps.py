"""The steps of a run that make the student: teacher, vocab, student, and one per training stage.

Each takes the plan and the folder it may write into (see ``compressor.run.journal``); none knows how a model is
exported.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer

from compressor.batches.encoded import encode_rows
from compressor.batches.outputs import check_outputs, device, predictor, teacher_outputs
from compressor.batches.teacher_cache import fill_cache
from compressor.data import splits
from compressor.files import write_json
from compressor.models.checkpoint import cutting, read_embeddings, tokenizer_config
from compressor.models.families import plain_type
from compressor.models.teacher import load_model, load_tokenizer
from compressor.refused import Refused
from compressor.run.feeding.batches import stage_batches, variations_of
from compressor.run.feeding.relabel import read_facts
from compressor.run.journal import Journal, is_first_process
from compressor.run.monitor import HELD_OUT_OUTPUTS, evaluation_batches, judge, monitor
from compressor.run.progress import bar, step_bar
from compressor.scoring.evaluate import measured_teacher, outputs_on, tuned
from compressor.student.activations import (
    SAMPLE_ROWS,
    Activations,
    load_activations,
    measure_activations,
    save_activations,
)
from compressor.student.counted import count_words
from compressor.student.pretrained import load_pretrained
from compressor.student.small import build_small
from compressor.student.static import build_static, token_counts
from compressor.student.student import build_student, load_student, save_student
from compressor.student.tfidf import build_tfidf
from compressor.training import projection
from compressor.training.callbacks import discard
from compressor.training.contract import Context
from compressor.training.objective import Objective
from compressor.training.trackers import Tracking
from compressor.training.trainer import n_steps, optimisation_of, train_stage
from exporters.small.shape import FIRST_WORD, SmallShape, TfidfShape
from vocab import mapping
from vocab.comparing.word_report import certificate
from vocab.save import save_tokenizer
from vocab.train import train_vocabulary
from vocab.words import ROLES, word_statistics, word_tokenizer

if TYPE_CHECKING:
    from compressor.run.planning.plan import Plan

logger = logging.getLogger(__name__)
ACTIVATIONS = "activations.npz"  # of the teacher, in the folder of the step "student"


def load_teacher(planned: "Plan") -> "tuple[Any, Tokenizer]":
    """Return the frozen model and its tokenizer."""
    section = planned.resolved.teacher
    model = load_model(planned.info, section.allow_pickle, section.trust_remote_code)
    return model, planned.info.tokenizer


def run_teacher(planned: "Plan", part: Path) -> None:
    """Score the teacher on the evaluation rows and cache its outputs on the training rows."""
    model, tokenizer = load_teacher(planned)
    info = planned.info
    predict = predictor(model, tokenizer, info.max_length, info.pooling, info.truncation)
    spec = tuned(predict, planned.held_out, planned.spec)
    outputs = outputs_on(predict, planned.evaluation, spec)
    check_outputs(outputs)
    scores = measured_teacher(outputs, planned.evaluation, spec)
    np.save(part / "eval_outputs.npy", outputs.astype(np.float32))
    if planned.held_out is not None:
        np.save(part / HELD_OUT_OUTPUTS, outputs_on(predict, planned.held_out, spec).astype(np.float32))
    write_json(part / "reference.json", {"metrics": scores, "rows": len(planned.evaluation)})
    if not any(stage.wants.cache for stage in planned.stages):
        return
    rows = encode_rows(tokenizer, planned.rows, info.max_length, info.truncation)
    layers, first = planned.kept
    model.to(device())
    with bar("teacher", len(rows.lengths), "rows") as advance:
        fill_cache(
            part / "cache",
            len(rows.lengths),
            layers,
            lambda wanted: teacher_outputs(model, info, rows, layers, wanted, first),
            advance,
            first,
        )


def run_variations(planned: "Plan", part: Path) -> None:
    """Cache the teacher's outputs on variations of the training rows, round by round; of their states nothing."""
    model, tokenizer = load_teacher(planned)
    model.to(device())
    info = planned.info
    rows = encode_rows(tokenizer, variations_of(planned), info.max_length, info.truncation)
    n_rows = len(rows.lengths)
    with bar("variations", n_rows, "rows") as advance:
        fill_cache(part / "cache", n_rows, (), lambda wanted: teacher_outputs(model, info, rows, (), wanted), advance)


def run_vocab(planned: "Plan", part: Path) -> None:
    """Train the student's vocabulary (or take the one given, or the teacher's), map it, and say how it cuts."""
    folder = planned.info.folder
    teacher = planned.info.tokenizer
    if isinstance(planned.shape, TfidfShape):
        _write_words(planned, planned.shape, teacher, part)
        return
    config = tokenizer_config(folder)
    if planned.vocabulary is not None:
        config = planned.vocabulary.config_for(config)
    student = _vocabulary(planned, teacher)
    if planned.resolved.vocab.size != 0:
        mapping.save(mapping.map_vocabulary(student, teacher), part / "map.npz")
    (part / "tokenizer").mkdir(exist_ok=True)
    save_tokenizer(student, part / "tokenizer", cutting(config, planned.info.truncation), planned.max_length)
    found = certificate(student, teacher, [*planned.evaluation.texts, *(planned.evaluation.pairs or [])])
    if found["newly_unknown_texts"]:
        given = planned.vocabulary
        instead = "Give a larger --vocab-size, or 0 to keep the teacher's."
        if given:
            instead = "Give another model." if planned.pretrained else "Give another tokenizer, or a --vocab-size."
        raise Refused(
            f"vocab: {found['newly_unknown_texts']} evaluation texts hold characters that the teacher reads and "
            f"{given.source if given else 'the new vocabulary'} does not. {instead}"
        )
    write_json(part / "statistics.json", found)


def _write_words(planned: "Plan", shape: TfidfShape, teacher: Tokenizer, part: Path) -> None:
    """Choose the words that the student counts, and say how they read; what they leave out is no fault."""
    side = planned.info.truncation
    counted = count_words(planned.train, planned.max_length, is_left=side == "left")
    student = word_tokenizer(counted.words[: shape.vocab_size - FIRST_WORD])
    save_tokenizer(student, part / "tokenizer", cutting(dict(ROLES), side), planned.max_length)
    write_json(part / "statistics.json", word_statistics(student, teacher, planned.evaluation.texts))


def _vocabulary(planned: "Plan", teacher: Tokenizer) -> Tokenizer:
    """Return the student's tokenizer: given, the teacher's own, or trained."""
    recipe = planned.resolved
    if planned.vocabulary is not None:
        return planned.vocabulary.tokenizer
    if recipe.vocab.size == 0:
        return Tokenizer.from_str(teacher.to_str())
    assert recipe.vocab.size is not None and recipe.vocab.kind is not None
    texts = [*planned.train.texts, *(planned.train.pairs or [])]
    rule = recipe.vocab.rule
    table = read_embeddings(planned.info.folder) if rule == "embedding" else None
    return train_vocabulary(texts, recipe.vocab.size, recipe.vocab.kind, teacher, rule=rule, embeddings=table)


def student_tokenizer(journal: Journal) -> Tokenizer:
    """Return the student's tokenizer."""
    return Tokenizer.from_file(str(journal.folder("vocab") / "tokenizer" / "tokenizer.json"))


def _vocab_map(journal: Journal) -> mapping.VocabMap | None:
    path = journal.folder("vocab") / "map.npz"
    return mapping.load(path) if path.is_file() else None


def teacher_activations(planned: "Plan", model: Any, tokenizer: Tokenizer) -> Activations:  # Any: of any architecture
    """Return the teacher's activations on training rows, in its own tokens."""
    sample = splits.subset(planned.rows, min(SAMPLE_ROWS, len(planned.train)), planned.resolved.seed)
    rows = encode_rows(tokenizer, sample, planned.info.max_length, planned.info.truncation)
    return measure_activations(model, planned.info.family, rows)


def run_student(planned: "Plan", journal: Journal, part: Path) -> None:
    """Build the initial student out of the teacher, or read the one given."""
    section, seed = planned.resolved.student, planned.resolved.seed
    if planned.pretrained is not None:
        allow_pickle = planned.resolved.teacher.allow_pickle
        student, origin = load_pretrained(planned.pretrained, planned.info, planned.shape, seed, allow_pickle)
    elif isinstance(planned.shape, TfidfShape):
        tokenizer, asked = student_tokenizer(journal), (planned.train, planned.spec, planned.max_length, seed)
        student, origin = build_tfidf(planned.info, planned.shape, tokenizer, *asked)
    elif isinstance(planned.shape, SmallShape):
        teacher = None if section.init == "random" else load_teacher(planned)[0]
        tokenizer = student_tokenizer(journal)
        if section.family == "static":
            counts = token_counts(tokenizer, planned.rows, planned.max_length)
            student, origin = build_static(planned.info, teacher, planned.shape, tokenizer, counts)
        else:
            student, origin = build_small(planned.info, teacher, planned.shape, _vocab_map(journal), seed)
    else:
        model, tokenizer = load_teacher(planned)
        found = None if section.init == "random" else teacher_activations(planned, model, tokenizer)
        if found:
            save_activations(found, part / ACTIVATIONS)  # for stages that start from parts of the teacher too
        vocab_map = _vocab_map(journal)
        chosen = section.init, section.start_layers or "even"
        student, origin = build_student(planned.info, model, planned.shape, vocab_map, found, seed, *chosen)
    given = planned.vocabulary
    if isinstance(planned.shape, TfidfShape):
        pad_token = ROLES["pad_token"]
    else:
        pad_token = given.roles.get("pad_token", "") if given else str(load_tokenizer(planned.info.folder).pad_token)
    pad_id = student_tokenizer(journal).token_to_id(pad_token)
    student.config.pad_token_id = pad_id if pad_id is not None else 0
    folder = part / "model"
    save_student(student, origin, planned.info, folder, planned.max_length, planned.pooling)
    copy_tokenizer(journal, folder)


def copy_tokenizer(journal: Journal, folder: Path) -> None:
    """Put the tokenizer beside the weights, so that the folder opens by itself."""
    for path in (journal.folder("vocab") / "tokenizer").iterdir():
        shutil.copyfile(path, folder / path.name)


def run_stage(
    planned: "Plan", journal: Journal, before: str, number: int, part: Path, tracking: Tracking | None = None
) -> None:
    """Train the student of step ``before`` by stage ``number`` (1 is the first)."""
    stage, info = planned.stages[number - 1], planned.info
    student = load_student(planned.info, journal.folder(before) / "model")
    tokenizer = student_tokenizer(journal)
    objective = build_objective(planned, journal, student, number)
    rows, collate = stage_batches(planned, journal, tokenizer, objective, number, part)
    optimisation = optimisation_of(stage.section, planned.resolved.seed)
    with step_bar(stage.method.name, n_steps(len(planned.rows), optimisation)) as progress:
        score = monitor(planned, journal, tokenizer) if objective.is_scored else None
        carried = projection.carry(objective, journal.folder(before))
        keep = judge(planned, journal, tokenizer) if objective.keeps_best else None
        train_stage(objective, rows, collate, optimisation, part / "work", score, progress, tracking, carried, keep)
    if not is_first_process():
        return
    objective.cpu()
    projection.save(objective, part)
    if objective.is_folded:
        batches = evaluation_batches(planned, tokenizer, student.config.pad_token_id)
        write_json(part / "fold.json", objective.finish(batches))
    (part / "work" / "metrics.jsonl").rename(part / "metrics.jsonl")
    save_student(objective.student.cpu(), None, info, part / "model", planned.max_length, planned.pooling)
    copy_tokenizer(journal, part / "model")
    discard(part / "work")


def build_objective(planned: "Plan", journal: Journal, student: Any, number: int) -> Objective:
    """Build the objective of a stage; its own weights are drawn from the seed."""
    stage, info = planned.stages[number - 1], planned.info
    teacher, activations = _teacher_for(planned, journal, stage.method.objective_class)
    kept = planned.kept
    context = Context(
        student,
        planned.spec,
        planned.pooling,
        info.shape.hidden,
        kept.words,
        info.shape.n_passes,
        teacher=teacher,
        teacher_dir=info.folder,
        vocab_map=_vocab_map(journal),
        model_type=plain_type(info.config["model_type"]),
        activations=activations,
        teacher_first_layers=kept.first,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(planned.resolved.seed + number)
        return stage.method.objective_class(context, stage.options)


def _teacher_for(planned: "Plan", journal: Journal, method: type[Objective]) -> tuple[Any, Activations | None]:
    """Return the teacher's model and its activations, each where the method asks for it."""
    has_model, measures = method.trains_teacher or method.needs_teacher, method.measures
    if not has_model and not measures:
        return None, None
    model, tokenizer = load_teacher(planned)
    path = journal.folder("student") / ACTIVATIONS
    activations = None
    if measures:
        activations = load_activations(path) if path.is_file() else teacher_activations(planned, model, tokenizer)
    return model if has_model else None, activations


def stage_log(journal: Journal, name: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return a stage's log for the report; ``record`` is what its step says of itself."""
    path = journal.folder(name) / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    _, number, method = name.split("-", 2)
    log = [json.loads(line) for line in lines]
    found: dict[str, Any] = {"stage": int(number), "method": method, "log": log, **read_facts(journal.folder(name))}
    return found | {key: record[key] for key in ("seconds", "cpu_seconds") if key in record}

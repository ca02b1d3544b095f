"""Make a teacher: a pretrained encoder fine-tuned on labelled rows, saved as an ordinary Hugging Face folder.

Same data, same trainer and same resume as a student's stages, with the method ``finetune``. The labels are the data's
own, in sorted order; numbers with fractions make it a regression, and rows hold several labels where ``task`` says
so. A sentence encoder may be the start: its pooling is dropped and a head is put on.

A new head is solved for first (``compressor.run.teaching.head``); then everything is trained, every layer at its own
rate, and the model is kept as it was after the epoch that scored best on training rows that are held out. The
evaluation rows decide nothing. Beside its score stand those of TF-IDF and of a linear model on the vectors of the
frozen encoder, either of which a teacher should beat.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from compressor.batches.encoded import Collator, encode_rows
from compressor.batches.outputs import predictor, takes_segments
from compressor.data.labels import check_spellings, is_regression
from compressor.data.splits import read_rows, split_holdout, subset
from compressor.data.table import Table, describe_rows
from compressor.files import sha256_file, write_json
from compressor.methods import finetune as method
from compressor.models.configuration import check_room
from compressor.models.sentence_folder import lowers
from compressor.models.teacher import TeacherInfo, load_tokenizer, read_teacher
from compressor.packaging import baselines
from compressor.recipe.recipe import FinetuneJob
from compressor.recipe.sections import StageSection
from compressor.refused import Refused
from compressor.report.verdict import verdict_on_teacher
from compressor.run.journal import Journal, is_first_process
from compressor.run.planning.stage_defaults import fill_finetuning
from compressor.run.progress import quiet_libraries, step_bar
from compressor.run.teaching import head
from compressor.run.teaching.frozen import MOST_ROWS, Frozen, pooling_of, probe
from compressor.scoring.contract import TaskSpec
from compressor.scoring.evaluate import Predict, evaluate
from compressor.scoring.registry import load_kind, trainable_kind
from compressor.training.callbacks import discard, last_checkpoint
from compressor.training.contract import Context
from compressor.training.objective import Objective
from compressor.training.registry import build_options
from compressor.training.trackers import Tracking, known_trackers
from compressor.training.trainer import n_steps, optimisation_of, train_stage
from exporters.weights import Opened, open_model

MOST_SIMPLE_ROWS = 200_000  # 67,000 short ones take 8 s
MAX_LENGTH_CAP = 256  # longer inputs are cut; --max-length says otherwise
# Training rows that choose the epoch: so many in 100, unless these are too few to tell epochs apart, or are missed.
HELD_OUT, FEWEST_HELD_OUT, MOST_HELD_OUT = 0.05, 100, 1000
MOST_SHARE = 0.1
FEW_OF_A_CLASS = 20


class Prepared(NamedTuple):
    """Everything decided before the first step."""

    info: TeacherInfo
    spec: TaskSpec
    train: Table
    evaluation: Table
    stage: StageSection
    max_length: int


def finetune(
    job: FinetuneJob,
    out_dir: Path,
    overwrite: bool = False,
    echo: Callable[[str], None] = lambda _line: None,
    report_to: Sequence[str] = (),
) -> dict[str, Any]:
    """Fine-tune the model of ``job`` into ``out_dir`` and return its score, with TF-IDF's and the frozen encoder's.

    The curves go to the trackers ``report_to``, whose files stand beside the model in ``OUT.logs``.

    Raises:
        FileExistsError: if ``out_dir`` is in use and ``overwrite`` is off.
        ValueError: if model and data do not fit together.
    """
    if out_dir.exists() and not overwrite and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise FileExistsError(f"--output {out_dir} exists already. Choose another --output, or give --overwrite.")
    trackers = known_trackers(report_to)
    quiet_libraries()
    prepared = prepare(job)
    echo(f"model    {prepared.info.name}, {prepared.info.shape.n_parameters / 1e6:.1f} M parameters")
    echo(f"train    {describe_rows(prepared.train)}")
    echo(f"eval     {describe_rows(prepared.evaluation)}")
    beside = _beside(prepared, job.seed) if job.measure.baselines and is_first_process() else {}
    work_dir = out_dir.with_name(f".{out_dir.name}.run")
    journal = Journal(work_dir, echo)
    inputs = {
        "job": job.digest(*(name for name in type(job).model_fields if name != "measure")),
        "model": prepared.info.hashes,
        "data": [prepared.train.sha256, prepared.evaluation.sha256],
    }
    result: dict[str, Any] = {}

    events_dir = out_dir.with_name(f"{out_dir.name}.logs") / "finetune"
    tracking = Tracking(trackers, f"{out_dir}/finetune", events_dir) if trackers else None
    work = partial(train_model, prepared, job.seed, tracking=tracking)
    uses = ("compressor.methods.finetune", *prepared.spec.modules())
    folder = journal.step("model", inputs, (), work, resumes=True, on_every_process=True, uses=uses)
    if not is_first_process():
        return result
    metrics = evaluate(trained_predictor(prepared, folder / "model"), prepared.evaluation, prepared.spec).metrics
    against = verdict_on_teacher(prepared.spec.metric, metrics, **beside) if beside else []
    held_out = held_out_of(prepared, job.seed)[1]
    result = {
        "version": 1,
        "model": str(out_dir),
        "rows": {
            "train": len(prepared.train),
            "held_out": len(held_out) if held_out else 0,  # of them
            "eval": len(prepared.evaluation),
        },
        "labels": list(prepared.spec.labels),
        **metrics,
        **({"tfidf": beside["simple"], "probe": beside["probe"], "verdict": against} if beside else {}),
        "seconds": journal.read("model")["seconds"],
        "sha256": sha256_file(folder / "model" / "model.safetensors"),
    }
    write_json(folder / "model" / "finetune.json", {key: value for key, value in result.items() if key != "model"})
    if out_dir.exists():
        shutil.rmtree(out_dir)
    (folder / "model").rename(out_dir)
    shutil.rmtree(work_dir)
    return result


def _beside(prepared: Prepared, seed: int) -> dict[str, dict[str, float]]:
    """Return what simpler models score on the same rows; nothing where there are too many to wait for.

    These are TF-IDF with all its terms, and the linear model on the vectors of the frozen encoder.
    """
    train, evaluation, spec = prepared.train, prepared.evaluation, prepared.spec
    if len(train) > MOST_SIMPLE_ROWS:
        return {}
    found = baselines.tfidf(train, evaluation, spec, None, seed)
    frozen = Frozen(prepared.info, pooling_of(prepared.info), prepared.max_length)
    of_frozen = probe(frozen, train, evaluation, spec, seed)
    return {"simple": {**found.metrics, "bytes": found.bytes}, "probe": of_frozen}


def prepare(job: FinetuneJob) -> Prepared:
    """Read model and data and fill in what the user left open."""
    base = read_teacher(job.teacher.model_copy(update={"task": "feature-extraction"}))
    if lowers(base.folder):
        raise Refused(
            f"--model {job.teacher.path}: sentence-transformers lower-cases texts for it (do_lower_case), which "
            "transformers would not. Remove do_lower_case, or use a model whose tokenizer does so itself."
        )
    kind = trainable_kind(job.task) if job.task else None
    several = () if kind and kind.several_labels else None
    learned: list[tuple[str, ...]] = []  # from the whole file: rows that are held out have the same labels

    def learn(table: Table) -> tuple[str, ...]:
        assert kind is not None
        learned.append(kind.collect(table))
        return learned[0]

    train, evaluation = read_rows(
        job.data,
        job.seed,
        offline=job.teacher.offline,
        needs_label=(True, True),
        several=several,
        learn=learn if several is not None else None,
    )
    assert train.labels is not None
    if kind is None:
        kind = load_kind("regression" if is_regression(train.labels) else "classification")  # type: ignore[arg-type]
    if kind.has_classes:
        _check_names(train, evaluation)
    spec = kind.of(learned[0] if learned else kind.collect(train), pair=train.pairs is not None)
    kind.check_training(train)
    for table in (train, evaluation):
        spec.targets(table)
    info = replace(base, task=spec.head().task, kind=spec.kind, labels=spec.labels or ("LABEL_0",), pooling=None)
    max_length = min(base.max_length, job.teacher.max_length or MAX_LENGTH_CAP)
    check_room(max_length, job.teacher.max_length == max_length, base.tokenizer, spec.pair, "model")
    stage = fill_finetuning(job.stage[0], len(train), info.shape.hidden)
    return Prepared(info, spec, train, evaluation, stage, max_length)


def _check_names(*tables: Table) -> None:
    """Refuse classes that differ only in how they are written, counted in the whole file where rows are held out."""
    names: dict[str, list[str]] = {}
    for table in tables:
        of_file = names.setdefault(table.source, [])
        for labels in table.labels or []:
            of_file.extend(labels if isinstance(labels, tuple) else [str(labels)])
    check_spellings(names[tables[0].source], tables[0].source)


def train_model(
    prepared: Prepared, seed: int, part: Path, title: str = "finetune", tracking: Tracking | None = None
) -> None:
    """Train the model into ``part/model``; a killed call goes on at its checkpoint in ``part/work``."""
    tokenizer = load_tokenizer(prepared.info.folder)
    opened = open_classifier(prepared.info.folder, prepared.info, seed)
    model = opened.model.float()
    train, held_out = held_out_of(prepared, seed)
    rows = encode_rows(tokenizer._tokenizer, train, prepared.max_length, prepared.info.truncation)
    stage = prepared.stage
    options: Any = build_options(stage.method, stage.options)  # the method's own
    objective = method.Objective(Context(model, prepared.spec), options)
    segments = takes_segments(prepared.info.config["model_type"])
    collate = partial(Collator, rows, model.config.pad_token_id or 0, segments)
    optimisation = optimisation_of(stage, seed)
    objective.by_layer(optimisation.learning_rate)
    # A head that has learned the same labels stays; a run that goes on has the one that was solved for.
    if f"{method.last_linear(model)[0]}.weight" in opened.missing and last_checkpoint(part / "work") is None:
        start_head(model, prepared, train, seed)
    keep = _judge(prepared, held_out) if held_out else None
    with step_bar(title, n_steps(len(train), optimisation)) as progress:
        labelled = collate(prepared.spec.target_array(train))
        train_stage(objective, rows, labelled, optimisation, part / "work", None, progress, tracking, keep=keep)
    if not is_first_process():
        return
    model.cpu().save_pretrained(part / "model")
    tokenizer.model_max_length = prepared.max_length
    tokenizer.save_pretrained(part / "model")
    (part / "work" / "metrics.jsonl").rename(part / "metrics.jsonl")
    discard(part / "work")


def held_out_of(prepared: Prepared, seed: int) -> tuple[Table, Table | None]:
    """Return the rows to learn from, and those that choose the epoch; none where they would be missed."""
    train = prepared.train
    n_rows = int(min(MOST_HELD_OUT, max(FEWEST_HELD_OUT, HELD_OUT * len(train))))
    is_few = len(train) < FEW_OF_A_CLASS * len(prepared.spec.labels) or n_rows > MOST_SHARE * len(train)
    return (train, None) if is_few else split_holdout(train, n_rows / len(train), seed)


def _judge(prepared: Prepared, held_out: Table) -> Callable[[Objective], float]:
    """Return the function that scores a model in training on rows it does not learn from."""
    tokenizer = load_tokenizer(prepared.info.folder)._tokenizer

    def score(objective: Objective) -> float:
        predict = predictor(objective.student, tokenizer, prepared.max_length, None, prepared.info.truncation)
        return evaluate(predict, held_out, prepared.spec).metrics[prepared.spec.metric]

    return score


def start_head(model: Any, prepared: Prepared, train: Table, seed: int) -> None:  # Any: a PreTrainedModel
    """Solve for the head of a model on training rows."""
    info, spec = prepared.info, prepared.spec
    seen = subset(train, MOST_ROWS, seed)
    targets = spec.targets(seen)
    assert targets is not None
    tokenizer = load_tokenizer(info.folder)._tokenizer
    encoded = encode_rows(tokenizer, seen, prepared.max_length, info.truncation)
    collate = Collator(encoded, model.config.pad_token_id or 0, takes_segments(info.config["model_type"]))
    head.start(model, head.Rows(encoded, collate, targets), spec, pooling_of(info), seed)


def trained_predictor(prepared: Prepared, folder: Path) -> Predict:
    """Return the function from texts (and pairs) to outputs of the model in ``folder``, which ``train_model`` made.

    Texts are cut where those that it learned were.
    """
    model, tokenizer = load_classifier(folder, prepared.info), load_tokenizer(folder)._tokenizer
    return predictor(model, tokenizer, prepared.max_length, None, prepared.info.truncation)


def load_classifier(folder: Path, info: TeacherInfo, seed: int = 0) -> Any:
    """Return the encoder with a head for the labels; one that is missing, or for other labels, is drawn from ``seed``.

    Raises:
        ValueError: if weights of the encoder have other sizes than config.json says.
    """
    return open_classifier(folder, info, seed).model.float()


def open_classifier(folder: Path, info: TeacherInfo, seed: int = 0) -> Opened:
    """Return the same, and which tensors were drawn."""
    import torch
    from transformers import AutoModelForSequenceClassification

    import exporters.repeats  # noqa: F401 - registers the architectures whose layers repeat

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_model(
            AutoModelForSequenceClassification,
            folder,
            where="model",
            is_new_head=True,  # or for another number of labels
            id2label=dict(enumerate(info.labels)),
            label2id={name: index for index, name in enumerate(info.labels)},
            problem_type=info.answers.problem_type,
        )

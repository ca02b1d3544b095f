"""The flags of the command line, each defined once: the same name, help and default in every command that has it.

A flag that is left out stays ``None`` and the recipe's own default holds; ``default`` below only says it aloud (a test
compares the two). ``place`` is where the value goes in the recipe, which is not imported here: ``--help`` stays quick.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from compressor.training.trackers import TRACKERS

Command = TypeVar("Command", bound=Callable[..., Any])  # any command body: click passes it keyword arguments

POSITIVE = click.IntRange(min=1)
NUMBER = {"type": POSITIVE, "metavar": "N"}
PATH = click.Path(path_type=Path)
DIR = {"type": PATH, "metavar": "DIR"}


class Flag(NamedTuple):
    """One flag: its help, the default as the user reads it, and its place in the recipe ('section.key')."""

    help: str
    default: str | None = None
    place: str | None = None
    settings: dict[str, Any] = {}  # noqa: RUF012 - keyword arguments of click.option, never written to


def _switch(*names: str) -> dict[str, Any]:
    return {"is_flag": True, "names": names}


def _repeat(text: str) -> str | list[int]:
    """Return the numbers of layers, or the name of a pattern; the recipe knows which names there are."""
    parts = text.split(",")
    return [int(part) for part in parts] if all(part.strip().isdecimal() for part in parts) else text


SWITCHES_BOTH_WAYS = ("baselines", "exchange")  # off is something that a user says
FLAGS: dict[str, Flag] = {
    "teacher": Flag("Folder or hub id of the fine-tuned model.", None, "teacher.path", {"metavar": "MODEL"}),
    "model": Flag("Folder or hub id of the model to fine-tune.", None, "teacher.path", {"metavar": "MODEL"}),
    "task": Flag(
        "Kind of task: classification, regression, or multi_label (any number of labels a row).",
        "by the labels",
        "task",
        {"metavar": "KIND"},
    ),
    "revision": Flag("Hub revision: branch, tag or commit.", "the newest", "teacher.revision"),
    "offline": Flag("Never ask the hub.", "off", "teacher.offline", _switch()),
    "allow_pickle": Flag("Load .bin checkpoints, which can run code.", "off", "teacher.allow_pickle", _switch()),
    "trust_remote_code": Flag("Run code that the checkpoint brings.", "off", "teacher.trust_remote_code", _switch()),
    "max_length": Flag(
        "Tokens per input.", "from the data", "teacher.max_length", {"type": click.IntRange(min=4), "metavar": "N"}
    ),
    "recipe": Flag(
        "Recipe to start from, a name ('tenmeg recipes') or a .toml file; flags win.",
        "none",
        None,
        {"metavar": "NAME_OR_FILE"},
    ),
    "train": Flag("Training rows: .tsv .csv .jsonl .parquet .txt (also .gz) or a hub id.", None, "data.train"),
    "eval": Flag("Evaluation rows, like --train.", "5 % held out of --train", "data.eval"),
    "text_column": Flag("Column with the text.", "detected", "data.text_column"),
    "pair_column": Flag("Column with the second text of a pair.", "detected", "data.pair_column"),
    "label_column": Flag(
        "Column with the label, labels or score; or columns of 0 and 1, one for each label: A,B,C.",
        "detected",
        "data.label_column",
    ),
    "max_rows": Flag("Use only so many training rows, drawn by --seed.", "all", "data.max_rows", NUMBER),
    "vocab_size": Flag(
        "Exact number of tokens; 0 keeps the teacher's vocabulary.",
        "by --max-size",
        "vocab.size",
        {"type": click.IntRange(min=0), "metavar": "N"},
    ),
    "vocab_kind": Flag(
        "Algorithm of the vocabulary.",
        "the teacher's",
        "vocab.kind",
        {"type": click.Choice(["wordpiece", "unigram", "bpe"])},
    ),
    "vocab_rule": Flag(
        "What tokens are chosen by: longer cuts without them, frequency, likelihood, or the teacher's embeddings.",
        "cuts",
        "vocab.rule",
        {"type": click.Choice(["cuts", "frequency", "likelihood", "embedding"])},
    ),
    "vocab_from": Flag(
        "Folder with a tokenizer.json (or that file) to use as it is.",
        "trained on --train",
        "vocab.path",
        {"metavar": "FOLDER"},
    ),
    "other_vocab": Flag(
        "Folder with a tokenizer.json (or that file) to use as it is.",
        "the model's",
        None,
        {"metavar": "FOLDER", "names": ("--vocab-from", "vocab_from")},
    ),
    "train_files": Flag(
        "Training rows: .tsv .csv .jsonl .parquet .txt (also .gz) or a hub id; again for each further file.",
        None,
        None,
        {"multiple": True, "names": ("--train", "train_files")},
    ),
    "balance": Flag("Let files weigh equally, not by their lines.", "off", None, _switch()),
    "sizes": Flag(
        "Sizes to try, e.g. 2000,4000,8000.", "from the least to the teacher's", None, {"metavar": "N,N,..."}
    ),
    "vocab_bytes": Flag(
        "Bytes of the vocabulary alone, embeddings and tokenizer.json, e.g. 2MB.", "no limit", None, {"metavar": "SIZE"}
    ),
    "pretrained": Flag(
        "Folder or hub id of a smaller model to start from: its shape, weights and tokenizer.",
        "none",
        "student.pretrained",
        {"metavar": "MODEL"},
    ),
    "family": Flag(
        "What the student is: a transformer; a small encoder of recurrent units, convolutions or a mean; or, without "
        "training, static vectors of the teacher's, or tfidf: counted words under a linear model.",
        "by --max-size",
        "student.family",
        {"type": click.Choice(["transformer", "recurrent", "convolution", "mean", "static", "tfidf"])},
    ),
    "embedding": Flag("Columns of the token table of a small encoder.", "by --max-size", "student.embedding", NUMBER),
    "layers": Flag("Layers of the student.", "by --max-size", "student.layers", NUMBER),
    "hidden": Flag(
        "Width of the student; of a small encoder its units, of tfidf buckets for pairs of words.",
        "by --max-size",
        "student.hidden",
        NUMBER,
    ),
    "heads": Flag("Attention heads of the student.", "by --max-size", "student.heads", NUMBER),
    "ffn": Flag(
        "Feed-forward units of the student; of a small encoder those of its dense layer.",
        "by --max-size",
        "student.ffn",
        NUMBER,
    ),
    "init": Flag(
        "Start of the student: parts of the teacher, its mapped embeddings only, or random weights.",
        "teacher",
        "student.init",
        {"type": click.Choice(["teacher", "embeddings", "random"])},
    ),
    "start_layers": Flag(
        "Layers of the teacher that the start is made of: at even depth, or the first ones.",
        "even",
        "student.start_layers",
        {"type": click.Choice(["even", "first"])},
    ),
    "repeat": Flag(
        "Layers that run again, for depth without bytes: none, all, top_half, bottom_half, immediate, mirror, "
        "or numbers counted from 0, e.g. 0,1.",
        "none",
        "student.repeat",
        {"type": _repeat, "metavar": "NAME|N,N,..."},
    ),
    "exchange": Flag(
        "Exchange query and key when a layer runs again.",
        "exchange",
        "student.exchange",
        {"names": ("--exchange/--no-exchange",), "default": None},
    ),
    "quantize": Flag(
        "Bits of the packaged weights.",
        "auto",
        "quantize.scheme",
        {"type": click.Choice(["auto", "int8", "int4", "none"])},
    ),
    "embedding_bits": Flag(
        "Bits of the embedding tables.", "as --quantize", "quantize.embedding_bits", {"type": click.Choice([4, 8])}
    ),
    "format": Flag(
        "Also write onnxruntime's own format, for its mobile builds, beside the ONNX file.",
        "onnx",
        None,
        {"type": click.Choice(["onnx", "ort"])},
    ),
    "block_size": Flag(
        "Values that share one 4-bit scale.",
        "32",
        "quantize.block_size",
        {"type": click.Choice([16, 32, 64, 128, 256])},
    ),
    "max_size": Flag("Bytes of the whole package, e.g. 7MB.", "no limit", "budget.max_size"),
    "max_latency": Flag("Time from text to answer, e.g. p95=5ms.", "no limit", "budget.max_latency"),
    "metric": Flag(
        "Number that decides on drops: accuracy, f1, macro_f1, spearman, recall@10, ... as the task has them.",
        "the task's usual one",
        "measure.metric",
        {"metavar": "NAME"},
    ),
    "max_drop": Flag(
        "Points of the metric below the teacher.", "no limit", "budget.max_drop", {"type": float, "metavar": "POINTS"}
    ),
    "method": Flag(
        "Training method, one stage each ('tenmeg methods').", "distill", "stage.method", {"multiple": True}
    ),
    "option": Flag(
        "Option of the method, or METHOD.KEY=VALUE with several methods.",
        "none",
        "stage.options",
        {"multiple": True, "metavar": "KEY=VALUE"},
    ),
    "effort": Flag(
        "How much to train, as a multiple of the default amount of arithmetic, e.g. 0.25 or 4.",
        "1.0",
        "effort",
        {"type": click.FloatRange(min=0, min_open=True), "metavar": "N"},
    ),
    "minutes": Flag(
        "Train for about so long; this machine is measured once, and the epochs are written into OUT/recipe.toml.",
        "by --effort",
        "minutes",
        {"type": click.FloatRange(min=0, min_open=True), "metavar": "N"},
    ),
    "variations": Flag(
        "Variations of each training row that the teacher answers too; 0: none.",
        "by the epochs",
        "data.variations",
        {"type": click.IntRange(min=0), "metavar": "N"},
    ),
    "epochs": Flag("Passes over the training rows.", "by the method", "stage.epochs", {"type": float, "metavar": "N"}),
    "learning_rate": Flag(
        "Peak learning rate.", "by the method", "stage.learning_rate", {"type": float, "metavar": "RATE"}
    ),
    "batch_size": Flag("Rows per step.", "by the number of rows", "stage.batch_size", NUMBER),
    "micro_batch": Flag("Rows per forward pass: less memory.", "--batch-size", "stage.micro_batch", NUMBER),
    "evaluate_every": Flag("Steps between scores on the evaluation rows.", "an epoch", "stage.evaluate_every", NUMBER),
    "seed": Flag("Seed of every random choice.", "0", "seed", {"type": click.IntRange(min=0), "metavar": "N"}),
    "ep": Flag("Execution provider to measure on.", "cpu", "measure.ep", {"type": click.Choice(["cpu", "cuda"])}),
    "threads": Flag("Threads of the measured runtime.", "1", "measure.threads", NUMBER),
    "runs": Flag("Timed answers.", "300", "measure.runs", NUMBER),
    "baselines": Flag(
        "Also score TF-IDF and, of a package, its teacher as ONNX int8.",
        "baselines",
        "measure.baselines",
        {"names": ("--baselines/--no-baselines",), "default": None},
    ),
    "output": Flag("Folder to write to.", None, None, DIR),
    "cache": Flag("Folder in which runs share vocabulary, teacher outputs and start.", "none", None, DIR),
    "report_to": Flag(
        "Also send the curves of training to a tracker; again for each. Files of tensorboard: OUT/logs, or OUT.logs "
        "beside the model of finetune.",
        "none",
        None,
        {"type": click.Choice(TRACKERS), "multiple": True},
    ),
    "overwrite": Flag("Replace what another run left in --output.", "off", None, _switch()),
    "dry_run": Flag("Print the plan, write the resolved recipe, train nothing.", "off", None, _switch()),
    "as_json": Flag("One JSON object on stdout, all else on stderr.", "off", None, _switch("--json", "as_json")),
}

TEACHER = ("revision", "offline", "allow_pickle", "trust_remote_code", "max_length")
COLUMNS = ("text_column", "pair_column", "label_column")
SHAPE = (
    "family", "vocab_size", "vocab_kind", "vocab_rule", "vocab_from", "embedding", "layers", "hidden", "heads", "ffn",
    "repeat", "exchange", "init", "start_layers", "pretrained",
)  # fmt: skip
BITS = ("quantize", "embedding_bits", "block_size")
BUDGET = ("max_size", "max_latency", "max_drop")
OPTIMISATION = ("epochs", "learning_rate", "batch_size", "micro_batch", "evaluate_every", "max_rows", "seed")


def flags(*names: str, required: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the flags ``names``, in this order in its help."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = _option(name, name in required)(command)
        return command

    return decorate


def _option(name: str, required: bool) -> Callable[[Command], Command]:
    flag = FLAGS[name]
    settings = dict(flag.settings)
    declared = settings.pop("names", ()) or (f"--{name.replace('_', '-')}",)
    if name == "as_json":
        settings["callback"] = _remember_json
    text = flag.help if flag.default is None or required else f"{flag.help}  [default: {flag.default}]"
    return click.option(*declared, help=text, show_default=False, required=required, **settings)


def _remember_json(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    context.meta["tenmeg.json"] = value  # the error path has no other way to know
    return value

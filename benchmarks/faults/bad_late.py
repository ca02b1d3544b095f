"""The bad inputs that were once refused only at the end of a run, or not by name: data, as in ``faults.bad_cases``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults import bad_files as bad
from benchmarks.faults.bad_files import Case, Make
from benchmarks.support.tiny import Tiny

TEACHER = "compress --teacher {here}/teacher --train {train} --eval {dev} --output {out}"
PAIRS = "compress --teacher {here}/teacher --train {here}/pairs.tsv --output {out}"
EXPORT = "export {here}/teacher --output {out}"
NAMES, LENGTH, NUMBERS = "Names of labels", "Length", "Numbers"
STEPS = r"out(/(run\.json|recipe\.toml|steps(/.*)?))?"


def named(*names: str) -> Make:
    """Return what calls the teacher's labels so."""
    return bad.configured(id2label={str(index): name for index, name in enumerate(names)}, label2id=None)


def scaled(name: str, factor: float) -> Make:
    """Return what multiplies one tensor of the teacher's weights; all of them stay finite."""

    def change(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors[name] = tensors[name] * tensors[name].dtype.type(factor)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return bad.teacher(change)


def limited(n_tokens: int) -> Make:
    """Return what lets the teacher's tokenizer know a limit."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        content = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": n_tokens}
        path.write_text(json.dumps(content), encoding="utf-8")

    return bad.teacher(change)


def four_special(folder: Path) -> None:
    """Let the tokenizer put four special tokens around one text, and around two, as RoBERTa's does."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    start, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    content["post_processor"]["single"] = [start, start, first, end, end]
    content["post_processor"]["pair"] = [start, first, end, end, second, end]
    path.write_text(json.dumps(content), encoding="utf-8")


def pairs(here: Path, tiny: Tiny) -> None:
    """Write rows of two texts, and such a teacher."""
    bad.teacher(four_special)(here, tiny)
    rows = "".join(f"a film {number}\tthe film\t{number % 2}\n" for number in range(60))
    bad.text_file("pairs.tsv", "sentence1\tsentence2\tlabel\n" + rows)(here, tiny)


def beside(name: str) -> Callable[[Path, Tiny], object]:
    """Return what puts a good teacher under another name."""
    return lambda here, tiny: shutil.copytree(tiny.teacher, here / name)


LATE = [
    Case(NAMES, "two labels of one name", TEACHER,
         r"the label 'other' of 1 is the name of 0 as well, expected another name that can be read for each\. Correct",
         named("other", "other")),
    Case(NAMES, "two labels of one name, to export", EXPORT,
         r"the label 'other' of 1 is the name of 0 as well, expected another name that can be read for each\. Correct",
         named("other", "other")),
    Case(NAMES, "a label without a name", TEACHER, r"the label ' ' of 1 is empty, expected another name .* Correct it",
         named("bad", " ")),
    Case(NAMES, "a label without a name, to export", EXPORT, r"the label '' of 0 is empty, expected another name .* Co",
         named("", "good")),
    Case(NAMES, "a line break in a label", TEACHER,
         r"the label 'go\\nod' of 1 holds a control character, expected another name .* Correct it there, and in label",
         named("bad", "go\nod")),
    Case(NAMES, "ids of labels with a gap", TEACHER,
         r"id2label in config\.json has the ids 0, 2, expected 0, 1, \.\.\. without gaps\. Correct it",
         bad.configured(id2label={"0": "bad", "2": "good"})),
    Case(NAMES, "ids of labels that begin with 1, to export", EXPORT,
         r"id2label in config\.json has the ids 1, 2, expected 0, 1, \.\.\. without gaps\. Correct it",
         bad.configured(id2label={"1": "bad", "2": "good"})),
    Case(LENGTH, "no room beside the special tokens", f"{TEACHER} --max-length 4",
         r"--max-length 4 leaves no room for the text beside the 4 special tokens that one text gets\. Use --max",
         bad.teacher(four_special)),
    Case(LENGTH, "no room beside the special tokens of a pair", f"{PAIRS} --max-length 4",
         r"--max-length 4 leaves no room for the text beside the 4 special tokens that two texts get\. Use --max",
         pairs),
    Case(LENGTH, "a teacher that takes only special tokens", TEACHER,
         r"teacher: it takes 2 tokens \(.*model_max_length.*\), which leaves no room for the text .* Correct the",
         limited(2)),
    Case(LENGTH, "no room beside the special tokens, to export", f"{EXPORT} --max-length 4",
         r"--max-length 4 leaves no room for the text beside the 4 special tokens that one text gets\. Use --max",
         bad.teacher(four_special)),
    Case(LENGTH, "no room beside the special tokens, to fine-tune",
         "finetune --model {here}/teacher --train {train} --output {out} --max-length 4",
         r"--max-length 4 leaves no room for the text beside the 4 special tokens that one text gets\. Use --max",
         bad.teacher(four_special)),
    Case("Teacher", "a misspelt folder", "compress --teacher {here}/my-clasifier --train {train} --output {out}",
         r"teacher: folder .*my-clasifier does not exist\. Did you mean '.*my-classifier'\?", beside("my-classifier")),
    Case(NUMBERS, "as many layers as no machine holds", TEACHER,
         r"config\.json says 1,000,000,000 for num_hidden_layers, expected 10,000 at most\. .* download the checkpoint",
         bad.configured(num_hidden_layers=10**9)),
    Case(NUMBERS, "as many labels as no machine holds", TEACHER,
         r"config\.json says 1,000,000,000 for num_labels, expected 1,000,000 at most\. .* download the checkpoint",
         bad.configured(id2label=None, label2id=None, num_labels=10**9)),
    Case(NUMBERS, "as many layers as no machine holds, to export", EXPORT,
         r"config\.json says 1,000,000,000 for num_hidden_layers, expected 10,000 at most\. .* download the checkpoint",
         bad.configured(num_hidden_layers=10**9)),
    Case(NUMBERS, "more parameters than the weights have bytes", TEACHER,
         r"config\.json says sizes of [\d,]+ parameters, the weights in .* have [\d,]+ bytes\. .* download both again",
         bad.configured(intermediate_size=10**8)),
    Case(NUMBERS, "outputs of the teacher that overflow", f"{TEACHER} --max-size 90kB",
         r"teacher: its outputs on 60 of 60 rows are not finite numbers, though its weights are: .* Train it again",
         scaled("classifier.weight", 3e38), keeps=STEPS),
    Case(NUMBERS, "hidden states that float16 cannot hold", f"{TEACHER} --max-size 90kB --family transformer",
         r"its hidden states reach \S+, expected 65,504 at most: they are kept as float16\. .*--option hidden=0\), or",
         scaled("bert.encoder.layer.0.output.LayerNorm.weight", 1e6), keeps=STEPS),
]  # fmt: skip

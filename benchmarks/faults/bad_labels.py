"""The bad inputs that concern several labels a row: data, as in ``benchmarks.faults.bad_cases``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults import bad_files as bad
from benchmarks.faults.bad_files import Case, Make
from benchmarks.support.tiny import EMOTIONS, Tiny, make_rows

COMPRESS = "compress --teacher {several} --train {here}/rows.jsonl --output {out}"
TABLE = "compress --teacher {several} --train {here}/rows.tsv --output {out}"
TEACHER = "compress --teacher {here}/teacher --train {train} --output {out}"
FINETUNE = "finetune --model {teacher} --train {here}/rows.jsonl --output {out}"
VERIFY = "verify {here}/package"
GROUP, PACKAGE = "Several labels a row", "A package of several labels"
THRESHOLDS = r"thresholds is {}, expected a number from 0 to 1 for each label\. Rebuild it\."


def good_rows(n_rows: int = 60) -> list[dict[str, Any]]:
    """Return rows with none to two labels each; a ``text`` and ``labels``. Any: what a case puts there."""
    texts = [text for text, _ in make_rows(n_rows, seed=2)]
    held = [list(EMOTIONS[number % 5 : number % 5 + 1 + number % 2]) for number in range(n_rows)]
    return [{"text": text, "labels": labels} for text, labels in zip(texts, held, strict=True)]


def listed(change: Callable[[list[dict[str, Any]]], object] = list, name: str = "rows.jsonl") -> Make:
    """Return what writes good rows with lists, changed, as one object a line."""

    def make(here: Path, _tiny: Tiny) -> None:
        rows = good_rows()
        change(rows)
        (here / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    return make


def holding(labels: object) -> Make:
    """Return what writes good rows, but for the labels in line 4."""
    return listed(lambda rows: rows[3].update(labels=labels))


def all_holding(labels: Callable[[int, str], object]) -> Make:
    """Return what writes good rows with other labels: of the number of the row, and its text."""
    return listed(lambda rows: [row.update(labels=labels(number, row["text"])) for number, row in enumerate(rows)])


def switched(columns: tuple[str, ...] = EMOTIONS, line_4: str = "0") -> Make:
    """Return what writes good rows with a column of 0 and 1 for each label; one says something else in line 4."""

    def make(here: Path, _tiny: Tiny) -> None:
        rows = [[row["text"], *(str(int(name in row["labels"])) for name in columns)] for row in good_rows()]
        rows[2][-1] = line_4
        lines = ["\t".join(cells) for cells in [["text", *columns], *rows]]
        (here / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    return make


def table(labels: Callable[[int], str]) -> Make:
    """Return what writes a column of texts as the labels, of the number of the row."""
    lines = [f"{row['text']}\t{labels(number)}" for number, row in enumerate(good_rows())]
    return bad.text_file("rows.tsv", "\n".join(["text\tlabels", *lines]) + "\n")


def with_plain_text(here: Path, tiny: Tiny) -> None:
    """Write good rows, and a plain text without labels."""
    listed()(here, tiny)
    bad.text_file("dev.txt", "a film\nanother film\n")(here, tiny)


def said(**changes: Any) -> Make:  # any JSON
    """Return what makes a package of several labels out of the good one of classes, whose manifest says otherwise."""
    return bad.manifest(lambda content: content.update({"kind": "multi_label", "thresholds": [0.5, 0.5], **changes}))


LABELS = [
    Case(GROUP, "null as the labels", COMPRESS,
         r"rows\.jsonl, line 4: the label is missing \(column 'labels'\)\. Write \[\] for a row without a label",
         holding(None)),
    Case(GROUP, "a row without its labels", COMPRESS,
         r"rows\.jsonl, line 4: the label is missing \(column 'labels'\)\. Write \[\] for a row without a label",
         listed(lambda rows: rows[3].pop("labels"))),
    Case(GROUP, "a list of lists", COMPRESS,
         r"line 4: the list in column 'labels' holds \['joy'\] \(list\), expected names of labels, .* Correct the row",
         holding([["joy"], ["anger"]])),
    Case(GROUP, "a list of objects", COMPRESS,
         r"line 4: the list in column 'labels' holds \{'name': 'joy'\} \(dict\), expected names .* Correct the row",
         holding([{"name": "joy"}])),
    Case(GROUP, "an object as the labels", COMPRESS,
         r"line 4: the column 'labels' holds \{'joy': 1\} \(dict\), expected a list of labels .* Correct the row",
         holding({"joy": 1})),
    Case(GROUP, "an empty text in a list", COMPRESS,
         r"line 4: the list in column 'labels' holds '' \(str\), expected names of labels, .* Correct the row",
         holding(["joy", ""])),
    Case(GROUP, "a number with a fraction in a list", COMPRESS,
         r"line 4: the list in column 'labels' holds 0\.5 \(float\), expected names of labels, or their ids\. Correct",
         holding(["joy", 0.5])),
    Case(GROUP, "a text that begins like a list and is none", TABLE,
         r"line 5: the column 'labels' holds '\[joy, anger\]', which begins like a list and is none\. Write it as JSON",
         table(lambda number: "[joy, anger]" if number == 3 else "joy")),
    Case(GROUP, "a text of a list of what no list can hold", TABLE,
         r"line 5: the column 'labels' holds '\[\{\[\]: 1\}\]', which begins like a list and is none\. Write it as",
         table(lambda number: "[{[]: 1}]" if number == 3 else "joy")),
    Case(GROUP, "a text of lists without an end", TABLE,
         r"line 5: the column 'labels' holds '\[{60}', which begins like a list and is none\. Write it as JSON",
         table(lambda number: "[" * 50_000 + "]" * 50_000 if number == 3 else "joy")),
    Case(GROUP, "a label that the teacher does not know", COMPRESS,
         r"the label 'suprise' of row 4 is unknown to the teacher, .* Did you mean 'surprise'\? Correct the label, or",
         holding(["joy", "suprise"])),
    Case(GROUP, "an id that the teacher does not have", COMPRESS,
         r"the label '4' of row 4 is unknown to the teacher, which knows: anger, joy, sadness, surprise\. Correct the",
         all_holding(lambda number, _text: [4 if number == 3 else number % 4])),
    Case(GROUP, "two separators in one column", TABLE,
         r"the label 'joy;anger' of row 4 is unknown to the teacher, which knows: anger, joy, .* Correct the label, or",
         table(lambda number: "joy;anger" if number == 3 else "joy|anger")),
    Case(GROUP, "no row has a label", COMPRESS,
         r"rows\.jsonl: no row has a label \(column 'labels'\)\. Name another with --label-column",
         all_holding(lambda _number, _text: [])),
    Case(GROUP, "no row has a label to evaluate with", f"{COMPRESS} --eval {{here}}/dev.jsonl",
         r"dev\.jsonl: no row has a label \(column 'labels'\)\. Name another with --label-column",
         lambda here, tiny: (listed()(here, tiny), listed(lambda rows: [row.update(labels=[]) for row in rows],
                                                          "dev.jsonl")(here, tiny))),
    Case(GROUP, "plain text to evaluate with", f"{COMPRESS} --eval {{here}}/dev.txt",
         r"dev\.txt: is plain text with no labels\. Give a \.tsv", with_plain_text),
    Case(GROUP, "a 2 among 0 and 1", TABLE,
         r"rows\.tsv, line 4: the column 'surprise' holds '2' \(str\), expected 0 or 1: .* Correct the row, or name",
         switched(line_4="2")),
    Case(GROUP, "an empty cell among 0 and 1", f"{TABLE} --label-column anger,joy,sadness,surprise",
         r"rows\.tsv, line 4: the column 'surprise' holds '' \(str\), expected 0 or 1: .* Correct the row, or name the",
         switched(line_4="")),
    Case(GROUP, "columns of 0 and 1 for some of the labels", TABLE,
         r"it has columns for 2 of the 4 labels and none for 'sadness'\. Add a column of 0 and 1 for each label, or",
         switched(EMOTIONS[:2])),
    Case(GROUP, "columns of 0 and 1 of another label", f"{TABLE} --label-column anger,envy",
         r"it has columns for 1 of the 4 labels and none for 'joy'\. Add a column of 0 and 1 for each label, or",
         switched(("anger", "envy"), "1")),
    Case(GROUP, "--label-column names one column that is not there", f"{TABLE} --label-column anger,joi,surprise",
         r"--label-column 'joi' is not a column\. Did you mean 'joy'\? Columns: text, anger, joy, sadness, surprise\.",
         switched()),
    Case(GROUP, "--label-column names the text among others", f"{TABLE} --label-column text,joy",
         r"--label-column names 'text' among others, which holds '.*' \(str\), expected 0 and 1 .* Leave it out",
         switched()),
    Case(GROUP, "--label-column names one column twice", f"{TABLE} --label-column joy,joy",
         r"--label-column names 'joy' twice\. Name every column once", switched()),
    Case(GROUP, "scores of one label instead of labels", TABLE,
         r"the label '0\.\d+' of row 1 is unknown to the teacher, which knows: anger, .* or name another column with",
         table(lambda number: f"{number / 61 + 0.01:.2f}")),
    Case(GROUP, "numbers with a fraction as the labels", COMPRESS,
         r"line 1: the column 'labels' holds 0\.\d+ \(float\), expected a list of labels or a text with .* Correct the",
         all_holding(lambda number, _text: number / 61 + 0.01)),
    Case(GROUP, "lists for a teacher of one label a row",
         "compress --teacher {teacher} --train {here}/rows.jsonl --output {out}",
         r"line 1: the column 'labels' holds a list, expected one label \(several need a model of 'tenmeg fi",
         listed()),
    Case(GROUP, "lists to fine-tune on, and no --task", FINETUNE,
         r"line 1: the column 'labels' holds a list, expected one label \(several need .* --task multi_label'\)",
         listed()),
    Case(GROUP, "one different label to fine-tune on", f"{FINETUNE} --task multi_label",
         r"rows\.jsonl: only one label, 'joy'; at least two labels are needed\. Give rows of every label to --train",
         all_holding(lambda number, _text: ["joy"][number % 2:])),
    Case(GROUP, "labels that are unique texts", f"{FINETUNE} --task multi_label",
         r"rows\.jsonl: (\d+) different labels in \1 rows are not classes\. Name the column that holds the labels with",
         all_holding(lambda number, text: [" ".join([*text.split()[:3], str(number)])])),
    Case(GROUP, "a misspelt --task", f"{FINETUNE} --task multi-label",
         r"--task multi-label is nothing to fine-tune for\. Did you mean 'multi_label'\? Use one of classification, m",
         listed()),
    Case(GROUP, "--task embedding", f"{FINETUNE} --task embedding",
         r"--task embedding is nothing to fine-tune for\. Use one of classification, multi_label, regression",
         listed()),
    Case(GROUP, "--task nonsense", f"{FINETUNE} --task nonsense",
         r"--task nonsense is nothing to fine-tune for\. Use one of classification, multi_label, regression",
         listed()),
    Case(GROUP, "a method for one answer a row", f"{COMPRESS} --method teacher_predictions --method distill",
         r"'teacher_predictions' got a task with several labels a row, expected one answer a row, .* Use --method dis",
         listed()),
    Case("Teacher", "a score with several labels", TEACHER,
         r"problem_type 'regression' with 2 labels, expected one of .*, and as many labels as it takes\. Correct it",
         bad.configured(problem_type="regression")),
    Case("Teacher", "a problem_type that there is not", TEACHER,
         r"problem_type 'multi-label' with 2 labels, expected one of .*multi_label_classification, .* Correct it",
         bad.configured(problem_type="multi-label")),
    Case("Teacher", "a misspelt problem_type", TEACHER,
         r"'multi_label_clasification' with 1 label, .* Did you mean 'multi_label_classification'\? Correct it, or",
         bad.configured(problem_type="multi_label_clasification", id2label={"0": "urgent"})),
    Case("Teacher", "a problem_type that is no text", TEACHER,
         r"problem_type \['multi_label_classification'\] with 2 labels, expected one of .* Correct it, or",
         bad.configured(problem_type=["multi_label_classification"])),
    Case(PACKAGE, "without thresholds", VERIFY, THRESHOLDS.format("'None'"),
         bad.manifest(lambda content: content.update(kind="multi_label"))),
    Case(PACKAGE, "too few thresholds", VERIFY, THRESHOLDS.format(r"'\[0\.5\]'"), said(thresholds=[0.5])),
    Case(PACKAGE, "a threshold above 1", VERIFY, THRESHOLDS.format(r"'\[0\.5, 1\.5\]'"), said(thresholds=[0.5, 1.5])),
    Case(PACKAGE, "a threshold that is NaN", VERIFY, THRESHOLDS.format(r"'\[0\.5, nan\]'"),
         said(thresholds=[0.5, float("nan")])),
    Case(PACKAGE, "a threshold that is a text", VERIFY, THRESHOLDS.format(r".*\['0\.5', 0\.5\].*"),
         said(thresholds=["0.5", 0.5])),
    Case(PACKAGE, "thresholds by name", VERIFY, THRESHOLDS.format(".*'negative': 0\\.5.*"),
         said(thresholds={"negative": 0.5, "positive": 0.5})),
    Case(PACKAGE, "without labels", VERIFY, r"labels is '\[\]', expected those of multi_label\. Rebuild it",
         said(labels=[], thresholds=[])),
    Case(PACKAGE, "rows of other labels", f"{VERIFY} --eval {{here}}/rows.jsonl",
         r"the label '\w+' of row \d+ is unknown to the (package|teacher), which knows: negative, positive\. Correct",
         lambda here, tiny: (said()(here, tiny), listed()(here, tiny))),
]  # fmt: skip

"""The bad inputs: one line of data each. What their words stand for is in ``benchmarks.faults.bad_files.Case``."""

from benchmarks.faults import bad_files as bad
from benchmarks.faults.bad_files import Case
from benchmarks.faults.bad_labels import LABELS
from benchmarks.faults.bad_late import LATE
from benchmarks.faults.bad_limits import LIMITS, PACKAGES, RECIPES
from benchmarks.faults.bad_repeats import REPEATS
from benchmarks.faults.bad_rows import ROWS as FOREIGN_ROWS
from benchmarks.faults.bad_starts import STARTS
from benchmarks.faults.bad_surroundings import SURROUNDINGS

COMPRESS = "compress --teacher {teacher} --train {train} --eval {dev} --output {out}"
ROWS = "compress --teacher {teacher} --train {here}/rows.tsv --eval {dev} --output {out}"
TEACHER = "compress --teacher {here}/teacher --train {train} --eval {dev} --output {out}"
LONG_LINE = "sentence\tlabel\n" + "a film that goes on and on " * 38_000 + "\t1\nshort\t0\n"

DATA = [
    Case("Rows", "no such file", ROWS, r"rows\.tsv: does not exist\. Check the path\."),
    Case(
        "Rows", "misspelt file", "compress --teacher {teacher} --train {here}/row.tsv --output {out}",
        r"row\.tsv: does not exist\. Did you mean rows\.tsv\?", bad.rows_file("rows.tsv", list),
    ),
    Case("Rows", "empty file", ROWS, r"rows\.tsv: is empty\. Give", bad.text_file("rows.tsv", "")),
    Case("Rows", "blank lines only", ROWS, r"holds only blank lines\. Give", bad.text_file("rows.tsv", "\n \n\n")),
    Case(
        "Rows", "header only", ROWS, r"holds only its first line \(sentence \| label\); rows are missing\.",
        bad.text_file("rows.tsv", "sentence\tlabel\n"),
    ),
    Case(
        "Rows", "no header", ROWS, r"the first line .* looks like a row, not like .* Add a header line",
        bad.rows_file("rows.tsv", lambda lines: lines[1:]),
    ),
    Case(
        "Rows", "wrong --text-column", f"{COMPRESS} --text-column sentense",
        r"--text-column 'sentense' is not a column\. Did you mean 'sentence'\? Columns: sentence, label\.",
    ),
    Case(
        "Rows", "wrong --label-column", f"{COMPRESS} --label-column stars",
        r"--label-column 'stars' is not a column\..* Columns: sentence, label\.",
    ),
    Case(
        "Rows", "a row with too many fields", ROWS, r"line 4: has 3 fields, the header has 2 .* Correct the row\.",
        bad.rows_file("rows.tsv", lambda lines: [*lines[:3], "a\tb\t1", *lines[3:]]),
    ),
    Case(
        "Rows", "a quote that does not close", "compress --teacher {teacher} --train {here}/rows.csv --output {out}",
        r"rows\.csv, line 3: the quotes of this row .* close every quoted field\.",
        bad.text_file("rows.csv", 'sentence,label\na good film,1\n"a bad film,0\n'),
    ),
    Case(
        "Rows", "a line that is no JSON", "compress --teacher {teacher} --train {here}/rows.jsonl --output {out}",
        r"rows\.jsonl, line 2: is not JSON .* Expected one object per line",
        bad.text_file("rows.jsonl", '{"text": "a good film", "label": 1}\n{"text": "a bad film, "label": 0}\n'),
    ),
    Case(
        "Rows", "invalid UTF-8", ROWS, r"rows\.tsv, line 3: byte 0xe9 is not UTF-8\. Convert the file",
        bad.text_file("rows.tsv", b"sentence\tlabel\na good film\t1\na blas\xe9 film\t0\n"),
    ),
    Case(
        "Rows", "UTF-16", ROWS, r"is UTF-16, expected UTF-8\. Convert it",
        bad.text_file("rows.tsv", "sentence\tlabel\na good film\t1\n".encode("utf-16")),
    ),
    Case(
        "Rows", "a damaged .gz", "compress --teacher {teacher} --train {here}/rows.tsv.gz --output {out}",
        r"is not a whole gzip file .* Copy or compress it again\.", bad.cut_gzip,
    ),
    Case(
        "Rows", "an empty text", ROWS, r"line 4: the column 'sentence' holds no text\. Fill it or remove the row\.",
        bad.rows_file("rows.tsv", lambda lines: [*lines[:3], "\t1", *lines[3:]]),
    ),
    Case(
        "Rows", "a missing label", f"{ROWS} --method finetune",
        r"line 4: the label is missing \(column 'label'\)\. Fill it or remove the row\.",
        bad.rows_file("rows.tsv", lambda lines: [*lines[:3], "a good film\t", *lines[3:]]),
    ),
    Case(
        "Rows", "a label that the teacher does not know", ROWS,
        r"the label 'neutral' of row 3 is unknown to the teacher, which knows: negative, positive\..* Correct the",
        bad.rows_file("rows.tsv", lambda lines: [*lines[:3], "a film\tneutral", *lines[3:]]),
    ),
    Case(
        "Rows", "one class only", ROWS, r"only one class, '1'; at least two classes are needed\. Give rows of every",
        bad.rows_file("rows.tsv", lambda lines: [lines[0], *(line for line in lines[1:] if line.endswith("1"))]),
    ),
    Case(
        "Rows", "a score that is NaN", "finetune --model {teacher} --train {here}/rows.tsv --output {out}",
        r"line 62: the label is 'nan' \(column 'score'\)\. (Fill|Correct)",
        bad.rows_file(
            "rows.tsv",
            lambda lines: ["sentence\tscore", *(f"{line[:-2]}\t{n / 7}" for n, line in enumerate(lines[1:])), "x\tnan"],
        ),
    ),
    Case(
        "Rows", "plain text without labels", "compress --teacher {teacher} --train {here}/rows.txt --output {out}",
        r"rows\.txt: is plain text with no labels\. Give a \.tsv", bad.text_file("rows.txt", "a film\nanother film\n"),
    ),
    Case(
        "Rows", "a folder", "compress --teacher {teacher} --train {here} --output {out}",
        r"is a folder, expected a file\. Name the file inside it: rows\.tsv\.", bad.rows_file("rows.tsv", list),
    ),
    Case(
        "Rows", "an unknown file type", "compress --teacher {teacher} --train {here}/rows.xlsx --output {out}",
        r"unknown file type '\.xlsx', expected \.tsv, .* Rename the file\.", bad.text_file("rows.xlsx", "PK"),
    ),
    Case(
        "Rows", "one text to train on, two to evaluate on",
        "compress --teacher {teacher} --train {train} --eval {here}/dev.tsv --output {out}",
        r"holds one text per row and .* does not\. Name the columns with --text-column and --pair-column\.",
        bad.text_file("dev.tsv", "sentence1\tsentence2\tlabel\na film\tthe film\t1\na plot\tthe plot\t0\n"),
    ),
    Case(
        "Rows", "too few rows to hold some out", "compress --teacher {teacher} --train {here}/rows.tsv --output {out}",
        r"2 rows are too few to hold some out for evaluation\. Give a file with --eval\.",
        bad.rows_file("rows.tsv", list, n_rows=2),
    ),
    Case(
        "Rows", "a data set that is not in the cache (--offline)",
        "compress --teacher {teacher} --train nobody/no-such-rows --offline --output {out}",
        r"nobody/no-such-rows: is no file here, .* in the hub cache \(--offline\).* Check the name and the network, or",
    ),
    Case(
        "Rows", "a data set, and the hub does not answer",
        "compress --teacher {teacher} --train nobody/no-such-rows --output {out}",
        r"nobody/no-such-rows: is no file here, .* the hub cannot be reached.* or give a file",
        own_process=True, needs_hub=True,
    ),
    Case(
        "Rows", "a line of 1 MB", "verify {package} --eval {here}/rows.tsv", "",
        bad.text_file("rows.tsv", LONG_LINE), code=0,
    ),
    Case(
        "Rows", "a line of 1 MB to train on", f"{ROWS} --dry-run", "",
        bad.text_file("rows.tsv", LONG_LINE), code=0, keeps=r"out(/recipe\.toml)?",
    ),
    Case(
        "Rows", "emoji, accents and ideographs", "verify {package} --eval {here}/rows.tsv", "",
        bad.text_file("rows.tsv", "sentence\tlabel\n🎬👍🏽 très bien, 好电影\t1\n👎\u200d🤷‍♀️ … ﷽\t0\n"), code=0,
    ),
]  # fmt: skip

OUTPUT = [
    Case(
        "Output", "a folder with other files", COMPRESS,
        r"--output .*out is not empty and holds no run\. Choose another --output, or give --overwrite", bad.full_output,
    ),
    Case(
        "Output", "the folder of another recipe's run", COMPRESS,
        r"--output .*out holds a run of another recipe\. Choose another --output, or give --overwrite", bad.other_run,
    ),
    Case(
        "Output", "a run whose run.json is damaged", COMPRESS,
        r"--output .*out is not empty and holds no run\. Choose another --output, or give --overwrite",
        bad.damaged_run,
    ),
    Case("Output", "a file as the cache", f"{COMPRESS} --cache {{here}}/note",
         r"--cache .*note is a file, expected a folder\. Choose", bad.text_file("note", "x")),
    Case("Output", "a file", COMPRESS, r"--output .*out is a file, expected a folder\. Choose",
         bad.text_file("out", "x")),
    Case(
        "Output", "a folder inside a file", "compress --teacher {teacher} --train {train} --output {here}/note/out",
        r"note.*: .*not a (directory|folder).*\. (Give a folder|Choose)", bad.text_file("note", "x"),
    ),
    Case(
        "Output", "a folder with other files, only to plan", f"{COMPRESS} --dry-run",
        r"--output .*out is not empty and holds no run\. Choose another --output, or give --overwrite", bad.full_output,
    ),
    Case(
        "Output", "a folder of 'tenmeg export' that is not empty", "export {teacher} --output {out}",
        r"--output .*out is not empty\. Choose another, or give --overwrite", bad.full_output,
    ),
    Case(
        "Output", "a folder of 'tenmeg finetune' that is not empty",
        "finetune --model {teacher} --train {train} --output {out}",
        r"--output .*out exists already\. Choose another --output, or give --overwrite", bad.full_output,
    ),
    Case(
        "Output", "a disk that is full", f"{COMPRESS} --epochs 1",
        r"--output .*out: no space left on device\. Free some space and run the same command again: finished steps are",
        keeps=r"out(/(run\.json|recipe\.toml|steps(/.*)?))?", around=bad.small_disk, own_process=True,
    ),
]  # fmt: skip

TEACHERS = [
    Case("Teacher", "no such folder", TEACHER, r"teacher: folder .*teacher does not exist\. Check --teacher\."),
    Case("Teacher", "a file", TEACHER, r"teacher is a file, expected a model folder", bad.text_file("teacher", "x")),
    Case("Teacher", "truncated weights", TEACHER, r"teacher: .*model\.safetensors .* download it again",
         bad.teacher(bad.cut_weights)),
    Case(
        "Teacher", "weights that are something else", TEACHER, r"teacher: .*model\.safetensors .* download it again",
        bad.teacher(lambda folder: (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com\n")),
    ),
    Case(
        "Teacher", "a pickled checkpoint only", TEACHER,
        r"holds only pytorch_model\.bin, a pickle that can run code .* Save it as safetensors",
        bad.teacher(bad.no_weights_but("pytorch_model.bin", b"\x80\x02}q\x00.")),
    ),
    Case(
        "Teacher", "no weights", TEACHER, r"has no model\.safetensors\. Give a folder saved by save_pretrained",
        bad.teacher(lambda folder: (folder / "model.safetensors").unlink()),
    ),
    Case("Teacher", "one of two weight files", TEACHER, r"model-00002-of-00002\.safetensors.* missing.* [Dd]ownload",
         bad.teacher(bad.missing_shard)),
    Case(
        "Teacher", "NaN in the weights", f"{TEACHER} --max-size 90kB",

        r"teacher: the weights bert\.encoder\.layer\.0\.output\.dense\.weight .* are not all finite .*: train or",
        bad.teacher(bad.nan_weights),
        keeps=r"out(/(run\.json|recipe\.toml|steps(/.*)?))?",
    ),
    Case(
        "Teacher", "a configuration that is no JSON", TEACHER, r"config\.json is not JSON .* Download the checkpoint",
        bad.teacher(lambda folder: (folder / "config.json").write_text('{"model_type": "bert",')),
    ),
    Case("Teacher", "a configuration without model_type", TEACHER, r"names no model_type\. Give a folder saved by",
         bad.configured(model_type=None)),
    Case(
        "Teacher", "a configuration without its sizes", TEACHER,
        r"config\.json says nothing for hidden_size, expected a whole number above 0\. Download",
        bad.configured(hidden_size=None),
    ),
    Case(
        "Teacher", "a configuration of another width than the weights", f"{TEACHER} --max-size 90kB",
        r"holds word embeddings of \d+ x 32, config\.json says \d+ x 48\. .* download both again",
        bad.configured(hidden_size=48),
    ),
    Case(
        "Teacher", "an unknown architecture", TEACHER,
        r"architecture 'berta' is not supported, expected one of bert, .* Did you mean 'bert'\? Use",
        bad.configured(model_type="berta"),
    ),
    Case(
        "Teacher", "a decoder", TEACHER, r"architecture 'gpt2' is not supported, expected one of bert, .* Use",
        bad.configured(model_type="gpt2", architectures=["GPT2ForSequenceClassification"]),
    ),
    Case(
        "Teacher", "a checkpoint that brings code", TEACHER,
        r"wants to run its own code \(auto_map in config\.json\)\. Give --trust-remote-code if you trust it",
        bad.configured(auto_map={"AutoModel": "modeling.Own"}),
    ),
    Case(
        "Teacher", "a language model without a task", TEACHER,
        r"BertForMaskedLM is made for fill-mask, expected .* Fine-tune it first with 'tenmeg finetune'",
        bad.configured(architectures=["BertForMaskedLM"]),
    ),
    Case(
        "Teacher", "no tokenizer", TEACHER, r"teacher: .*tokenizer.* Add (its|a) tokenizer\.json",
        bad.teacher(bad.no_tokenizer),
    ),
    Case(
        "Teacher", "a tokenizer that is no JSON", TEACHER,
        r"teacher: the tokenizer in .* cannot be read .* Add its tokenizer",
        bad.teacher(lambda folder: (folder / "tokenizer.json").write_text("{")),
    ),
    Case(
        "Teacher", "a tokenizer's configuration that is no JSON", TEACHER,
        r"tokenizer_config\.json is not JSON .* Download the checkpoint again",
        bad.teacher(lambda folder: (folder / "tokenizer_config.json").write_text("{")),
    ),
    Case(
        "Teacher", "the tokenizer of another model", TEACHER,
        r"its tokenizer has \d+ tokens, its embeddings have 300 rows\. .* download both again",
        bad.teacher(bad.fewer_words),
    ),
    Case(
        "Teacher", "labels without ids", TEACHER, r"id2label in config\.json is .*, expected a name for each of 0, 1",
        bad.configured(id2label={"bad": 0, "good": 1}),
    ),
    Case(
        "Teacher", "pooling that is no JSON", TEACHER,
        r"modules\.json .* cannot be read .* Download the checkpoint again",
        bad.teacher(lambda folder: (folder / "modules.json").write_text("[{")),
    ),
    Case(
        "Teacher", "not in the cache (--offline)",
        "compress --teacher nobody/no-such-model --train {train} --offline --output {out}",
        r"nobody/no-such-model is no folder here and is not in the local cache \(--offline\) .* or give a folder\.",
    ),
    Case(
        "Teacher", "the hub does not answer", "compress --teacher nobody/no-such-model --train {train} --output {out}",
        r"nobody/no-such-model is no folder here and could not be fetched from the hub .* Check the name and the",
        own_process=True, needs_hub=True,
    ),
]  # fmt: skip

CASES = (
    *DATA, *FOREIGN_ROWS, *OUTPUT, *TEACHERS, *SURROUNDINGS, *LIMITS, *STARTS, *REPEATS, *RECIPES, *PACKAGES, *LABELS,
    *LATE,
)  # fmt: skip

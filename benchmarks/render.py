"""Render the tables and pictures of the pages from docs/results; ``--check`` only says whether they agree.

    python -m benchmarks.render [--check]

A table stands between ``<!-- name -->`` and ``<!-- /name -->``. A result that is not there yet leaves its place empty.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.tables.dual_tables import dual_tables
from benchmarks.tables.families_tables import PICTURE, draw, families_tables
from benchmarks.tables.inheritance_tables import inheritance_tables
from benchmarks.tables.pea_kd_tables import pea_kd_tables
from benchmarks.tables.shared_tables import shared_tables
from benchmarks.tables.vocab_tables import vocabulary_tables
from benchmarks.tables.worth_tables import worth_tables

ROOT = Path(__file__).parent.parent
RESULTS_DIR = ROOT / "docs" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "python.md",
    ROOT / "docs" / "tasks.md",
    ROOT / "docs" / "effort.md",
    ROOT / "docs" / "families.md",
    ROOT / "docs" / "vocabulary.md",
    ROOT / "docs" / "dual-training.md",
    ROOT / "docs" / "inheriting.md",
    ROOT / "docs" / "sharing.md",
    ROOT / "docs" / "teacher-predictions.md",
    ROOT / "docs" / "patient.md",
)


HEADER = (
    "| task (dev set) | metric | teacher | package | drop, points | bytes | p50 / p95 ms | teacher as int8 | TF-IDF |",
    "|---|---|---|---|---|---|---|---|---|",
)
SEARCH_HEADER = ("| known-item search | MRR@10 | bytes | p50 / p95 ms |", "|---|---|---|---|")


def compress_table(result: dict[str, Any]) -> str:
    """Return the main table: one row per task, everything from the same run."""
    rows = result["rows"]
    students = "; ".join(f"{row['name']}: {row['student']}, {row['stages'][0]['epochs']:g} epochs" for row in rows)
    note = (
        "One seed, `--max-size 7MB --max-drop 3`; the dev sets were used for nothing else. Latency: "
        f"text to answer, one thread, {rows[0]['machine'].get('cpu', 'this machine')}. Students: {students}. "
        f"Repeat: `{result['command']}`."
    )
    return "\n".join([*HEADER, *map(_compress_row, rows), "", note])


def _compress_row(row: dict[str, Any]) -> str:
    scores, latency = row["scores"], row["latency_ms"]
    beside = {other["name"]: other for other in row["baselines"]}
    int8 = beside.get("teacher as ONNX int8")
    tfidf = next((other for name, other in beside.items() if name.startswith("TF-IDF")), None)
    cells = (
        row["name"],
        row["metric"],
        f"{scores['teacher']:.4f}",
        f"{scores['package']:.4f}",
        f"{row['drop_points']:.2f}",
        f"{row['bytes']:,}",
        f"{latency['p50']:.1f} / {latency['p95']:.1f}",
        _beside(int8),
        _beside(tfidf),
    )
    return f"| {' | '.join(cells)} |"


def search_table(result: dict[str, Any]) -> str:
    """Return the known-item search."""
    note = (
        f"{result['documents']:,} held-out docstrings: the first sentence is the query, the rest the document. "
        f"One seed. Repeat: `{result['command']}`."
    )
    return "\n".join([*SEARCH_HEADER, *map(_search_row, result["rows"]), "", note])


def _search_row(row: dict[str, Any]) -> str:
    times = f"{row['p50_ms']:.2f} / {row['p95_ms']:.2f}"
    return f"| {row['name']} | {row['mrr_at_10']:.3f} | {row['bytes']:,} | {times} |"


def multi_label_table(result: dict[str, Any]) -> str:
    """Return teacher, students and what stands beside them on the rows with several labels."""
    students = result["students"]
    first = students[0]
    (int8,) = (other for other in first["baselines"] if other["name"] == "teacher as ONNX int8")
    rows = [("teacher", first["metrics"]["teacher"], "-"), (int8["name"], int8["metrics"], f"{int8['bytes']:,}")]
    for student in students:
        (tfidf,) = (other for other in student["baselines"] if other["name"].startswith("TF-IDF"))
        rows.append(
            (f"package, `--max-size {student['max_size']}`", student["metrics"]["package"], f"{student['bytes']:,}")
        )
        rows.append((f"{tfidf['name']}, within {student['max_size']}", tfidf["metrics"], f"{tfidf['bytes']:,}"))
    lines = ["| test rows | micro F1 | macro F1 | exact match | bytes |", "|---|---|---|---|---|"]
    for name, metrics, n_bytes in rows:
        scores = " | ".join(f"{metrics[metric]:.4f}" for metric in ("micro_f1", "macro_f1", "exact_match"))
        lines.append(f"| {name} | {scores} | {n_bytes} |")
    shapes = "; ".join(f"{student['max_size']}: {student['student']}" for student in students)
    note = (
        "Rows of one to three utterances of CLINC150, whose labels are their ten domains: 6,000 to train on, of which "
        f"600 choose thresholds, and 800 test rows, on which nothing was chosen. One seed; {shapes}. Repeat: "
        f"`{result['command']}`."
    )
    return "\n".join([*lines, "", note])


def fault_lines(results: dict[str, dict[str, Any]]) -> str:
    """Return one line for each of the smaller results that are there."""
    lines = []
    if "predicted_bytes" in results:
        rows = results["predicted_bytes"]["rows"]
        worst = max(abs(row["error_percent"]) for row in rows)
        lines.append(
            f"- Predicted against real package bytes, {len(rows)} packages: off by {worst:.2f} % at most "
            "(`python -m benchmarks.predicted_bytes`)."
        )
    if "kill_and_resume" in results:
        kills = results["kill_and_resume"]["kills"]
        differing = len(results["kill_and_resume"]["differing_files"])
        lines.append(
            f"- Killed with SIGKILL {len(kills)} times, in every step, and started again: {differing} of "
            f"{results['kill_and_resume']['compared_files']} files differ from those of an undisturbed run "
            "(`python -m benchmarks.kill_and_resume`)."
        )
    if "bad_inputs" in results:
        lines.append(
            f"- {len(results['bad_inputs']['cases'])} awkward inputs, {results['bad_inputs']['n_bad']} answered badly "
            "(`python -m benchmarks.bad_inputs`)."
        )
    return "\n".join(lines)


def render(page: str, results: dict[str, dict[str, Any]]) -> str:
    """Return the page with every table whose result is there."""
    tables: dict[str, Callable[[], str]] = {}
    if fault_lines(results):
        tables["faults"] = lambda: fault_lines(results)
    if "vocab_curve" in results:
        tables |= vocabulary_tables(results["vocab_curve"])
    tables |= dual_tables(results)
    tables |= shared_tables(results)
    tables |= inheritance_tables(results) | pea_kd_tables(results)
    tables |= worth_tables(results) | families_tables(results)
    if "compress" in results:
        tables["compress"] = lambda: compress_table(results["compress"])
    if "multi_label" in results:
        tables["multi_label"] = lambda: multi_label_table(results["multi_label"])
    if "search" in results:
        tables["search"] = lambda: search_table(results["search"])
    for name, table in tables.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        content = table()
        page = block.sub(lambda found, text=content: f"{found.group(1)}{text}\n{found.group(2)}", page)  # type: ignore[misc]
    return page


def read_results() -> dict[str, dict[str, Any]]:
    """Return the results by file name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS_DIR.glob("*.json"))}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a page does not agree with its results.")
def main(check: bool) -> None:
    """Write the tables, or check them."""
    results = read_results()
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = render(old, results)
        if check and new != old:
            click.echo(f"{page.name} does not agree with docs/results; run python -m benchmarks.render", err=True)
            sys.exit(1)
        if not check and new != old:
            page.write_text(new, encoding="utf-8")
    if not check and "families" in results:
        draw(results["families"], results.get("worth"), ROOT / PICTURE)


def _beside(other: dict[str, Any] | None) -> str:
    if other is None or other["score"] is None:
        return "-"
    return f"{other['score']:.4f} in {other['bytes'] / 1e6:.2f} MB"


if __name__ == "__main__":
    main()

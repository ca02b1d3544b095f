"""Tables of what students of every size are worth, of their teachers, and of what a step of training takes."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.tables.tables import Table, markdown, of_results

ARMS = {"now": "now", "before": "before training went by work"}


def worth_tables(results: Mapping[str, dict[str, Any]]) -> dict[str, Table]:
    """Return the tables by the name of their place in a page."""
    made = {"worth": worth_table, "narrow_step": narrow_step_table, "teachers": teachers_table}
    return of_results(results, made)


def worth_table(result: dict[str, Any]) -> str:
    """Return a row per set, size and arm: float student and package, its shape and what stands beside it."""
    lines = [
        ["dev set", "student", "float student", "package", "teacher", "TF-IDF", "bytes", "shape", "epochs", "core s"],
        ["---"] * 10,
    ]
    for name, arms in result["rows"].items():
        for arm, seeds in sorted(arms.items(), key=lambda each: (each[0].rpartition("-")[2], each[0])):
            which, _, size = arm.rpartition("-")
            found = list(seeds.values())
            first = found[0]
            lines.append(
                [
                    f"{name} ({first['metric']})",
                    f"{size}, {ARMS[which]}",
                    _mean([each["student"] for each in found]),
                    _mean([each["package"] for each in found]),
                    f"{100 * first['teacher']:.2f}",
                    "-" if first["tfidf"] is None else f"{100 * first['tfidf']:.2f}",
                    f"{first['bytes']:,}",
                    first["shape"],
                    ", ".join(f"{each:g}" for each in first["epochs"]),
                    f"{statistics.mean(sum(filter(None, each['cpu_seconds'])) for each in found):.0f}",
                ]
            )
    seeds = {len(found) for arms in result["rows"].values() for found in arms.values()}
    how_many = f"{min(seeds)} to {max(seeds)} seeds" if len(seeds) > 1 else f"{max(seeds)} seed(s)"
    note = (
        f"Points, {how_many} (± standard deviation where there are several); settings were chosen on held-out training "
        'rows. "core s" is processor time of the training, one thread. TF-IDF at the same bytes. "Before" has fitted '
        f"maps too. Repeat: `{result['command']}`."
    )
    return f"{markdown(lines)}\n\n{note}"


def _mean(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def teachers_table(result: dict[str, Any]) -> str:
    """Return a row per set: the teacher that the defaults make, the frozen probe and TF-IDF."""
    names = ["set", "rows", "fine-tuned", "frozen probe", "difference (95 %)", "TF-IDF", "s"]
    rows = [names, ["---"] * len(names)]
    for each in result["teachers"]:
        low, high = each["interval"]
        scores = [f"{100 * each[name][each['metric']]:.2f}" for name in ("teacher", "probe", "tfidf")]
        difference = f"{100 * each['difference']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
        rows.append(
            [
                f"{each['name']} ({each['metric']})",
                f"{each['rows']['train']:,}",
                *scores[:2],
                difference,
                scores[2],
                f"{each['seconds']:.0f}",
            ]
        )
    note = (
        f"From {result['base']}, all settings the defaults; points on {result['judged_on']} sets, where nothing was "
        f"chosen; the interval is a paired bootstrap over their rows. {result['seeds']} seed; the machine was busy. "
        f"Repeat: `{result['command']}`."
    )
    return f"{markdown(rows)}\n\n{note}"


def narrow_step_table(result: dict[str, Any]) -> str:
    """Return milliseconds of a bare step and of one of ``distill``."""
    rows = [["student", "bare step, ms", "step of distill, ms", "ratio (least, most)"], ["---"] * 4]
    for name, row in result["shapes"].items():
        ratio = f"{row['ratio']:.2f} ({row['ratio_least']:.2f}, {row['ratio_most']:.2f})"
        rows.append([name, f"{row['bare_ms']:.0f}", f"{row['distill_ms']:.0f}", ratio])
    note = (
        f"Batches of {result['batch']} rows, one thread, processor time, median of {result['rounds']} rounds; a "
        f"bare step is forward, backward, clipping and update. Repeat: `{result['command']}`."
    )
    return f"{markdown(rows)}\n\n{note}"

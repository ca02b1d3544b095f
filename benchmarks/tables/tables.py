"""What the tables of the pages share: Markdown, scores in points, and the tables of settings."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

Table = Callable[[], str]


def of_results(
    results: Mapping[str, dict[str, Any]], made: Mapping[str, Callable[[dict[str, Any]], str]]
) -> dict[str, Table]:
    """Return the tables by the name of their place in a page; those without a result are left out."""
    return {name.replace("_", "-"): partial(table, results[name]) for name, table in made.items() if name in results}


def markdown(rows: list[list[str]]) -> str:
    """Return rows as a table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def score(row: dict[str, Any]) -> str:
    """Return the mean of an arm in points, with its spread where it has several seeds."""
    spread = row["spread"]
    return f"{100 * row['mean']:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "")


def tuning_table(result: dict[str, Any]) -> str:
    """Return the settings that were compared on held-out training rows."""
    names = ["setting", *(each["set"] for each in result["sets"])]
    rows = [names, ["---"] * len(names)]
    for index, first in enumerate(result["sets"][0]["arms"]):
        rows.append([first["name"], *(f"{100 * each['arms'][index]['mean']:.2f}" for each in result["sets"])])
    return f"{markdown(rows)}\n\nOne seed, {result['evaluated_on']}. Repeat: `{result['command']}`."


def described_sets(result: dict[str, Any]) -> str:
    """Return rows, training and teacher of each set, and how many seeds it has."""
    return "; ".join(
        f"{each['set']}: {each['rows']['train']:,} training and {each['rows']['eval']:,} dev rows, "
        f"{each['setting']['epochs']:g} epochs in batches of {each['setting']['batch_size']}, "
        f"teacher {100 * each['teacher']:.2f}, seeds: {len(each['arms'][0]['scores'])}"
        for each in result["sets"]
    )


def repeat_line(result: dict[str, Any]) -> str:
    """Return the command that makes the result again, with its sets and seeds."""
    chosen = " ".join(f"--set {each['set']}" for each in result["sets"])
    return f"`{result['command']} {chosen} --seeds {result['seeds']}`"

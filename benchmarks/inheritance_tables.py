"""The tables of docs/inheriting.md, from the results of inheritance and inheriting_speed."""

from collections.abc import Callable
from functools import partial
from typing import Any


def inheritance_tables(results: dict[str, dict[str, Any]]) -> dict[str, Callable[[], str]]:
    """Return the tables by the name of their place in a page; those without a result are left out."""
    made = {"inheritance": comparison_table, "inheriting_speed": speed_table}
    return {name.replace("_", "-"): partial(table, results[name]) for name, table in made.items() if name in results}


def comparison_table(result: dict[str, Any]) -> str:
    """Return the arms side by side on every set, in points, with the training seconds of a run."""
    sets = result["sets"]
    head = ["arm"]
    for each in sets:
        head += [f"{each['set']}, {each['metric']}", "s"]
    rows = [head, ["---"] * len(head)]
    for index, first in enumerate(sets[0]["arms"]):
        row = [first["name"]]
        for each in sets:
            arm = each["arms"][index]
            spread = f" ± {100 * arm['spread']:.2f}" if arm["spread"] is not None else ""
            row += [f"{100 * arm['mean']:.2f}{spread}", f"{arm['train_seconds']:.0f}"]
        rows.append(row)
    facts = "; ".join(
        f"{each['set']}: {each['rows']['train']:,} training and {each['rows']['eval']:,} dev rows, "
        f"{each['setting']['epochs']:g} epochs in batches of {each['setting']['batch_size']}, "
        f"teacher {100 * each['teacher']:.2f}"
        for each in sets
    )
    shape = result["shape"]
    seeds = "one seed, no spread" if result["seeds"] == 1 else f"mean and standard deviation of {result['seeds']} seeds"
    note = (
        f"Points on {result['evaluated_on']}, {seeds}. Student: {shape['layers']} layers x {shape['hidden']}, FFN "
        f"{shape['ffn']}. Maps take {100 * result['share']:.0f} % of the steps. {facts}. One thread per run, "
        f"{result['processes']} runs at a time. Repeat: `{result['command']} --seeds {result['seeds']}`."
    )
    return f"{_table(rows)}\n\n{note}"


def speed_table(result: dict[str, Any]) -> str:
    """Return time and memory of a step as ratios to distillation."""
    rows = [["method", "time of a step", "peak memory", "trained weights"], ["---"] * 4]
    for name, ratio in result["ratios"].items():
        trained = result["measured"][name]["trained"]
        rows.append([name, f"x {ratio['time']:.2f}", f"x {ratio['memory']:.2f}", f"{trained:,}"])
    plain = result["measured"]["distill"]["time"]
    note = (
        f"Batches of {result['batch']} rows x {result['tokens']} tokens; plain distillation takes "
        f"{1000 * plain:.0f} ms a step. Median of {result['rounds']} rounds. Repeat: `{result['command']}`."
    )
    return f"{_table(rows)}\n\n{note}"


def _table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

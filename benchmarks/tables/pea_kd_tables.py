"""The tables of the parts of Pea-KD in docs/sharing.md, from the results of pea_kd."""

from statistics import mean
from typing import Any

from benchmarks.tables.tables import Table, described_sets, markdown, of_results, repeat_line, score, tuning_table


def pea_kd_tables(results: dict[str, dict[str, Any]]) -> dict[str, Table]:
    """Return the tables by the name of their place in a page; those without a result are left out."""
    return of_results(results, {"pea_kd": comparison_table, "pea_kd_tuning": tuning_table})


def comparison_table(result: dict[str, Any]) -> str:
    """Return the arms side by side on every set, in points, and the mean gain over patient distillation alone."""
    sets = result["sets"]
    head = ["stored layers", "arm", *(f"{each['set']}, {each['metric']}" for each in sets)]
    head += ["mean gain", "bytes", "s per run"]
    rows = [head, ["---"] * len(head)]
    for index, first in enumerate(sets[0]["arms"]):
        arms = [each["arms"][index] for each in sets]
        layers, name = first["name"].split("  ", 1)
        gain = mean(_gains(sets, index))
        cells = [score(arm) for arm in arms]
        seconds = mean(arm["train_seconds"] for arm in arms)
        rows.append([layers, name, *cells, f"{gain:+.2f}", f"{first['predicted_bytes']:,}", f"{seconds:.0f}"])
    shape = result["shape"]
    note = (
        f"Points on {result['evaluated_on']}, mean and standard deviation over the seeds. Students: {shape['hidden']} "
        f"wide, {shape['heads']} heads, FFN {shape['ffn']}, 5,000 tokens; bytes of the int8 package of "
        f"{sets[0]['set']} by prediction. The teacher's predictions take {100 * result['share']:.0f} % of the steps, "
        f"which are as many in every arm. {described_sets(result)}. One thread per run, {result['processes']} runs at "
        f"a time. Repeat: {repeat_line(result)}."
    )
    return f"{markdown(rows)}\n\n{note}\n\n{_gain_lines(sets)}"


def _gains(sets: list[dict[str, Any]], index: int) -> list[float]:
    """Return what arm ``index`` gains over patient distillation of as many layers, in points, a set each."""
    found = []
    for each in sets:
        arm = each["arms"][index]
        plain = next(row for row in each["arms"] if row["name"] == f"{arm['name'][0]}  patient distillation")
        found.append(100 * (arm["mean"] - plain["mean"]))
    return found


def _gain_lines(sets: list[dict[str, Any]]) -> str:
    """Return the mean gain of each part over depths and sets, a line each, beside the paper's claim."""
    names = dict.fromkeys(arm["name"].split("  ", 1)[1] for arm in sets[0]["arms"])
    lines = []
    for name in names:
        if name.startswith(("plain", "patient")):
            continue
        indices = [number for number, arm in enumerate(sets[0]["arms"]) if arm["name"].endswith(f"  {name}")]
        gains = [gain for index in indices for gain in _gains(sets, index)]
        better = sum(gain > 0 for gain in gains)
        lines.append(f"- {name}: {mean(gains):+.2f} points on average, better in {better} of {len(gains)} cells.")
    indices = [number for number, arm in enumerate(sets[0]["arms"]) if "  plain" in arm["name"]]
    gains = [gain for index in indices for gain in _gains(sets, index)]
    lines.append(
        f"- a plain student of twice the layers and as many bytes: {mean(gains):+.2f} points on average, better in "
        f"{sum(gain > 0 for gain in gains)} of {len(gains)} cells."
    )
    return "\n".join(lines)

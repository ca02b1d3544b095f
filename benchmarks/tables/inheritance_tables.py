"""The tables of docs/inheriting.md, from the results of inheritance and inheriting_speed."""

from typing import Any, NamedTuple

from benchmarks.tables.tables import Table, described_sets, markdown, of_results, repeat_line, score, tuning_table


def inheritance_tables(results: dict[str, dict[str, Any]]) -> dict[str, Table]:
    """Return the tables by the name of their place in a page; those without a result are left out."""
    made = {
        "inheritance": comparison_table,
        "inheritance_tuning": tuning_table,
        "inheritance_curve": curve_table,
        "inheriting_speed": speed_table,
    }
    return of_results(results, made)


def comparison_table(result: dict[str, Any]) -> str:
    """Return the arms side by side on every set, in points, with the training seconds of a run."""
    sets = result["sets"]
    head = ["arm"]
    for each in sets:
        head += [f"{each['set']}, {each['metric']}", "s"]
    rows = [head, ["---"] * len(head)]
    for name in dict.fromkeys(arm["name"] for each in sets for arm in each["arms"]):
        row = [name]
        for each in sets:
            arm = next((arm for arm in each["arms"] if arm["name"] == name), None)
            row += [score(arm), f"{arm['train_seconds']:.0f}"] if arm else ["", ""]
        rows.append(row)
    shape = result["shape"]
    note = (
        f"Points on {result['evaluated_on']}, mean and standard deviation over the seeds. Student: {shape['layers']} "
        f"layers x {shape['hidden']}, FFN {shape['ffn']}. Maps take {100 * result['share']:.0f} % of the steps. "
        f"{described_sets(result)}. One thread per run, {result['processes']} runs at a time. Repeat: "
        f"{repeat_line(result)}."
    )
    return f"{markdown(rows)}\n\n{note}\n\n{_claims(sets)}"


def _claims(sets: list[dict[str, Any]]) -> str:
    """Return what was to be shown, in points, and on how many sets it holds, a line each."""
    lines = []
    for what in ("equal steps", "equal time"):
        for letter, name in (("e", "Weight Squeezing"), ("f", "Weight Distillation"), ("g", "WID")):
            lines.append(_claim(sets, f"{name} at {what}", letter, what == "equal time", "abcd"))
    lines.append(_claim(sets, "Layers picked and sliced", "d", False, "abc"))
    lines += [
        _claim(sets, f"Gated Weight Squeezing at {what}", "i", what == "equal time", "h")
        for what in ("equal steps", "equal time")
    ]
    return "\n".join(lines)


def _claim(sets: list[dict[str, Any]], name: str, letter: str, is_equal_time: bool, others: str) -> str:
    known = {"a": "labels alone", "b": "logits", "c": "logits and states", "d": "slicing", "h": "the same without"}
    parts = []
    for other in others:
        gaps = []
        for each in sets:
            ours = [row for row in each["arms"] if row["name"][0] == letter]
            ours = [row for row in ours if row["name"].endswith(", equal time") == is_equal_time]
            theirs = [row for row in each["arms"] if row["name"][0] == other]
            if theirs:  # a sentence encoder has no labels to learn from
                gaps.append(100 * (ours[0]["mean"] - theirs[0]["mean"]))
        shown = ", ".join(f"{gap:+.2f}" for gap in gaps)
        parts.append(f"{known[other]} {shown} (better on {sum(gap > 0 for gap in gaps)} of {len(gaps)})")
    return f"- {name} against {'; '.join(parts)}."


def curve_table(result: dict[str, Any]) -> str:
    """Return the scores along the training, by the share of the steps, and when distillation's final one is reached."""
    parts = []
    for each in result["sets"]:
        curves = {arm["name"]: _curve(arm, f"eval_{each['metric']}") for arm in each["arms"]}
        goal = next(points[-1] for name, points in curves.items() if name.startswith("b "))
        marks = [index / 6 for index in range(1, 7)]
        rows = [[each["set"], *(f"{100 * mark:.0f} % of the steps" for mark in marks), "reaches b's last score after"]]
        rows.append(["---"] * len(rows[0]))
        for name, points in curves.items():
            whole = points[-1].step
            scores = [max((p for p in points if p.step <= mark * whole + 1), default=points[0]) for mark in marks]
            first = next((point.seconds for point in points if point.score >= goal.score), None)
            when = f"{first:.0f} s" if first is not None else "never"
            rows.append([name, *(f"{100 * point.score:.2f}" for point in scores), when])
        parts.append(markdown(rows))
    note = f"One seed, dev, the seconds with what a stage does before its first step. Repeat: `{result['command']}`."
    return "\n\n".join([*parts, note])


class _Point(NamedTuple):
    step: int
    seconds: float
    score: float


def _curve(arm: dict[str, Any], key: str) -> list[_Point]:
    """Return the scores of an arm over its stages; a stage's seconds are spread evenly over its steps."""
    points, steps, seconds = [], 0, 0.0
    for stage in arm["logs"][0]:
        n_steps = max(entry["step"] for entry in stage["log"])
        for entry in stage["log"]:
            if key in entry:
                taken = stage["seconds"] * entry["step"] / n_steps
                points.append(_Point(steps + entry["step"], seconds + taken, entry[key]))
        steps, seconds = steps + n_steps, seconds + stage["seconds"]
    return [*points, _Point(steps, seconds, arm["scores"][0])]


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
    return f"{markdown(rows)}\n\n{note}"

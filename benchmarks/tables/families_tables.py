"""What the families of students are worth at small byte budgets: a table and a picture."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.tables.tables import Table, markdown, of_results

PICTURE = Path("docs") / "families.svg"
COLORS = {"recurrent": "C0", "convolution": "C1", "mean": "C2", "static": "C4", "tfidf": "C5", "transformer": "C3"}


def families_tables(results: Mapping[str, dict[str, Any]]) -> dict[str, Table]:
    """Return the tables by the name of their place in a page."""
    return of_results(results, {"families": families_table})


def families_table(result: dict[str, Any]) -> str:
    """Return a row per set and size: the packages of every family, TF-IDF and the teacher."""
    families = [
        name for name in COLORS if any(name in each for sizes in result["rows"].values() for each in sizes.values())
    ]
    lines = [["dev set", "budget", *families, "TF-IDF", "teacher"], ["---"] * (len(families) + 4)]
    for data, sizes in result["rows"].items():
        for size, row in sorted(sizes.items(), key=lambda each: _megabytes(each[0])):
            first = next(iter(next(iter(row.values())).values()))
            beside = result["tfidf"].get(data, {}).get(size)
            lines.append(
                [
                    f"{data} ({first['metric']})",
                    size,
                    *(_cell(row[name]) if name in row else "" for name in families),
                    "-" if beside is None else f"{100 * beside:.2f}",
                    f"{100 * first['teacher']:.2f}",
                ]
            )
    note = (
        "Points of the package (± standard deviation over seeds where there are several), its bytes and its p50 from "
        "text to answer, one thread of a busy machine. Nothing was chosen on these rows. TF-IDF by scikit-learn at the "
        f"same bytes. Repeat: `{result['command']}`."
    )
    cut = "; ".join(
        f"{data} {100 * each['package']:.2f} in {each['bytes'] / 1e6:.1f} MB"
        for data, each in result.get("trimmed", {}).items()
    )
    note += f" The teacher with 8,000 tokens and int8, nothing trained: {cut}." if cut else ""
    return f"{markdown(lines)}\n\n{note}"


def _cell(seeds: Mapping[str, Any]) -> str:
    found = list(seeds.values())
    scores = [100 * each["package"] for each in found]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    times = [each["p50_ms"] for each in found if each.get("p50_ms") is not None]
    time = f", {statistics.median(times):.2f} ms" if times else ""
    return f"{statistics.mean(scores):.2f}{spread} ({found[0]['bytes'] / 1e3:,.0f} kB{time})"


def draw(families: Mapping[str, Any], worth: Mapping[str, Any] | None, path: Path) -> None:
    """Draw bytes against scores of every set that has three sizes, a line for each family."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "tenmeg", "svg.fonttype": "none"}):
        shown = {name: sizes for name, sizes in families["rows"].items() if len(sizes) > 1}
        figure, axes = pyplot.subplots(1, len(shown), figsize=(4.5 * len(shown), 3.6), squeeze=False)
        for axis, (name, sizes) in zip(axes[0], shown.items(), strict=True):
            points: dict[str, list[tuple[float, float]]] = {}
            for row in sizes.values():
                for family, seeds in row.items():
                    points.setdefault(family, []).append(_point(list(seeds.values())))
            for arm, seeds in ((worth or {}).get("rows", {}).get(name, {})).items():
                if arm.startswith("now-"):
                    points.setdefault("transformer", []).append(_point(list(seeds.values())))
            for family, found in points.items():
                if family in COLORS:
                    axis.plot(*zip(*sorted(found), strict=True), "o-", color=COLORS[family], label=family, markersize=4)
            beside = families["tfidf"].get(name, {})
            simple = sorted((_megabytes(size), 100 * value) for size, value in beside.items() if value is not None)
            if simple:
                axis.plot(*zip(*simple, strict=True), "s--", color="gray", label="TF-IDF (scikit-learn)", markersize=4)
            if name in families.get("trimmed", {}):
                one = families["trimmed"][name]
                axis.plot([one["bytes"] / 1e6], [100 * one["package"]], "k^", label="trimmed teacher, int8")
            first = next(iter(next(iter(next(iter(sizes.values())).values())).values()))
            axis.axhline(100 * first["teacher"], color="black", linewidth=0.8, linestyle=":", label="teacher")
            axis.set(xscale="log", xlabel="package, MB", ylabel=f"{first['metric']}, points", title=f"{name}, dev")
            axis.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _point(seeds: list[dict[str, Any]]) -> tuple[float, float]:
    return seeds[0]["bytes"] / 1e6, 100 * statistics.mean(each["package"] for each in seeds)


def _megabytes(size: str) -> float:
    from exporters.budget import parse_size

    return parse_size(size) / 1e6

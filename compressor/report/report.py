"""What a run leaves for people and programs: report.json, a single-file report.html, and the package's model card.

The report is one dictionary; every block but ``version`` and ``status`` may be missing, the page then leaves it out:

    {"version": 1, "status": "ok" | "not met" | "failed",
     "recipe": {...},                                          # resolved, as Recipe.model_dump()
     "student": text, "shape": {"layers", "hidden", "heads", "ffn", "vocab_size", ...},
     "task": {"task", "kind", "labels", "metric", "pair", "max_length"},
     "metrics": {"teacher" | "student" | "package": {metric: value}},
     "baselines": [{"name", "metrics": {metric: value}, "bytes", "p50_ms", "p95_ms"}],
     "drop": {"points", "low", "high", "level", "rows"},       # of the package; low and high: its 95 % interval
     "verdict": [sentence],                       # where one of those is better or the rows are too few; else empty
     "advice": [sentence],                                      # where the drop is larger than allowed; else empty
     "budget": {"limits": {name: text}, "measured": {name: number}, "violations": [sentence]},  # size, latency, drop
     "size": {"predicted": {part: bytes}, "measured": {part: bytes}, "total": bytes},
     "quantization": {"scheme": name, count: number, ...},
     "parity": [{"step", "max_abs", "cosine_min", "top1_agreement"}],
     "latency": {"p50", "p95", "p99", "mean", "samples": [ms], "threads", "ep"},
     "memory": {name: megabytes},
     "vocabulary": {name: number, "worst_words": [{"word", "count", "extra", "teacher", "student"}]},
     "inheritance": [{"stage", "method", "tensors": {name: difference}, "largest", "outputs", "tolerances"}],
     "training": [{"stage", "method", "log": [{"step", "loss", term: value, "eval_...": metric}], "seconds",
                   "facts": {name: number or text}}],                 # about the rows, where the method tells any
     "hashes": {"model" | "data" | "code": sha256}, "versions": {name: version}, "machine": {...}, "seconds": {step: s}}

The card holds nothing that two runs with one seed could disagree on: no times, no latency, no machine. torch is not
imported, and jinja2 and matplotlib only when something is drawn. It refuses a report of another version.
"""

import io
import json
import math
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.files import read_json, write_text
from compressor.refused import Refused
from compressor.report.fold_certificates import sentence
from compressor.report.interval import interval

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REPORT_VERSION = 1
TEMPLATES_DIR = Path(__file__).parent / "templates"
COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#8e7dbe", "#d9a441", "#6c757d")
SCORES = ("eval_", "held_out")  # how the names of scores begin
NOT_CURVES = ("step", "epoch", "loss", "seconds", "learning_rate", "grad_norm")


def write_report(report: dict[str, Any], out_dir: Path) -> None:
    """Write report.json and report.html into ``out_dir``."""
    checked = check(report)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_text(
        out_dir / "report.json", json.dumps(_jsonable(checked), indent=2, sort_keys=True, allow_nan=False) + "\n"
    )
    write_text(out_dir / "report.html", html(checked))


def rewrite_report(source: Path, out_dir: Path) -> dict[str, Any]:
    """Write the page and the card again from a report.json (or a folder with one); return where they are."""
    path = source / "report.json" if source.is_dir() else source
    if not path.is_file():
        raise FileNotFoundError(f"report: {path} does not exist. Give a report.json or the --output folder of a run.")
    try:
        report = read_json(path)
    except ValueError as error:
        raise Refused(f"report: {path} is not JSON: {error}. Give the report.json that a run wrote.") from error
    write_report(report, out_dir)
    write_text(out_dir / "model_card.md", model_card(report))
    return {name: str(out_dir / name) for name in ("report.json", "report.html", "model_card.md")}


def check(report: Any) -> dict[str, Any]:  # Any: whatever was in the file
    """Return the report if its version is known.

    Raises:
        ValueError: naming the version that was found.
    """
    version = report.get("version") if isinstance(report, dict) else None
    if version != REPORT_VERSION:
        raise Refused(
            f"report: version {version!r} is not known, expected {REPORT_VERSION}. Repeat the run to renew it."
        )
    return dict(report)


def html(report: dict[str, Any]) -> str:
    """Return the page: one file, no scripts, drawings inside."""
    return _template("report.html.j2").render(report=_jsonable(report), drawings=drawings(report))


def model_card(report: dict[str, Any]) -> str:
    """Return the card that goes into the package: the same text for the same recipe, data and seed."""
    return _template("card.md.j2").render(report=_jsonable(report))


def drawings(report: dict[str, Any]) -> dict[str, str]:
    """Return inline SVG by name: ``loss`` and ``metrics`` (by stage), ``size``, ``latency``; only those with data."""
    found = {}
    for index, stage in enumerate(report.get("training", []), start=1):
        log, label = stage.get("log", []), f"stage {index}: {stage.get('method', stage.get('stage', ''))}"
        losses, others = _curves(log, is_loss=True), _curves(log, is_loss=False)
        if losses:
            found[f"{label}, loss"] = _svg(partial(_draw_curves, curves=losses, y_label="loss"))
        if others:
            found[f"{label}, metrics"] = _svg(partial(_draw_curves, curves=others, y_label="metric"))
    measured = report.get("size", {}).get("measured")
    if measured:
        predicted = report["size"].get("predicted", {})
        found["bytes by part"] = _svg(
            partial(_draw_sizes, measured=measured, predicted=predicted), height=0.8 + 0.4 * len(measured)
        )
    samples = report.get("latency", {}).get("samples")
    if samples:
        found["time from text to answer"] = _svg(partial(_draw_latency, latency=report["latency"]))
    return found


def _curves(log: list[dict[str, Any]], is_loss: bool) -> dict[str, list[tuple[float, float]]]:
    """Return points (step, value) by name: the loss and its terms, or the scores (``eval_...``, ``held_out...``)."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in log:
        for name, value in row.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            is_curve = name == "loss" or (name not in NOT_CURVES and not name.startswith("norm_"))
            if not is_number or not is_curve or name.startswith(SCORES) == is_loss:
                continue
            curves.setdefault(name, []).append((float(row.get("step", 0)), float(value)))
    return curves


def _draw_curves(axes: "Axes", curves: dict[str, list[tuple[float, float]]], y_label: str) -> None:
    for colour, (name, points) in zip(COLOURS * 4, sorted(curves.items()), strict=False):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=name.removeprefix("eval_"), color=colour, marker="o" if len(points) < 20 else "")
    axes.set_xlabel("step")
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize=8)


def _draw_sizes(axes: "Axes", measured: dict[str, int], predicted: dict[str, int]) -> None:
    names = sorted(measured, key=lambda name: measured[name])
    axes.barh(names, [measured[name] / 1e6 for name in names], color=COLOURS[0], label="measured")
    marks = [name for name in names if name in predicted]
    if marks:
        axes.plot(
            [predicted[name] / 1e6 for name in marks], marks, "|", color=COLOURS[1], markersize=14, label="predicted"
        )
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("MB (10^6 bytes)")


def _draw_latency(axes: "Axes", latency: dict[str, Any]) -> None:
    axes.hist(latency["samples"], bins=40, color=COLOURS[0])
    for colour, name in zip(COLOURS[1:], ("p50", "p95", "p99"), strict=False):
        if name in latency:
            axes.axvline(latency[name], color=colour, label=f"{name} {latency[name]:.2f} ms")
    axes.set_xlabel("ms")
    axes.set_ylabel("answers")
    axes.legend(frameon=False, fontsize=8)


def _svg(draw: Callable[["Axes"], None], height: float = 2.8) -> str:
    """Return a drawing of one pair of axes."""

    def draw_all(figure: "Figure") -> None:
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)

    return svg(draw_all, height)


def svg(draw: Callable[["Figure"], None], height: float = 2.8, is_transparent: bool = True) -> str:
    """Return one drawing as an <svg> element; the same data gives the same text."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "tenmeg", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.0, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=is_transparent)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _template(name: str) -> "Template":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = _number
    environment.filters["zip"] = zip
    environment.filters["short_name"] = _short_name
    environment.filters["certificate"] = sentence
    environment.filters["interval"] = interval
    return environment.get_template(name)


def _number(value: Any) -> str:  # Any: what a report may hold
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2e}" if value and abs(value) < 1e-3 else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _short_name(source: str) -> str:
    """Return a hub id as it is, and of a local path only its last part: a card tells nothing of somebody's folders."""
    is_hub_id = re.fullmatch(r"\w[\w.-]*/[\w.-]+", source) and not re.search(r"\.[a-z]+$", source)
    return source if is_hub_id and not Path(source).exists() else Path(source).name


def _jsonable(value: Any) -> Any:
    """Return the value with paths as text and what JSON cannot say (NaN, infinity) as None."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, os.PathLike) else value

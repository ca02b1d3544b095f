"""The block of lines that ends a run: what was made, how good and how sure that is, what to do next."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from compressor.report import fold_certificates
from compressor.report.interval import interval


def closing_lines(report: Mapping[str, Any], package_dir: Path, report_path: Path, violations: list[str]) -> list[str]:
    """Return the lines of a run's report.

    Args:
        report: as ``compressor.report.report`` describes it.
        package_dir: where the package lies.
        report_path: where the report lies.
        violations: a sentence for each promise that is not kept.
    """
    metric = report["task"]["metric"]
    ours, theirs = report["metrics"]["package"][metric], report["metrics"]["teacher"][metric]
    sure = interval(report.get("drop", {}))
    times = "p50 {p50:.2f} ms, p95 {p95:.2f} ms from text to answer, {threads} thread".format(**report["latency"])
    lines = [
        f"package   {package_dir}  {report['size']['total']:,} bytes ({report['student']})",
        f"quality   {metric} {ours:.4f}, teacher {theirs:.4f}: {(theirs - ours) * 100:+.2f} points of drop{sure}",
        f"latency   {times}",
        _words_line(report["vocabulary"]),
        *fold_certificates.closing_lines(report["inheritance"]),
    ]
    for other in report["baselines"]:
        value = other["metrics"].get(metric)
        if value is not None:
            lines.append(f"beside    {other['name']}: {metric} {value:.4f} in {other['bytes']:,} bytes")
    lines += [f"honestly  {sentence}" for sentence in report["verdict"]]
    lines += [f"missed    {sentence}" for sentence in violations]
    lines += [f"advice    {sentence}" for sentence in report.get("advice", [])]
    folder = quote(str(package_dir))
    text = '"some text"' if not report["task"]["pair"] else '"some text" --pair "another"'
    return [
        *lines,
        f"report    {report_path.with_suffix('.html')}",
        f"try       python -m edge_demo {folder} {text}",
        f"verify    tenmeg verify {folder} --eval FILE --json",
    ]


def _words_line(vocabulary: Mapping[str, Any]) -> str:
    """Say how the student's vocabulary cuts words."""
    n_new = vocabulary["newly_unknown_words"]
    unknown = f"{n_new:,} newly unknown" if n_new else "no new unknown"
    return f"words     {100 * vocabulary['identical_words']:.1f} % cut as the teacher cuts them, {unknown}"

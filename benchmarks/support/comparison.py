"""From arms to a table: what the comparisons of methods on several sets share beside ``benchmarks.support.runner``."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.support.runner import Prepared, run_all, slug, summary
from compressor.files import write_json
from exporters.measuring.machine import machine, versions

RESULTS_DIR = Path("docs/results")
SEEDS = 3
Arms = dict[str, dict[str, Any]]  # parts of recipes by name
Results = dict[str, list[dict[str, Any]]]  # of every arm by name, a seed each


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a comparison to its command."""
    for add in reversed(
        [
            click.option("--data", required=True, type=_folder(), help="Folder of the data sets."),
            click.option("--sst2-teacher", required=True, type=_folder(), help="SST-2 classifier."),
            click.option("--work", required=True, type=click.Path(path_type=Path), help="Where the runs go."),
            click.option("--tune", is_flag=True, help="Compare settings on held-out training rows, one seed."),
            click.option("--set", "set_names", multiple=True, help="Sets to run; all when left out."),
            click.option("--seeds", default=SEEDS, show_default=True),
            click.option("--processes", default=os.cpu_count() or 1, show_default="one per core"),
        ]
    ):
        command = add(command)
    return command


def _folder() -> click.Path:
    return click.Path(path_type=Path, exists=True)


def in_batches(arms: Arms, batch_size: int) -> Arms:
    """Return the arms with the batch size of their set in every stage."""
    for each in arms.values():
        for one in each["stage"]:
            one["batch_size"] = batch_size
    return arms


def run_arms(
    prepared: Sequence[Prepared], plans: Mapping[str, Arms], n_seeds: int, processes: int
) -> dict[str, Results]:
    """Return the results by set and arm, in the order of the plans; what has run before is not run again.

    Args:
        prepared: the sets.
        plans: the arms of each set.
        n_seeds: of every arm.
        processes: how many arms run at once.
    """
    jobs = [
        (each, name, seed) for seed in range(n_seeds) for each in prepared for name in plans[each.name]
    ]  # seeds one after the other: a table that is cut short has them all of the first
    done = run_all([(each, slug(name), plans[each.name][name], seed) for each, name, seed in jobs], processes)
    found: dict[str, Results] = {each.name: {} for each in prepared}
    for (each, name, _), result in zip(jobs, done, strict=True):
        found[each.name].setdefault(name, []).append(result)
    return found


def write_comparison(
    name: str,
    started: float,
    prepared: Sequence[Prepared],
    facts: Sequence[dict[str, Any]],
    results: Mapping[str, Results],
    content: dict[str, Any],
    *,
    has_logs: bool = False,
) -> None:
    """Show the rows and write docs/results/NAME.json.

    Args:
        name: of the file.
        started: when, by ``time.monotonic``.
        prepared: the sets.
        facts: of each set, what its table says beside the arms; at least its ``metric``.
        results: as of ``run_arms``.
        content: what else the file says; ``command`` among it.
        has_logs: whether the training log of each arm's first seed belongs into the file: hundreds of lines.
    """
    tables = []
    for each, known in zip(prepared, facts, strict=True):
        rows = []
        for arm, found in results[each.name].items():
            logs = {"logs": [found[0]["training"]]} if has_logs else {}
            rows.append({**summary(arm, found, known["metric"]), **logs})
        tables.append({"set": each.name, **known, "arms": rows})
        for row in rows:
            shown = f"{row['mean']:.4f} {row['spread'] or 0:.4f} {row['train_seconds']:.0f} s"
            click.echo(f"{each.name:9} {row['name']:60} {shown}")
    every = [result for found in results.values() for each in found.values() for result in each]
    write_json(
        RESULTS_DIR / f"{name}.json",
        {
            "version": 1,
            **content,
            "seconds_now": round(time.monotonic() - started),
            "arm_seconds": round(sum(result["seconds"] for result in every)),
            "sets": tables,
            "versions": versions(),
            "machine": machine(),
        },
    )

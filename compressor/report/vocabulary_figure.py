"""The vocabulary curve as a picture: tokens per text beside the share of tokens that the teacher has, over the size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from compressor.report.report import COLOURS, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vocab.comparing.curve import Curve, Pick

Line = Sequence[tuple[int, float]]  # (size, value)


class Panel(NamedTuple):
    """One of the drawings side by side."""

    label: str
    lines: Mapping[str, Line]
    levels: Mapping[str, float]  # drawn across, in the colours of the lines of that name
    first_colour: int = 0


def picture(found: "Curve", picked: "Pick | None", is_transparent: bool = True) -> str:
    """Return the picture of one curve: a line per file, the teacher's cut dashed, the pick marked."""
    labels = {name: Path(name).name for name in found.n_texts}
    sizes = [point.size for point in found.points]
    lengths = {
        label: list(zip(sizes, (p.measures.tokens_per_text_by_file[name] for p in found.points), strict=True))
        for name, label in labels.items()
    }
    theirs = {labels[name]: value for name, value in found.teacher.tokens_per_text_by_file.items()}
    shares = {
        "tokens that the teacher has": [(p.size, 100 * p.measures.coverage) for p in found.points],
        "words that are one token": [(p.size, 100 * p.measures.whole_words) for p in found.points],
    }
    mark = picked.point.size if picked else None
    return draw(
        [Panel("tokens per text", lengths, theirs), Panel("%", shares, {}, first_colour=2)], mark, is_transparent
    )


def draw(panels: Sequence[Panel], mark: int | None, is_transparent: bool = True) -> str:
    """Return panels side by side as one <svg> element; ``mark`` is a size to point at."""

    def fill(figure: "Figure") -> None:
        for place, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), place)
            axes.spines[["top", "right"]].set_visible(False)
            _fill(axes, panel, mark)

    return svg(fill, height=3.4, is_transparent=is_transparent)


def _fill(axes: "Axes", panel: Panel, mark: int | None) -> None:
    for place, (label, line) in enumerate(panel.lines.items(), start=panel.first_colour):
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(*zip(*line, strict=True), label=label, color=colour, marker="o", markersize=3)
        if label in panel.levels:
            axes.axhline(
                panel.levels[label], color=colour, linestyle="--", linewidth=1, label=f"{label}, teacher's cut"
            )
    if mark is not None:
        axes.axvline(mark, color=COLOURS[-1], linestyle=":", linewidth=1, label=f"{mark:,} tokens")
    axes.set_xscale("log", base=2)
    sizes = [size for line in panel.lines.values() for size, _ in line]
    ticks = [125 * 2**power for power in range(12) if min(sizes) <= 125 * 2**power <= max(sizes)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("tokens in the vocabulary")
    axes.set_ylabel(panel.label)
    axes.legend(frameon=False, fontsize=7)

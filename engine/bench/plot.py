"""The results as bars."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from ..errors import UsageError
from ..files import atomic_write
from .results import Report

_COLOURS = {"ours": "#1b6ca8", "pytorch": "#9a9a9a"}


def check_plot(path: Path) -> None:
    """Whether a plot can be drawn into this file.

    Raises:
        UsageError: another ending than .png, .svg or .pdf.
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {path}: must end in .png, .svg or .pdf")


def draw(reports: Sequence[Report], path: Path) -> None:
    """Draw a bar a contender, samples/s from slowest to fastest round, a panel a workload.

    Args:
        reports: what was found on each, one at least.
        path: png, svg or pdf.

    Raises:
        UsageError: another ending.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_plot(path)
    heights = [1 + len(report.result.rows()) for report in reports]
    figure = Figure(figsize=(8, 0.4 * sum(heights) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for result, axes in zip([report.result for report in reports], panels, strict=True):
        rows = result.rows()
        for entry in reversed(result.entries):
            row = rows.get(entry.contender)
            if row is None:
                continue
            middle = row.samples_per_second
            axes.barh(
                entry.label,
                middle,
                xerr=[[middle - row.low], [row.high - middle]],
                color=_COLOURS[entry.kind],
                error_kw={"lw": 1, "capsize": 2},
            )
        axes.set_title(f"{result.workload}, samples/s (median, slowest to fastest round)", fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    provenance = reports[-1].provenance
    where = provenance.get("gpu") or f"{provenance['cpu']}, {provenance['threads']} threads"
    figure.supxlabel(f"{where}, torch {provenance['torch']}, {provenance['date']}", fontsize=7)
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=150)
    with atomic_write(path) as file:
        file.write(content.getvalue())

"""Learning curves: test accuracy over epochs, a panel for each image set, a line for each member."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError, WseError
from ..files import atomic_write
from ..zoo import Zoo
from .learning import Curve, curves_by_dataset, quantile_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg", "pdf")
# More lines than this hide each other; the band and the median are drawn from all members all the same.
_MOST_LINES = 200
_LINE, _BAND, _MEDIAN = "#4c72b0", "#dd8452", "#c44e52"


def draw_learning_curves(zoo: Zoo, path: Path) -> None:
    """Draw the members' test accuracy against the epoch.

    Thin lines are single members, the thick line is the median over members and the band holds the middle half
    of them, up to the epoch that half of the members reach.

    Args:
        zoo: the zoo.
        path: where the picture goes; its ending (png, svg, pdf) chooses the format.

    Raises:
        UsageError: the ending is none of those.
        WseError: the file cannot be written.
    """
    format_name = path.suffix.removeprefix(".").lower()
    if format_name not in FORMATS:
        raise UsageError(f"cannot draw {path}: the name must end in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}")
    from matplotlib.figure import Figure

    curves = curves_by_dataset(zoo)
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(1 + 4 * columns, 0.6 + 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, (name, here) in zip(panels, curves.items(), strict=False):
        _draw_panel(panel, here, classes=zoo.manifest.image_sets[name].classes)
        panel.set_title(f"{name} · {len(here):,} networks", fontsize=10)
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("test accuracy", fontsize=10)
    try:
        with atomic_write(path) as file:
            figure.savefig(file, format=format_name, dpi=150)
    except OSError as error:
        raise WseError(f"cannot write {path}: {error.strerror or error}") from error


def _draw_panel(panel: Axes, curves: list[Curve], *, classes: int) -> None:
    from matplotlib.ticker import MaxNLocator

    shown = curves[:: -(-len(curves) // _MOST_LINES)]
    for epochs, accuracies in shown:
        panel.plot(epochs, accuracies, color=_LINE, linewidth=0.7, alpha=max(0.15, 1 / len(shown) ** 0.5))
    at, (low, middle, high) = quantile_curves(curves, [0.25, 0.5, 0.75])
    panel.fill_between(at, low, high, color=_BAND, alpha=0.25, linewidth=0, label="middle half")
    panel.plot(at, middle, color=_MEDIAN, linewidth=2, label="median")
    panel.axhline(1 / classes, color="0.5", linewidth=0.8, linestyle=":", label="chance")
    panel.set_ylim(0, 1)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(loc="lower right", fontsize=7, framealpha=0.8, edgecolor="none")
    panel.spines[["top", "right"]].set_visible(False)

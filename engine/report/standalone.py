"""A figure as one SVG file: its charts side by side under its title and legend, with the page's style in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .figure import Figure, Key
from .svg import LINE, WIDTH, element, text, width_of
from .templates import stylesheet

_MOST_COLUMNS = 3
_MARGIN, _GAP = 12, 12
_TITLE = 20  # where the title ends
_SWATCH, _SPACE = 26, 18  # width of a legend's mark, and between two entries
_HEIGHT = re.compile(r'viewBox="0 0 \S+ (\S+)"')


def standalone(figure: Figure) -> str:
    """The figure as a document of its own, light or dark as the reader's system is."""
    columns = min(_MOST_COLUMNS, len(figure.panels))
    width = columns * WIDTH + (columns - 1) * _GAP
    legend, top = _legend(figure.keys, width)
    charts, bottom = _grid(figure.panels, columns, top + _GAP)
    frame = f"{-_MARGIN} {-_MARGIN} {width + 2 * _MARGIN} {bottom + 2 * _MARGIN:.0f}"
    return element(
        "svg",
        element("title", figure.title),
        element("style", stylesheet()),
        element("rect", x=-_MARGIN, y=-_MARGIN, width="100%", height="100%", class_="paper"),
        text(0, LINE, figure.title, "title"),
        *legend,
        *charts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=frame,
        width=width + 2 * _MARGIN,
        role="img",
        font_family="system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
    )


def swatch(style: str) -> str:
    """What marks of a style look like, in a box of 26 x 14."""
    colour, mark = style.split()[0], style.split()[-1]
    if mark in ("dot", "ring"):
        drawn = element("circle", cx=13, cy=7, r=4.5, class_=mark)
    elif mark in ("band", "bar"):
        drawn = element("rect", x=2, y=2, width=22, height=10, class_=mark)
    else:
        drawn = element("path", d="M3 7L23 7", class_=mark)
    return element("g", drawn, class_=colour)


def _legend(keys: Sequence[Key], width: float) -> tuple[list[str], float]:
    """Entries in lines no wider than the figure, and where they end."""
    drawn, x, y = [], 0.0, float(_TITLE + LINE)
    for key in keys:
        wide = _SWATCH + 6 + width_of(key.label)
        if x and x + wide > width:
            x, y = 0.0, y + LINE + 4
        drawn.append(element("g", swatch(key.style), transform=f"translate({x:.0f} {y - 11:.0f})"))
        drawn.append(text(x + _SWATCH + 6, y, key.label))
        x += wide + _SPACE
    return drawn, y if keys else _TITLE


def _grid(panels: Sequence[str], columns: int, top: float) -> tuple[list[str], float]:
    """Charts in rows, each where it stands, and where they end."""
    placed = []
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        heights = [float(_HEIGHT.findall(panel)[0]) for panel in row]
        for column, (panel, height) in enumerate(zip(row, heights, strict=True)):
            where = f'<svg x="{column * (WIDTH + _GAP)}" y="{top:.0f}" width="{WIDTH}" height="{height:.0f}" '
            placed.append(panel.replace("<svg ", where, 1))
        top += max(heights) + _GAP
    return placed, top - _GAP

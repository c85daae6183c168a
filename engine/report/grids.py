"""Charts of cells and of points: heat maps, confusion matrices, scatter plots."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .svg import (
    LINE,
    WIDTH,
    Scale,
    document,
    element,
    fitting,
    hint,
    path,
    percent,
    text,
    width_of,
)

Floats = NDArray[np.float64]

_TOP = 24


def heat_map(
    values_SP: Floats,
    *,
    low: float,
    high: float,
    edges: Mapping[str, tuple[float, float]],
    title: str,
    description: str,
    label: str,
) -> str:
    """Cells of a picture, with named regions along the x axis.

    Args:
        values_SP: [S, P], the first row at the bottom.
        low: value of the darkest colour; what lies below has it too.
        high: value of the brightest colour.
        edges: name -> (start, stop) of a region, as fractions of the width.
        title: of the chart.
        description: for those who do not see it.
        label: of the y axis, from bottom to top.
    """
    left, right, height = 34.0, WIDTH - 6.0, 170.0
    bottom = _TOP + height
    scale = Scale(low=0, high=1, start=left, stop=right)
    picture = element(
        "image",
        href=_picture(values_SP[::-1], low, high),
        x=left,
        y=_TOP,
        width=right - left,
        height=height,
        preserveAspectRatio="none",
        class_="pixels",
    )
    parts = [text(0, LINE, fitting(title, WIDTH - 4), "title"), picture]
    parts.append(text(0, 0, label, "label mid", transform=f"translate(14 {_TOP + height / 2}) rotate(-90)"))
    parts += _regions(scale, edges, bottom)
    legend = bottom + 68
    parts.append(_colours(left + 60, legend, 130))
    parts.append(text(left + 54, legend + 9, percent(low), "tick end"))
    parts.append(text(left + 196, legend + 9, percent(high), "tick"))
    return document(legend + 18, parts, title=title, description=description)


def _regions(scale: Scale, edges: Mapping[str, tuple[float, float]], bottom: float) -> list[str]:
    """Boundaries as ticks; names on a slant, moved apart where they would touch, with a line to their region."""
    parts = [
        path([(scale(edge), _TOP), (scale(edge), bottom + 5)], class_="edge")
        for edge in sorted({edge for pair in edges.values() for edge in pair if 0 < edge < 1})
    ]
    wanted = sorted((scale((start + stop) / 2), name) for name, (start, stop) in edges.items())
    places: list[float] = []
    for middle, _ in wanted:
        places.append(max(middle, places[-1] + 15 if places else scale.start))
    # Names pushed over the right end push back.
    limit = scale.stop - 4
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], limit)
        limit = places[index] - 15
    for place, (middle, name) in zip(places, wanted, strict=True):
        parts.append(path([(middle, bottom + 2), (place, bottom + 14)], class_="leader"))
        turned = f"translate({place + 3:.1f} {bottom + 21:.1f}) rotate(-40)"
        parts.append(text(0, 0, fitting(name, 50), "tick end", transform=turned))
    return parts


def _picture(values: Floats, low: float, high: float) -> str:
    """A PNG, a pixel a cell, as a link that holds it."""
    import matplotlib
    from matplotlib.image import imsave

    file = io.BytesIO()
    shares = np.clip((values - low) / (high - low or 1.0), 0, 1)
    imsave(file, (matplotlib.colormaps["viridis"](shares)[..., :3] * 255).round().astype(np.uint8), format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _colours(x: float, y: float, width: float) -> str:
    ramp = _picture(np.linspace(0, 1, 64)[None], 0, 1)
    return element("image", href=ramp, x=x, y=y, width=width, height=10, preserveAspectRatio="none")


def matrix(counts: Sequence[Sequence[int]], names: Sequence[str], *, title: str, description: str) -> str:
    """A confusion matrix: each row's shares in percent, the larger the stronger."""
    table = np.asarray(counts, np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    left = 12 + min(max(map(width_of, names)), 104)
    cell = min((WIDTH - 6 - left) / len(names), 60.0)
    height = min(cell, 30.0)
    top = _TOP + 8
    bottom = top + height * len(names)
    parts = [text(0, LINE, fitting(title, WIDTH - 4), "title")]
    for row, name in enumerate(names):
        y = top + height * row
        parts.append(text(left - 6, y + height / 2 + 4, fitting(name, left - 4), "name end"))
        for column, other in enumerate(names):
            share = float(shares[row, column])
            words = hint(f"true {name}, predicted {other}: {int(table[row, column]):,} ({percent(share)})")
            box = element(
                "rect",
                words,
                x=left + cell * column,
                y=y,
                width=cell - 1,
                height=height - 1,
                fill_opacity=max(share, 0.04),
                class_="cell",
                data_value=str(int(table[row, column])),
            )
            strong = " strong" if share > 0.55 else ""
            parts += [
                box,
                text(left + cell * (column + 0.5), y + height / 2 + 4, f"{100 * share:.0f}", f"tick mid{strong}"),
            ]
    for column, name in enumerate(names):
        turned = f"translate({left + cell * (column + 0.5) + 4:.1f} {bottom + 12:.1f}) rotate(-35)"
        parts.append(text(0, 0, fitting(name, 104), "tick end", transform=turned))
    drop = min(max(map(width_of, names)), 104) * 0.6
    words = "rows: true, columns: predicted, % of the row"
    parts.append(text(0, bottom + drop + 28, words, "label"))
    return document(bottom + drop + 38, parts, title=title, description=description)


def scatter(
    points: Floats, groups: Sequence[tuple[str, str, NDArray[np.bool_]]], *, title: str, description: str
) -> str:
    """Points in a plane, a colour a group.

    Args:
        points: [N, 2].
        groups: (class of the colour, name, which points [N]) for each.
        title: of the chart.
        description: for those who do not see it.
    """
    size, top = 250.0, _TOP
    (left, right), (lower, upper) = (np.quantile(points[:, axis], [0.002, 0.998]).tolist() for axis in (0, 1))
    x = Scale(low=left, high=right, start=10, stop=WIDTH - 10)
    y = Scale(low=lower, high=upper, start=top + size - 4, stop=top + 8)
    parts = [text(0, LINE, fitting(title, WIDTH - 4), "title")]
    parts.append(element("rect", x=1, y=top, width=WIDTH - 2, height=size + 4, rx=4, class_="frame"))
    across, down = 4.0, top + size + 22
    for style, name, here in groups:
        # A line of no length with a round end is a dot: a few letters a point.
        marks = "".join(f"M{x.inside(a):.1f} {y.inside(b):.1f}h0" for a, b in points[here].tolist())
        if marks:
            parts.append(element("path", d=marks, class_=f"{style} points", data_count=str(int(here.sum()))))
        width = 18 + width_of(name) + 8
        if across + width > WIDTH and across > 4:
            across, down = 4.0, down + LINE + 3
        parts.append(element("circle", cx=across + 6, cy=down - 4, r=4.5, class_=f"{style} dot"))
        parts.append(text(across + 14, down, name, "tick"))
        across += width
    return document(down + 8, parts, title=title, description=description)

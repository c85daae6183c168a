"""Charts whose rows have names: a dot with its interval, or a bar of parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .svg import LETTER, LINE, WIDTH, Format, Scale, around, document, element, fitting, hint, path, text, x_axis

_STEP = 19  # between two rows
_TOP = 24
_RIGHT = WIDTH - 14
_WIDEST = 132  # of the names


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A row: a value, the thin line of its interval and, inside it, a thick one.

    Attributes:
        name: of the row.
        value: where the dot is; nothing is drawn if it is NaN.
        interval: ends of the thin line.
        inner: ends of the thick line; None for no thick line.
        style: class of its colour.
        hollow: a ring in place of a dot, for baselines.
        note: at the end of what is shown while the pointer rests on it.
    """

    name: str
    value: float
    interval: tuple[float, float]
    inner: tuple[float, float] | None = None
    style: str = "c0"
    hollow: bool = False
    note: str = ""


def dots(
    rows: Sequence[Dot],
    *,
    title: str,
    description: str,
    label: str,
    form: Format,
    bounds: tuple[float, float] | None = None,
    line: tuple[float, str] | None = None,
) -> str:
    """Rows of dots over one axis.

    Args:
        rows: from top to bottom.
        title: of the chart.
        description: for those who do not see it.
        label: of the axis.
        form: how numbers are written.
        bounds: of the axis; None: what the rows need.
        line: (value, name) of a dashed line through all rows, such as chance.
    """
    ends = [end for row in rows if math.isfinite(row.value) for end in (*row.interval, row.value)]
    low, high = bounds or around(ends, *([line[0]] if line else []))
    left = 8 + min(max(len(row.name) for row in rows) * LETTER, _WIDEST) + 8
    bottom = _TOP + 8 + _STEP * len(rows)
    scale = Scale(low=low, high=high, start=left, stop=_RIGHT)
    parts = [text(0, LINE, fitting(title, WIDTH - 4), "title")]
    parts += x_axis(scale, top=_TOP, bottom=bottom, label=label, form=form)
    if line and low <= line[0] <= high:
        parts.append(path([(scale(line[0]), _TOP), (scale(line[0]), bottom)], class_="chance"))
    for index, row in enumerate(rows):
        y = _TOP + 4 + _STEP * (index + 0.5)
        parts.append(text(left - 8, y + 4, fitting(row.name, _WIDEST + 4), "name end"))
        if math.isfinite(row.value):
            parts.append(_dot(row, y, scale, form))
        else:
            parts.append(text(left + 4, y + 4, "no value", "tick"))
    return document(bottom + 2 * LINE + 8, parts, title=title, description=description)


def _dot(row: Dot, y: float, scale: Scale, form: Format) -> str:
    low, high = row.interval
    words = f"{row.name}: {form(row.value)} ({form(low)} to {form(high)}){row.note}"
    parts = [hint(words), path([(scale.inside(low), y), (scale.inside(high), y)], class_="whisker")]
    if row.inner is not None:
        inner = [(scale.inside(end), y) for end in row.inner]
        parts.append(path(inner, class_="thick"))
    parts.append(
        element("circle", cx=scale.inside(row.value), cy=y, r=4.2, class_="ring" if row.hollow else "dot")
    )
    return element("g", *parts, class_=row.style, data_value=repr(row.value))


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A row of (value, class of its colour, what it is) side by side, with words at its end."""

    name: str
    parts: tuple[tuple[float, str, str], ...]
    words: str


def bars(rows: Sequence[Bar], *, title: str, description: str) -> str:
    """Rows of stacked bars, each with its number in words: they need no axis."""
    left = 8 + min(max(len(row.name) for row in rows) * LETTER, _WIDEST) + 8
    ends = max(len(row.words) for row in rows) * LETTER + 8
    highest = max(sum(value for value, _, _ in row.parts) for row in rows)
    scale = Scale(low=0, high=highest, start=left, stop=max(WIDTH - ends, left + 60))
    parts = [text(0, LINE, fitting(title, WIDTH - 4), "title")]
    for index, row in enumerate(rows):
        y = _TOP + 4 + _STEP * index
        parts.append(text(left - 8, y + 12, fitting(row.name, _WIDEST + 4), "name end"))
        at = 0.0
        for value, style, what in row.parts:
            width = scale(at + value) - scale(at)
            if value > 0:
                box = element("rect", hint(what), x=scale(at), y=y, width=max(width, 0.6), height=15, rx=1)
                parts.append(element("g", box, class_=f"{style} bar", data_value=repr(value)))
            at += value
        parts.append(text(scale(at) + 6, y + 12, row.words, "tick"))
    return document(_TOP + 8 + _STEP * len(rows), parts, title=title, description=description)

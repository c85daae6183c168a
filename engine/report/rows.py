"""Charts whose rows have names: a dot with its interval, or a bar of parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from .svg import LINE, WIDTH, Format, Scale, around, document, element, fitting, hint, path, text, width_of, x_axis

_STEP = 19  # between two rows
_NEAR = 7  # between two dots of one row
_TOP = 24
_RIGHT = WIDTH - 22
_WIDEST = 136  # of the names


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


def room_for(names: Iterable[str]) -> float:
    """Width that names of rows need; charts side by side are given the same."""
    return min(max(map(width_of, names), default=0.0), _WIDEST) + 8


def dots(
    rows: Sequence[Dot],
    *,
    title: str,
    description: str,
    label: str,
    form: Format,
    bounds: tuple[float, float] | None = None,
    line: tuple[float, str] | None = None,
    room: float | None = None,
) -> str:
    """Rows of dots over one axis.

    Args:
        rows: from top to bottom; consecutive dots of the same name share a row.
        title: of the chart.
        description: for those who do not see it.
        label: of the axis.
        form: how numbers are written.
        bounds: of the axis; None: what the rows need.
        line: (value, name) of a dashed line through all rows, such as chance.
        room: for the names; None: what they need.
    """
    ends = [end for row in rows if math.isfinite(row.value) for end in (*row.interval, row.value)]
    low, high = bounds or around(ends, *([line[0]] if line else []))
    left = 4 + (room or room_for(row.name for row in rows))
    shared = [(name, list(same)) for name, same in groupby(rows, key=lambda row: row.name)]
    bottom = _TOP + 8 + sum(_height(same) for _, same in shared)
    scale = Scale(low=low, high=high, start=left + 6, stop=_RIGHT)
    parts = [text(0, LINE, fitting(title, WIDTH - 4), "title")]
    parts += x_axis(scale, top=_TOP, bottom=bottom, label=label, form=form)
    if line and low <= line[0] <= high:
        parts.append(path([(scale(line[0]), _TOP), (scale(line[0]), bottom)], class_="chance"))
    y = _TOP + 4.0
    for name, same in shared:
        middle = y + _height(same) / 2
        parts.append(text(left - 4, middle + 4, fitting(name, left), "name end"))
        for place, row in enumerate(same):
            at = middle + (place - (len(same) - 1) / 2) * _NEAR
            known = math.isfinite(row.value)
            parts.append(_dot(row, at, scale, form) if known else text(left + 8, at + 4, "no value", "tick"))
        y += _height(same)
    return document(bottom + 2 * LINE + 8, parts, title=title, description=description)


def _height(same: Sequence[Dot]) -> float:
    return _STEP + (len(same) - 1) * _NEAR


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
    left = 4 + room_for(row.name for row in rows)
    ends = max(width_of(row.words) for row in rows) + 8
    highest = max(sum(value for value, _, _ in row.parts) for row in rows)
    scale = Scale(low=0, high=highest, start=left, stop=max(WIDTH - ends, left + 60))
    parts = [text(0, LINE, fitting(title, WIDTH - 4), "title")]
    for index, row in enumerate(rows):
        y = _TOP + 4 + _STEP * index
        parts.append(text(left - 4, y + 12, fitting(row.name, left), "name end"))
        at = 0.0
        for value, style, what in row.parts:
            width = scale(at + value) - scale(at)
            if value > 0:
                box = element("rect", hint(what), x=scale(at), y=y, width=max(width, 0.6), height=15, rx=1)
                parts.append(element("g", box, class_=f"{style} bar", data_value=repr(value)))
            at += value
        parts.append(text(scale(at) + 6, y + 12, row.words, "tick"))
    return document(_TOP + 8 + _STEP * len(rows), parts, title=title, description=description)

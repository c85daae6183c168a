"""Charts of lines over a common x axis, with bands or whiskers around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .svg import (
    LINE,
    WIDTH,
    Format,
    Scale,
    around,
    document,
    element,
    fitting,
    hint,
    path,
    text,
    width_of,
    x_axis,
    y_axis,
)

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, WIDTH - 22, 24, 206


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line.

    Attributes:
        name: what it is.
        x: places, ascending.
        y: values, as many.
        bands: pairs of (lower, upper) ends, each as long as ``y``, the widest first.
        whiskers: the ends at every point as a thin line; None for none.
        style: class of its colour.
        dashed: for baselines.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    bands: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    whiskers: tuple[tuple[float, float], ...] | None = None
    style: str = "c0"
    dashed: bool = False


def lines(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    label: str,
    form: Format,
    x_form: Format,
    bounds: tuple[float, float] | None = None,
    line: tuple[float, str] | None = None,
    names: Sequence[str] = (),
) -> str:
    """Lines over one axis.

    Args:
        series: the lines, later ones on top.
        title: of the chart.
        description: for those who do not see it.
        label: of the x axis.
        form: how y values are written.
        x_form: how x values are written.
        bounds: of the y axis; None: what the lines need.
        line: (value, name) of a dashed horizontal line, such as chance.
        names: of the places 0, 1, ...; they take the place of numbers.
    """
    values = [value for one in series for value in one.y]
    values += [end for one in series for pair in one.whiskers or () for end in pair]
    low, high = bounds or around(values, *([line[0]] if line else []))
    xs = [x for one in series for x in one.x]
    # Names stand at the middle of their places; whiskers beside each other stay clear of the axis.
    edge = 0.5 if names else 0.04 * (max(xs) - min(xs)) if any(one.whiskers for one in series) else 0.0
    x_scale = Scale(low=min(xs) - edge, high=max(xs) + edge, start=_LEFT, stop=_RIGHT)
    y_scale = Scale(low=low, high=high, start=_BOTTOM, stop=_TOP + 6)
    parts = [text(0, LINE, fitting(title, WIDTH - 4), "title")]
    parts += y_axis(y_scale, left=_LEFT, right=_RIGHT, form=form)
    parts += _named_axis(x_scale, names, label) if names else _axis(x_scale, label, x_form)
    if line and low <= line[0] <= high:
        parts.append(path([(_LEFT, y_scale(line[0])), (_RIGHT, y_scale(line[0]))], class_="chance"))
    places = [str(name) for name in names]
    for place, one in enumerate(series):
        # Whiskers of several lines at one place stand beside each other.
        shift = (place - (len(series) - 1) / 2) * 3 if one.whiskers else 0.0
        parts.append(_line(one, x_scale, y_scale, shift, form, (lambda x: places[int(x)]) if names else x_form))
    return document(_BOTTOM + (1 + _levels(names)) * LINE + 8, parts, title=title, description=description)


def _axis(scale: Scale, label: str, form: Format) -> list[str]:
    return x_axis(scale, top=_TOP, bottom=_BOTTOM, label=label, form=form, grid=False)


def _levels(names: Sequence[str]) -> int:
    """Two where names would touch each other on one line."""
    return 2 if names and max(map(width_of, names)) > (_RIGHT - _LEFT) / len(names) else 1


def _named_axis(scale: Scale, names: Sequence[str], label: str) -> list[str]:
    levels = _levels(names)
    room = (_RIGHT - _LEFT) / len(names) * levels
    parts = [
        text(scale(place), _BOTTOM + LINE * (1 + place % levels), fitting(name, room), "tick mid")
        for place, name in enumerate(names)
    ]
    return [*parts, text((_LEFT + _RIGHT) / 2, _BOTTOM + LINE * (1 + levels) + 2, label, "label mid")]


def _line(one: Series, x_scale: Scale, y_scale: Scale, shift: float, form: Format, x_form: Format) -> str:
    at = [
        (x_scale(x) + shift, y_scale.inside(y), x, y)
        for x, y in zip(one.x, one.y, strict=True)
        if math.isfinite(y)
    ]
    parts = []
    for lower, upper in one.bands:
        there = [(x, a, b) for x, a, b in zip(one.x, lower, upper, strict=True) if math.isfinite(a + b)]
        outline = [(x_scale(x), y_scale.inside(b)) for x, _, b in there]
        outline += [(x_scale(x), y_scale.inside(a)) for x, a, _ in reversed(there)]
        parts.append(path(outline, class_="band"))
    for x, (low, high) in zip(one.x, one.whiskers or (), strict=False):
        if math.isfinite(low + high):
            across = x_scale(x) + shift
            parts.append(path([(across, y_scale.inside(low)), (across, y_scale.inside(high))], class_="whisker"))
    if len(at) > 1:
        parts.append(path([(x, y) for x, y, _, _ in at], class_="line dashed" if one.dashed else "line"))
    for x_unit, y_unit, x, y in at:
        words = hint(f"{one.name}, {x_form(x)}: {form(y)}")
        mark = element("circle", words, cx=x_unit, cy=y_unit, r=2.6, class_="dot", data_value=repr(y))
        parts.append(mark)
    return element("g", *parts, class_=one.style)

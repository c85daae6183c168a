"""Small pieces of SVG: elements, scales with round ticks, the frame of a chart.

A chart is ``WIDTH`` units wide, about as many as a phone has pixels, and grows with its column. Colours are
classes that the page's style sheet gives a value in its light and its dark form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

WIDTH = 360
LINE = 14  # height of a line of text
_LETTER, _NARROW, _WIDE = 6.8, 4.4, 10.4  # widths of letters of the charts' font, on the safe side

Number = int | float
Format = Callable[[float], str]


def element(tag: str, *children: str, **attributes: str | Number) -> str:
    """An element; ``class_`` stands for ``class`` and underscores in names for hyphens."""
    inside = "".join(
        f" {name.rstrip('_').replace('_', '-')}={quoteattr(value if isinstance(value, str) else short(value))}"
        for name, value in attributes.items()
    )
    return f"<{tag}{inside}>{''.join(children)}</{tag}>" if children else f"<{tag}{inside}/>"


def short(value: Number) -> str:
    """A coordinate to a hundredth of a unit, without zeros that say nothing."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def text(x: float, y: float, words: str, class_: str = "", **attributes: str | Number) -> str:
    """Words at a place; the class ``end`` or ``mid`` anchors them there."""
    named: dict[str, str | Number] = {"class_": class_} if class_ else {}
    return element("text", escape(words), x=x, y=y, **named, **attributes)


def hint(words: str) -> str:
    """What is shown while the pointer rests on a mark."""
    return element("title", escape(words))


def path(points: Iterable[tuple[float, float]], **attributes: str | Number) -> str:
    """A line through points."""
    return element("path", d="M" + "L".join(f"{short(x)} {short(y)}" for x, y in points), **attributes)


def document(height: float, children: Sequence[str], *, title: str, description: str) -> str:
    """A chart: an image with a name and a description for those who do not see it."""
    return element(
        "svg",
        element("title", escape(title)),
        element("desc", escape(description)),
        *children,
        viewBox=f"0 0 {WIDTH} {short(height)}",
        role="img",
        aria_label=f"{title}. {description}",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """From values to units along one axis; ``start`` is where ``low`` lies."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.stop - self.start)

    def inside(self, value: float) -> float:
        """The place of a value; what lies outside is put on the edge."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, most: int = 7) -> list[float]:
        """Round values, 1, 2 or 5 times a power of ten apart."""
        return ticks(self.low, self.high, most)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """At most ``most`` round values from ``low`` to ``high``."""
    step = _step(low, high, most)
    if step is None:
        return [low]
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _step(low: float, high: float, most: int) -> float | None:
    """1, 2 or 5 times a power of ten, ``most`` - 1 of which reach from ``low`` to ``high``; None from x to x."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return None
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(power * times for times in (1, 2, 5, 10, 20) if span / (power * times) <= most - 1 + 1e-9)


def around(values: Sequence[float], *more: float) -> tuple[float, float]:
    """Round bounds that hold all finite values."""
    known = [value for value in (*values, *more) if math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    step = _step(low, high, 5) or abs(low) or 1.0
    lower, upper = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return lower, upper if upper > lower else lower + step


def x_axis(scale: Scale, *, top: float, bottom: float, label: str, form: Format, grid: bool = True) -> list[str]:
    """Ticks and a label below a chart, and fine lines through it."""
    marks = scale.ticks()
    parts = [text(scale(mark), bottom + LINE, form(mark), "tick mid") for mark in marks]
    if grid:
        parts += [path([(scale(mark), top), (scale(mark), bottom)], class_="grid") for mark in marks]
    middle = (scale.start + scale.stop) / 2
    return [*parts, text(middle, bottom + 2 * LINE + 2, label, "label mid")]


def y_axis(scale: Scale, *, left: float, right: float, form: Format) -> list[str]:
    """Ticks at the left of a chart, and fine lines through it."""
    parts = []
    for mark in scale.ticks():
        parts.append(path([(left, scale(mark)), (right, scale(mark))], class_="grid"))
        parts.append(text(left - 5, scale(mark) + 4, form(mark), "tick end"))
    return parts


def percent(fraction: float) -> str:
    """0.2 -> "20 %", for ticks."""
    return f"{100 * fraction:.3g} %"


def plain(value: float) -> str:
    """A number of a tick."""
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def width_of(words: str) -> float:
    """About the width of words in a chart; fonts differ, so it is generous."""
    return sum(_NARROW if a in " .,:;|!'iljftr()" else _WIDE if a in "mwMW%@" else _LETTER for a in words)


def fitting(words: str, width: float) -> str:
    """Words cut to a width."""
    if width_of(words) <= width:
        return words
    most = len(words)
    while most and width_of(words[:most] + "…") > width:
        most -= 1
    return words[:most] + "…"

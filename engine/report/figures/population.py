"""Figures of a population: how its members learned, what they reached, what they took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...text import percent_text, seconds_text
from ...zoo import Zoo
from ..figure import Figure, Key
from ..learning import curves_by_dataset, quantile_curves
from ..lines import Series, lines
from ..rows import Bar, Dot, bars, dots, room_for
from ..summary import Floats, column, groups_of
from ..svg import around, percent, plain

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NAMES = tuple(f"{round(100 * share)} %" for share in QUANTILES)
_STATUS_STYLES = {"ok": "c2", "dead": "c7", "diverged": "c1"}
# Panels of the gap: the properties that matter most for it.
_GAP_PANELS = 6


def population_figures(zoo: Zoo) -> list[Figure]:
    """The figures of a zoo; they read its tables, no weights."""
    return [_learning(zoo), _accuracy(zoo), _gap(zoo), _status(zoo), _cost(zoo)]


def _learning(zoo: Zoo) -> Figure:
    panels, rows = [], []
    for dataset, curves in curves_by_dataset(zoo).items():
        chance = 1 / zoo.manifest.image_sets[dataset].classes
        epochs, bands = quantile_curves(curves, QUANTILES)
        low, lower, middle, upper, high = (tuple(band.tolist()) for band in bands)
        places = tuple(float(epoch) for epoch in epochs)
        median = Series(name="median", x=places, y=middle, bands=((low, high), (lower, upper)))
        panels.append(
            lines(
                [median],
                title=f"{dataset} · {len(curves):,} networks",
                description=f"Median test accuracy from {percent_text(middle[0])} to {percent_text(middle[-1])}.",
                label="epoch",
                form=percent,
                x_form=plain,
                bounds=(0, 1),
                line=(chance, "chance"),
            )
        )
        rows += [
            (dataset, len(curves), int(epoch), chance, *figures)
            for epoch, *figures in zip(epochs, low, lower, middle, upper, high, strict=True)
        ]
    return Figure(
        name="learning-curves",
        title="Learning curves",
        caption="Test accuracy after each epoch, up to the epoch that half of the members reach: the line is the "
        "median over members, the dark band holds the middle half of them, the light band nine in ten.",
        panels=tuple(panels),
        header=("dataset", "members", "epoch", "chance", *_NAMES),
        rows=tuple(rows),
        keys=(
            Key(style="c0 line", label="median"),
            Key(style="c0 thick", label="middle half"),
            Key(style="c0 band", label="5 % to 95 %"),
            Key(style="chance", label="chance"),
        ),
    )


def _accuracy(zoo: Zoo) -> Figure:
    by_property = _quantile_rows(zoo, column(zoo.members, "test_accuracy"))
    room = room_for(row[0] for rows in by_property.values() for row in rows)
    return Figure(
        name="accuracy-by-property",
        title="Test accuracy by property",
        caption="Test accuracy of the last snapshot for each value of each property that varies; numbers are "
        'grouped by their quartiles, and members that lack a property are "-". All members count, dead ones too.',
        panels=tuple(
            _quantile_panel(name, rows, "test accuracy", (0, 1), room=room)
            for name, rows in by_property.items()
            if rows
        ),
        header=("property", "value", "members", *_NAMES),
        rows=_flat(by_property),
        keys=_QUANTILE_KEYS,
    )


def _gap(zoo: Zoo) -> Figure:
    by_property = _quantile_rows(zoo, column(zoo.members, "generalization_gap"))

    def spread(name: str) -> float:
        medians: list[float] = [row[4] for row in by_property[name]]
        return max(medians) - min(medians)

    chosen = sorted((name for name in by_property if by_property[name]), key=spread, reverse=True)[:_GAP_PANELS]
    ends = [value for name in chosen for row in by_property[name] for value in row[2:]]
    bounds = around(ends)
    room = room_for(row[0] for name in chosen for row in by_property[name])
    return Figure(
        name="generalisation-gap",
        title="Generalisation gap",
        caption="Training accuracy less test accuracy of the last snapshot, for the "
        f"{_count(len(chosen), 'property', 'properties')} whose groups differ most; the CSV has all.",
        panels=tuple(
            _quantile_panel(name, by_property[name], "gap", bounds, room=room, zero=True) for name in chosen
        ),
        header=("property", "value", "members", *_NAMES),
        rows=_flat(by_property),
        keys=_QUANTILE_KEYS,
    )


_QUANTILE_KEYS = (
    Key(style="c0 dot", label="median"),
    Key(style="c0 thick", label="middle half"),
    Key(style="c0 whisker", label="5 % to 95 %"),
)


def _quantile_rows(zoo: Zoo, values: Floats) -> dict[str, list[tuple[Any, ...]]]:
    """Property -> (value, members, five quantiles) of each group that has a finite number."""
    found = {"(all)": [_row("all members", values)]}
    members = zoo.members
    for name in members.column_names:
        if name.startswith("config."):
            groups = [_row(value, values[here]) for value, here in groups_of(members[name])]
            if len(groups) > 1:
                found[name.removeprefix("config.")] = [row for row in groups if row[1]]
    return found


def _row(value: str, values: Floats) -> tuple[Any, ...]:
    known = values[np.isfinite(values)]
    quantiles = np.quantile(known, QUANTILES).tolist() if len(known) else [np.nan] * len(QUANTILES)
    return (value, len(known), *quantiles)


def _quantile_panel(
    name: str,
    rows: list[tuple[Any, ...]],
    label: str,
    bounds: tuple[float, float],
    *,
    room: float,
    zero: bool = False,
) -> str:
    title = "all members" if name == "(all)" else name
    return dots(
        [
            Dot(
                name=value,
                value=middle,
                interval=(low, high),
                inner=(lower, upper),
                note=f", {members:,} members",
            )
            for value, members, low, lower, middle, upper, high in rows
        ],
        title=title,
        description="Medians: " + ", ".join(f"{row[0]} {percent_text(row[4])}" for row in rows) + ".",
        label=label,
        form=percent,
        bounds=bounds,
        line=(0.0, "no gap") if zero else None,
        room=room,
    )


def _flat(by_property: dict[str, list[tuple[Any, ...]]]) -> tuple[tuple[Any, ...], ...]:
    return tuple((name, *row) for name, rows in by_property.items() for row in rows)


def _status(zoo: Zoo) -> Figure:
    datasets = np.array(zoo.members["config.dataset"].to_pylist())
    statuses = np.array(zoo.members["status"].to_pylist())
    rows, drawn = [], []
    for dataset in sorted(set(datasets.tolist())):
        counts = {status: int(np.sum(statuses[datasets == dataset] == status)) for status in _STATUS_STYLES}
        rows += [(dataset, status, count) for status, count in counts.items()]
        parts = tuple(
            (float(count), _STATUS_STYLES[status], f"{dataset}, {status}: {count:,}")
            for status, count in counts.items()
        )
        words = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
        drawn.append(Bar(name=dataset, parts=parts, words=words))
    return Figure(
        name="status",
        title="Members by status",
        caption="A dead member gives every test image the same answer; in a diverged one a loss or a weight "
        "stopped being finite. Both are kept."
        + (" Of imported members it is not known which are dead." if zoo.manifest.imported else ""),
        panels=(bars(drawn, title="by image set", description="; ".join(f"{b.name}: {b.words}" for b in drawn)),),
        header=("dataset", "status", "members"),
        rows=tuple(rows),
        keys=tuple(Key(style=f"{style} bar", label=status) for status, style in _STATUS_STYLES.items()),
    )


def _cost(zoo: Zoo) -> Figure:
    seconds = dict(zoo.manifest.timing.seconds) if zoo.manifest.timing else {}
    stages = {name: value for name, value in seconds.items() if name not in ("total", "workers", "overhead")}
    rows: list[tuple[Any, ...]] = [("stage", name, value) for name, value in stages.items()]
    panels = []
    if stages:
        drawn = [_time_bar(name, value) for name, value in stages.items()]
        panels.append(
            bars(drawn, title="time by stage", description="; ".join(f"{b.name}: {b.words}" for b in drawn))
        )
    for name, title in (("epochs", "epochs of a member"), ("seconds", "seconds of a member")):
        known = column(zoo.members, name)
        counts = list(_histogram(known[np.isfinite(known)]))
        if not counts:  # an imported zoo may not tell
            continue
        rows += [(name, label, count) for label, count in counts]
        drawn = [_count_bar(label, count) for label, count in counts]
        panels.append(bars(drawn, title=title, description="; ".join(f"{b.name}: {b.words}" for b in drawn)))
    return Figure(
        name="cost",
        title="What it took",
        caption="Training and evaluation are summed over the members trained side by side, the other stages are "
        "wall time. Beside them: how many members trained for how many epochs, and took how long."
        if stages
        else "How many members trained for how many epochs, and took how long, as far as it is known.",
        panels=tuple(panels),
        header=("what", "name", "value"),
        rows=tuple(rows),
    )


def _time_bar(name: str, seconds: float) -> Bar:
    words = seconds_text(seconds)
    return Bar(name=name, parts=((seconds, "c0", f"{name}: {words}"),), words=words)


def _count_bar(name: str, count: int) -> Bar:
    return Bar(name=name, parts=((float(count), "c0", f"{name}: {count:,} members"),), words=f"{count:,}")


def _histogram(values: Floats) -> Iterator[tuple[str, int]]:
    """Members by value where there are few, else in eight ranges of equal width."""
    distinct = np.unique(values)
    if len(distinct) <= 8:
        for value in distinct:
            yield plain(float(value)), int(np.sum(values == value))
        return
    counts, edges = np.histogram(values, bins=8)
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        yield f"{low:.3g} to {high:.3g}", int(count)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

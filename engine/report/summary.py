"""A zoo in a few numbers: members by status, and test accuracy by the value of each property that varies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..zoo import Zoo

# A numeric property with more values than this is grouped by its quartiles.
MOST_GROUPS = 8
# Standard deviations above guessing that count as clearly above chance.
CLEAR_SIGMAS = 5.0

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Members that share the value of a property.

    Attributes:
        value: the value, or a range of values.
        members: how many.
        best: best test accuracy; None where none is known, as of imported members without a snapshot.
        median: median test accuracy of those that are known.
        above_chance: share of members clearly better than guessing: more than five standard deviations of a
            guesser's accuracy above 1 / classes.
    """

    value: str
    members: int
    best: float | None
    median: float | None
    above_chance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a zoo holds.

    Attributes:
        everything: all members as one group.
        properties: for each property that varies, its groups.
        snapshots: number of snapshots.
        values: number of weight values stored.
        bytes: size of the weight files.
        generalization_gap: median of training accuracy less test accuracy; None where it is not known.
    """

    everything: Group
    properties: dict[str, tuple[Group, ...]]
    snapshots: int
    values: int
    bytes: int
    generalization_gap: float | None


def summarize(zoo: Zoo) -> Summary:
    """Summarise a zoo; reads its members table, no weights."""
    table, manifest = zoo.members, zoo.manifest
    accuracy = column(table, "test_accuracy")
    clear = accuracy > _clear_accuracy(zoo)
    snapshots = column(table, "snapshots")
    sizes = np.array([manifest.architectures[name].size for name in table["architecture"].to_pylist()])
    properties = {}
    for name in table.column_names:
        if name.startswith("config."):
            groups = tuple(_group(value, accuracy[here], clear[here]) for value, here in groups_of(table[name]))
            if len(groups) > 1:
                properties[name.removeprefix("config.")] = groups
    return Summary(
        everything=_group("all", accuracy, clear),
        properties=properties,
        snapshots=int(snapshots.sum()),
        values=int((snapshots * sizes).sum()),
        bytes=sum(shard.bytes for shard in manifest.shards),
        generalization_gap=_median(column(table, "generalization_gap")),
    )


def _clear_accuracy(zoo: Zoo) -> Floats:
    """For each member the test accuracy that guessing does not reach."""
    names = np.array(zoo.members["config.dataset"].to_pylist())
    most = np.full(len(names), np.inf)  # test images that were looked at; all, where no run says less
    for run, members, _ in zoo.by_run(zoo.ids):
        if run.space["test_images"] is not None:
            most[np.isin(zoo.ids, members)] = run.space["test_images"]
    bounds = np.empty(len(names))
    for name, entry in zoo.manifest.image_sets.items():
        here, chance = names == name, 1 / entry.classes
        tested = np.minimum(most[here], entry.test)
        bounds[here] = chance + CLEAR_SIGMAS * np.sqrt(chance * (1 - chance) / tested)
    return bounds


def groups_of(column: pa.ChunkedArray) -> Iterator[tuple[str, Flags]]:
    """The values of a property, each with the members [N] that have it.

    A number of many values is grouped by its quartiles; "-" names the members that lack the property.
    """
    values = column.to_pylist()
    distinct = sorted({value for value in values if value is not None})
    numeric = bool(distinct) and not isinstance(distinct[0], (str, bool))
    if numeric and len(distinct) > MOST_GROUPS:
        yield from _quartiles(np.array([np.nan if value is None else value for value in values]))
        return
    for value in [*distinct, *([None] if None in values else [])]:
        yield _text(value), np.array([other == value for other in values])


def _text(value: str | bool | float | None) -> str:
    names = {None: "-", True: "on", False: "off"}
    return names[value] if value is None or isinstance(value, bool) else str(value)


def _quartiles(values: Floats) -> Iterator[tuple[str, Flags]]:
    edges = np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1])
    for low, high, last in zip(edges, edges[1:], (False, False, False, True), strict=False):
        here = (values >= low) & ((values <= high) if last else (values < high))
        if here.any():
            yield f"{low:.2g} to {high:.2g}", here
    missing = np.isnan(values)
    if missing.any():
        yield "-", missing


def _group(value: str, accuracy: Floats, clear: Flags) -> Group:
    return Group(
        value=value,
        members=len(accuracy),
        best=max(accuracy[~np.isnan(accuracy)].tolist(), default=None),
        median=_median(accuracy),
        above_chance=float(clear.mean()),
    )


def _median(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def column(table: pa.Table, name: str) -> Floats:
    """A column of numbers, as float64; NaN where it is not set."""
    return np.asarray(table[name].to_numpy(), dtype=np.float64)

"""What of the weights is read: ``--slice`` and ``--snapshots``, and the tables that models get of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..zoo import Items, Zoo
from ..zoo.slices import SliceDataset
from ..zoo.tables import numbers
from .features import setup_features
from .models import Reads
from .statistics import Statistics, part_statistics

Indices = NDArray[np.int64]
Float64 = NDArray[np.float64]

# Random slices of each network that a table of statistics is trained on, and evenly spaced ones that are judged.
TRAINING_SLICES = 8
JUDGED_SLICES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceSpec:
    """``conv3``: a whole part; ``all:5000``: so many consecutive values of it, at any place.

    Attributes:
        part: see ``Layout.part``.
        length: in values; None for the whole part.
    """

    part: str
    length: int | None = None

    @classmethod
    def parse(cls, text: str) -> SliceSpec:
        """Read ``PART`` or ``PART:LENGTH``.

        Raises:
            UsageError: it is neither.
        """
        part, colon, length = text.partition(":")
        if not part or (colon and not (length.isdecimal() and int(length) > 0)):
            raise UsageError(f"--slice {text}: write a part (all, conv, fc, conv3, conv3.weight) or PART:LENGTH")
        return cls(part=part, length=int(length) if colon else None)

    def __str__(self) -> str:
        return self.part if self.length is None else f"{self.part}:{self.length}"


def parse_snapshots(text: str, zoo: Zoo) -> str | list[int] | None:
    """Read ``last``, ``all``, a range such as ``10:`` or ``-5:``, or a list such as ``0,5,-1``.

    Returns:
        As ``Items`` takes it.

    Raises:
        UsageError: it is none of these, or an empty range.
    """
    if text == "last":
        return None
    if text == "all":
        return "all"
    try:
        if ":" in text:
            first, last = (int(bound) if bound.strip() else None for bound in text.split(":"))
            chosen = list(range(int(numbers(zoo.members["snapshots"]).max(initial=0))))[first:last]
        else:
            chosen = [int(index) for index in text.split(",")]
    except ValueError:
        raise UsageError(f"--snapshots {text}: write last, all, a range (10:, -5:) or a list (0,5,-1)") from None
    if not chosen:
        raise UsageError(f"--snapshots {text} names none")
    return chosen


class Reading:
    """Items, and what models read of them; a table is computed once, when it is first asked for.

    Args:
        items: N of them.
        what: which values.
        statistics: whether moving averages of batch normalisation are among them.
        seed: of the places of slices.
    """

    def __init__(self, items: Items, what: SliceSpec, *, statistics: bool = False, seed: int = 0) -> None:
        self.items = items
        self.what = what
        self.seed = seed
        self.with_moving_averages = statistics
        self._setup: dict[str, Float64] = {}

    def training(self, reads: Reads, chosen: Indices, target: str) -> tuple[Any, int]:
        """What a model is fitted to.

        Args:
            reads: what the model gets.
            chosen: items to be trained on, indices [n] in ascending order.
            target: the column that is asked for.

        Returns:
            X, and how many rows of it each item has, one item after the other.

        Raises:
            UsageError: the model cannot read these items.
        """
        if reads == "statistics" and self.what.length is not None:
            drawn = [self._drawn_statistics(chosen, epoch) for epoch in range(TRAINING_SLICES)]
            return np.stack(drawn, axis=1).reshape(len(chosen) * TRAINING_SLICES, -1), TRAINING_SLICES
        return next(self.tested(reads, chosen, target)), 1

    def tested(self, reads: Reads, chosen: Indices, target: str) -> Iterator[Any]:
        """What a model predicts from: X with a row for each item; several, if several slices are judged."""
        match reads:
            case "nothing":
                yield np.zeros((len(chosen), 1))
            case "setup":
                if target not in self._setup:
                    self._setup[target] = setup_features(self.items, target)
                yield self._setup[target][chosen]
            case "statistics":
                yield self.statistics.values[chosen]
            case "values":
                yield self.values[chosen]
            case "slices":
                yield self.slices.only(chosen)
            case "networks":
                yield self.items.only(chosen)

    @cached_property
    def statistics(self) -> Statistics:
        """Statistics of each tensor of the part."""
        return part_statistics(self.items, self.what.part, statistics=self.with_moving_averages)

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """All values of the part [N, values].

        Raises:
            UsageError: networks differ in how many there are, or a slice is read at random places.
        """
        if self.what.length is not None:
            raise UsageError("it reads a whole part, not slices at random places")
        dataset = SliceDataset(self.items, self.what.part)
        return dataset.batch(range(len(dataset)))[0].numpy()

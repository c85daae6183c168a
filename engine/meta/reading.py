"""What of the weights is read: ``--slice`` and ``--snapshots``, and the tables that models get of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..zoo import Items
from ..zoo.memory import free_bytes
from ..zoo.normalising import Normalizing
from ..zoo.slices import SliceDataset
from ..zoo.tables import numbers
from .features import setup_features
from .models import Reads
from .models.source import ArraySource
from .neurons import neuron_statistics
from .permuted import PermutedItems
from .statistics import Statistics, part_statistics, value_statistics

Indices = NDArray[np.int64]
Float64 = NDArray[np.float64]

# Read at a time when slices are judged.
_BLOCK_VALUES = 2**24
# Of statistics of slices, for the next models and targets.
_MOST_KEPT_BYTES = 2**28
# Of all values, that a model which reads them makes at a time.
_COPIES_OF_VALUES = 4
# Of slices, where a whole part is asked for, but is not of one size: as in the study, or less.
_MOST_VALUES = 5000
NORMALIZING = ("none", "slice", "layer", "position")

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


def named_snapshots(text: str, items: Items, flag: str = "--snapshots") -> NDArray[np.bool_]:
    """Which items a text names: ``last``, ``all``, a range (``10:``, ``-5:``) or a list (``0,5,-1``).

    Numbers below 0 count from the end of each member, which may have fewer snapshots than others.

    Args:
        text: to be read.
        items: N of them.
        flag: where it was given, for an error.

    Returns:
        [N].

    Raises:
        UsageError: it is none of these, or names none of the items.
    """
    zoo, place = items.zoo, items.snapshots
    counts = numbers(zoo.members["snapshots"])[np.searchsorted(zoo.ids, items.members)]
    meant = {"last": "-1", "all": ":"}.get(text, text)
    try:
        if ":" in meant:
            first, last = (int(bound) if bound.strip() else None for bound in meant.split(":"))
            start = (first or 0) + counts * ((first or 0) < 0)
            stop = counts if last is None else last + counts * (last < 0)
            named = (start <= place) & (place < stop)
        else:
            listed = [int(index) for index in meant.split(",")]
            named = np.isin(place, listed) | np.isin(place - counts, listed)
    except (ValueError, OverflowError):  # no numbers, or none that an index could be
        raise UsageError(f"{flag} {text}: write last, all, a range (10:, -5:) or a list (0,5,-1)") from None
    if not named.any():
        raise UsageError(f"{flag} {text} names none of the snapshots that the chosen networks have")
    return named


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """What a model predicts from.

    Attributes:
        X: rows for some of the items, one item after the other, ``looks`` rows each.
        looks: how often each item is looked at: the prediction is the mean.
    """

    X: Any
    looks: int = 1


def slice_rows(reads: Reads, values: NDArray[np.float32]) -> Any:
    """What a model gets of slices [n, length]: their statistics or themselves."""
    return value_statistics(values) if reads == "statistics" else ArraySource(values)


class Reading:
    """Items, and what models read of them; a table is computed once, when it is first asked for.

    Args:
        items: N of them.
        what: which values.
        statistics: whether moving averages of batch normalisation are among them.
        normalize: ``none``, ``slice``, ``layer``, or positions fitted to training items; of values and of slices,
            not of statistics. See ``SliceDataset``.
        seed: of the places of slices.
    """

    def __init__(
        self,
        items: Items,
        what: SliceSpec,
        *,
        statistics: bool = False,
        normalize: Normalizing = "none",
        seed: int = 0,
    ) -> None:
        self.items = items
        self.what = what
        self._with_moving_averages = statistics
        self._normalize: Normalizing = normalize
        self._seed = seed
        self._setup: dict[str, Float64] = {}
        self._tables: dict[tuple[str, bytes], Float64] = {}

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
        if reads == "slices":
            return self.slices.only(chosen), 1
        if reads == "statistics" and self.what.length is not None:
            return self._kept("random", chosen, self._statistics_of_random_slices), TRAINING_SLICES
        block = next(self.tested(reads, chosen, target))
        return block.X, block.looks

    def tested(self, reads: Reads, chosen: Indices, target: str) -> Iterator[Block]:
        """What a model predicts from: blocks of items, in the order of ``chosen``."""
        match reads:
            case "nothing":
                yield Block(X=np.zeros((len(chosen), 1)))
            case "setup":
                if target not in self._setup:
                    self._setup[target] = setup_features(self.items, target)
                yield Block(X=self._setup[target][chosen])
            case "statistics" if self.what.length is None:
                yield Block(X=self.statistics.values[chosen])
            case "neurons":
                self._check_whole()
                both = self.statistics.values, self.neurons.values
                yield Block(X=np.hstack([table[chosen] for table in both]))
            case "values":
                yield Block(X=self.values[chosen])
            case "statistics":
                even = self._kept("even", chosen, self._statistics_of_even_slices)
                yield Block(X=even, looks=len(even) // len(chosen))
            case "slices":
                for values, looks in self._even_slices(chosen):
                    yield Block(X=slice_rows(reads, values), looks=looks)
            case "networks":
                self._check_whole()
                yield Block(X=self.items.only(chosen))

    def looks(self, reads: Reads) -> int:
        """How many rows ``tested`` gives of each item to a deep model."""
        return JUDGED_SLICES if reads == "slices" and self.slices.places > 1 else 1

    def over(self, items: Items, length: int | None = None) -> Reading:
        """Slices of other items, or of another length, with the normalising of this one."""
        return Reading(
            items,
            SliceSpec(part=self.what.part, length=length or self.slices.length),
            statistics=self._with_moving_averages,
            normalize=self._normalize,
            seed=self._seed,
        )

    @cached_property
    def statistics(self) -> Statistics:
        """Statistics of each tensor of the part."""
        return part_statistics(self.items, self.what.part, statistics=self._with_moving_averages)

    @cached_property
    def neurons(self) -> Statistics:
        """Statistics of the neurons of whole networks."""
        return neuron_statistics(self.items)

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """All values of the part [N, values].

        Raises:
            UsageError: networks differ in how many there are, a slice is read at random places, or memory is too
                small.
        """
        if self.what.length is not None:
            raise UsageError("it reads a whole part, not slices at random places")
        dataset = self._dataset(None)
        needed, free = 4 * len(dataset) * dataset.length * _COPIES_OF_VALUES, free_bytes("cpu")
        if needed > free:
            raise UsageError(
                f"it reads all values of all networks at once, which takes {needed / 1e9:.1f} GB of memory, and "
                f"{free / 1e9:.1f} GB are free: choose fewer networks or snapshots, or a smaller part"
            )
        return dataset.batch(range(len(dataset)))[0].numpy()

    @cached_property
    def slices(self) -> SliceDataset:
        """Slices; where the whole part is asked for, but networks differ in its size, random ones.

        Raises:
            UsageError: an architecture has no such part, or too short a one.
        """
        if self.what.length is not None:
            return self._dataset(self.what.length)
        layouts = [self.items.zoo.layout(name) for name in self.items.architectures]
        runs = [layout.runs(self.what.part, statistics=self._with_moving_averages) for layout in layouts]
        sizes = {sum(stop - start for start, stop, _ in found) for found in runs}
        return self._dataset(None if len(sizes) == 1 else min(_MOST_VALUES, *sizes))

    def _check_whole(self) -> None:
        if str(self.what) != "all":
            raise UsageError("it reads whole networks: leave --slice out")

    def _dataset(self, length: int | None) -> SliceDataset:
        return SliceDataset(
            self.items,
            self.what.part,
            length,
            seed=self._seed,
            normalize=self._normalize,
            statistics=self._with_moving_averages,
            # What is permuted stands in no file.
            resident=isinstance(self.items, PermutedItems),
        )

    def _kept(self, name: str, chosen: Indices, make: Callable[[Indices], Float64]) -> Float64:
        """A table about some items; kept for other models and targets, if it is not too large."""
        key = name, chosen.tobytes()
        if key in self._tables:
            return self._tables[key]
        table = make(chosen)
        if sum(kept.nbytes for kept in self._tables.values()) + table.nbytes <= _MOST_KEPT_BYTES:
            self._tables[key] = table
        return table

    def _statistics_of_even_slices(self, chosen: Indices) -> Float64:
        """[n x looks, statistics], one item after the other."""
        return np.concatenate([value_statistics(values) for values, _ in self._even_slices(chosen)])

    def _statistics_of_random_slices(self, chosen: Indices) -> Float64:
        """[n x TRAINING_SLICES, statistics], one item after the other."""
        slices = copy.copy(self.slices)
        found = []
        for epoch in range(TRAINING_SLICES):
            slices.set_epoch(epoch)
            found.append(value_statistics(slices.batch(chosen)[0].numpy()))
        return np.stack(found, axis=1).reshape(len(chosen) * TRAINING_SLICES, -1)

    def _even_slices(self, chosen: Indices) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Blocks of evenly spaced slices [b x looks, length], one item after the other."""
        slices = self.slices
        looks = self.looks("slices")
        step = max(1, _BLOCK_VALUES // (looks * slices.length))
        for start in range(0, len(chosen), step):
            values = slices.evenly(chosen[start : start + step], looks)[0]
            yield values.flatten(0, 1).numpy(), looks

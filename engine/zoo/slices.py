"""Slices of weights as a torch data set: the input of meta-classifiers."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from wse.kernels.slices.reference import gather

from ..errors import UsageError
from .items import Items, mix
from .normalising import LayerMoments, Normalizing, Positions, by_place
from .places import Int64, Places
from .tables import numbers

Item = tuple[torch.Tensor, torch.Tensor]


class SliceDataset(Dataset[Item]):
    """For each item one slice of a part, at a random place inside the part.

    What it gives is ``(values, target)``: float32 [length], and a tensor of no dimensions. Where a slice starts
    is drawn from (seed, epoch, member, snapshot): it is the same whatever the order, the number of workers or
    the split, and another one after ``set_epoch``. ``evenly`` gives slices at fixed places.

    Args:
        items: whose weights.
        part: ``all``, ``conv3``, ``conv2.weight``, ...: see ``Layout.part``.
        length: of a slice, in values; None for the whole part.
        target: None: the id of the member (int64). Else a column (see ``Items.column``): for names and truth
            values the class (int64), which counts in ``classes``; for numbers the number (float32).
        seed: of the places.
        normalize: ``none``: values as they are. ``slice``: each slice less its mean, divided by its standard
            deviation. ``layer``: the same with the mean and standard deviation of each layer of each network
            (of what the part has of that layer), so that layers are told apart by the shape of their values and
            not by their scale. ``Positions``: the same with those of each position over training items.
        statistics: whether moving averages of batch normalisation belong to the part. If not, a slice goes on
            behind them as if they were not there.
        pad: whether a part may be shorter than ``length``; its slice ends in zeros then.

    Attributes:
        items: whose weights.
        length: of a slice.
        classes: the names (or truth values) that class indices stand for; None when the target is no class.
        targets: the target of each item [N].

    Raises:
        UsageError: an architecture has no such part or one shorter than ``length``; ``length`` is None but
            the part is not of one size; positions were fitted to something else; there is no such target, or it
            is missing for a member.
        WseError: a file is missing or damaged.
    """

    def __init__(
        self,
        items: Items,
        part: str,
        length: int | None = None,
        *,
        target: str | None = None,
        seed: int = 0,
        normalize: Normalizing = "none",
        statistics: bool = False,
        pad: bool = False,
    ) -> None:
        self.items = items
        self._seed = seed
        self._epoch = 0
        layouts = {name: items.zoo.layout(name) for name in items.architectures}
        self._places = Places(layouts, part, length, statistics=statistics, pad=pad)
        self.length = self._places.length
        self._positions: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._moments: LayerMoments | None = None
        if isinstance(normalize, Positions):
            self._positions = by_place(normalize, self._places)
        elif normalize == "layer":
            self._moments = LayerMoments(self._places, items.architecture)
        elif normalize not in ("none", "slice"):
            raise UsageError(f"`normalize` (={normalize!r}) must be none, slice, layer or fitted positions")
        self._by_slice = normalize == "slice"
        self._seen = np.zeros(len(items), np.bool_)
        self.classes, self.targets = _targets(items, target)

    @property
    def members(self) -> Int64:
        """The id of each item's member [N]."""
        return self.items.members

    @property
    def snapshots(self) -> Int64:
        """Which snapshot of its member each item is [N]."""
        return self.items.snapshots

    @property
    def places(self) -> int:
        """At how many places a slice may start, in the architecture where there are most."""
        return int(self._places.room(np.arange(len(self._places.names))).max())

    def runs_of(self, architecture: str) -> tuple[tuple[int, int, str], ...]:
        """The values of the part in an architecture, layer by layer: see ``Layout.runs``."""
        layout = self.items.zoo.layout(architecture)
        return layout.runs(self._places.part, statistics=self._places.statistics)

    def set_epoch(self, epoch: int) -> None:
        """Draw other places from now on.

        Call it before the ``DataLoader`` starts its workers: those that are kept alive between epochs
        (``persistent_workers``) have copies of their own.
        """
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        values, targets = self.batch([operator.index(index)])
        return values[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Many items at once: what a ``DataLoader`` calls."""
        return list(zip(*self.batch(indices), strict=True))

    def batch(self, indices: Sequence[int] | Int64) -> Item:
        """Many items as two tensors.

        Args:
            indices: [B], each from 0 to the length of the data set, less 1 (or negative, from the end).

        Returns:
            values [B, length] float32, targets [B].

        Raises:
            IndexError: an index is out of range.
            WseError: a shard is missing or damaged.
        """
        chosen = np.asarray(indices, np.int64)
        return self._gather(chosen, self._drawn(chosen)), torch.from_numpy(self.targets[chosen])

    def evenly(self, indices: Sequence[int] | Int64, count: int) -> Item:
        """Slices at fixed places: from the first place to the last, evenly spaced.

        Args:
            indices: as for ``batch``.
            count: how many slices of each item, at least 1; a single one is in the middle.

        Returns:
            values [B, count, length] float32, targets [B].

        Raises:
            IndexError: an index is out of range.
            UsageError: there is no such number of slices.
            WseError: a shard is missing or damaged.
        """
        if count < 1:
            raise UsageError(f"`count` (={count}) must be at least 1")
        chosen = np.asarray(indices, np.int64)
        places = self._places.evenly(self.items.architecture[chosen], count)
        values = self._gather(np.repeat(chosen, count), places.ravel())
        return values.view(len(chosen), count, self.length), torch.from_numpy(self.targets[chosen])

    def starts(self, indices: Int64) -> Int64:
        """Where the slices of items start in the flat vector, in this epoch: [B] int64."""
        return self._places.runs.stored_at(self._drawn(indices))

    def even_starts(self, indices: Int64, count: int) -> Int64:
        """Where the slices of ``evenly`` start in the flat vector: [B, count] int64."""
        return self._places.runs.stored_at(self._places.evenly(self.items.architecture[indices], count))

    def only(self, chosen: NDArray[Any]) -> SliceDataset:
        """Some of the items, with the same slices: a mask [N] bool, or indices in ascending order."""
        part = copy.copy(self)
        part.items = self.items.only(chosen)
        part.targets, part._seen = self.targets[chosen], self._seen[chosen]
        if self._moments is not None:
            part._moments = self._moments.only(chosen)
        return part

    def split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> tuple[SliceDataset, ...]:
        """Share the members out over data sets: see ``Items.partition``."""
        return tuple(self.only(chosen) for chosen in self.items.partition(fractions, seed))

    def _drawn(self, indices: Int64) -> Int64:
        """The places of this epoch [B]."""
        bits = np.zeros(len(indices), np.uint64)
        for part in (self._seed, self._epoch, self.items.members[indices], self.items.snapshots[indices]):
            bits = mix(bits ^ np.asarray(part, np.int64).astype(np.uint64))
        architecture = self.items.architecture[indices]
        room = self._places.room(architecture).astype(np.uint64)
        # The upper half times the range: unbiased to one part in 2**32 / range.
        offset = ((bits >> np.uint64(32)) * room) >> np.uint64(32)
        return self._places.first[architecture] + offset.astype(np.int64)

    def _gather(self, chosen: Int64, places: Int64) -> torch.Tensor:
        """A slice of each of these items [B] at these places [B]: [B, length] float32."""
        vectors = [self.items.stored(index) for index in chosen.tolist()]
        counts = self._places.counts(self.items.architecture[chosen])
        if self._moments is not None:
            for index, vector in zip(chosen.tolist(), vectors, strict=True):
                if not self._seen[index]:
                    self._moments.see(index, vector)
            self._seen[chosen] = True
        values = gather(vectors, places, counts, self.length, self._places.runs, **self._normalizing(chosen))
        return torch.from_numpy(values)

    def _normalizing(self, chosen: Int64) -> dict[str, Any]:
        """Arguments of ``gather`` that say how to normalise slices of these items."""
        if self._positions is not None:
            return {"normalize": "place", "shift": self._positions[0], "scale": self._positions[1]}
        if self._moments is not None:
            found = self._moments
            return {"normalize": "run", "shift": found.shift, "scale": found.scale, "first": found.first[chosen]}
        return {"normalize": "slice" if self._by_slice else "none"}


def _targets(items: Items, target: str | None) -> tuple[tuple[Any, ...] | None, NDArray[Any]]:
    """The classes (if any) and the target of each item."""
    if target is None:
        return None, items.members
    column = items.column(target)
    if column.null_count:
        raise UsageError(f"{target} is not set for {column.null_count:,} slices: choose members that have it")
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return None, numbers(column).astype(np.float32)
    classes, codes = np.unique(np.array(column.to_pylist()), return_inverse=True)
    return tuple(classes.tolist()), codes.astype(np.int64)

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

from ..errors import UsageError
from .items import Items, mix
from .normalising import Normalizing, Scaling
from .places import Int64, Places
from .sources import Arena, Files, Source
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
        resident: whether to read the part of all items now and keep it in memory; else files are read as slices
            are asked for. The name of a device, such as ``cuda``, keeps it in the memory of that device, where
            ``batch`` and ``evenly`` give tensors then. With a ``DataLoader`` use main memory.

    Attributes:
        items: whose weights.
        length: of a slice.
        classes: the names (or truth values) that class indices stand for; None when the target is no class.
        targets: the target of each item [N].

    Raises:
        UsageError: an architecture has no such part or one shorter than ``length``; ``length`` is None but
            the part is not of one size; positions were fitted to something else; memory is too small for
            ``resident``; there is no such target, or it is missing for a member.
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
        resident: bool | str = False,
    ) -> None:
        self.items = items
        self._seed = seed
        self._epoch = 0
        self._drawn_now: Int64 | None = None  # the places of all items in this epoch
        layouts = {name: items.zoo.layout(name) for name in items.architectures}
        self._places = Places(layouts, part, length, statistics=statistics, pad=pad)
        self.length = self._places.length
        self._scaling = Scaling(normalize, self._places, items.architecture)
        self._source: Source = Files(items, self._places, self._scaling)
        if resident:
            device = "cpu" if resident is True else resident
            self._source = Arena(items, self._places, self._scaling, device)
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
        self._drawn_now = None

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return (
            f"SliceDataset({len(self):,} slices of {self.length:,} values of {self._places.part}, {self.items!r})"
        )

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
        chosen = self._indices(indices)
        return self._with_targets(self._source.gather(chosen, self._drawn(chosen)), chosen)

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
        chosen = self._indices(indices)
        places = self._places.evenly(self.items.architecture[chosen], count)
        values = self._source.gather(np.repeat(chosen, count), places.ravel())
        return self._with_targets(values.view(len(chosen), count, self.length), chosen)

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
        part.targets, part._drawn_now = self.targets[chosen], None
        part._scaling = self._scaling.only(chosen)
        part._source = self._source.only(part.items, part._scaling, chosen)
        return part

    def split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> tuple[SliceDataset, ...]:
        """Share the members out over data sets: see ``Items.partition``."""
        return tuple(self.only(chosen) for chosen in self.items.partition(fractions, seed))

    def _drawn(self, indices: Int64) -> Int64:
        """The places of this epoch [B]."""
        if self._drawn_now is None:
            bits = np.zeros(len(self), np.uint64)
            for part in (self._seed, self._epoch, self.items.members, self.items.snapshots):
                bits = mix(bits ^ np.asarray(part, np.int64).astype(np.uint64))
            room = self._places.room(self.items.architecture).astype(np.uint64)
            # The upper half times the range: unbiased to one part in 2**32 / range.
            offset = ((bits >> np.uint64(32)) * room) >> np.uint64(32)
            self._drawn_now = self._places.first[self.items.architecture] + offset.astype(np.int64)
        drawn: Int64 = self._drawn_now[indices]
        return drawn

    def _indices(self, indices: Sequence[int] | Int64) -> Int64:
        """Indices from 0 on."""
        chosen = np.asarray(indices, np.int64)
        if len(chosen) and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"there are {len(self):,} slices, and none {chosen.min()} to {chosen.max()}")
        return chosen % len(self)

    def _with_targets(self, values: torch.Tensor, chosen: Int64) -> Item:
        return values, torch.from_numpy(self.targets[chosen]).to(values.device)


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

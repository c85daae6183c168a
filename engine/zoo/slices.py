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
from .tables import numbers

Item = tuple[torch.Tensor, torch.Tensor]


class SliceDataset(Dataset[Item]):
    """For each item one slice of a part, at a random place inside the part.

    What it gives is ``(values, target)``: float32 [length], and a tensor of no dimensions. Where a slice starts
    is drawn from (seed, epoch, member, snapshot): it is the same whatever the order, the number of workers or
    the split, and another one after ``set_epoch``.

    Args:
        items: whose weights.
        part: ``all``, ``conv3``, ``conv2.weight``, ...: see ``Layout.part``.
        length: of a slice, in values; None for the whole part.
        target: None: the id of the member (int64). Else a column (see ``Items.column``): for names and truth
            values the class (int64), which counts in ``classes``; for numbers the number (float32).
        seed: of the places.

    Attributes:
        items: whose weights.
        length: of a slice.
        classes: the names (or truth values) that class indices stand for; None when the target is no class.
        targets: the target of each item [N].

    Raises:
        UsageError: an architecture has no such part or one shorter than ``length``; ``length`` is None but
            the part is not of one size; there is no such target, or it is missing for a member.
        WseError: a file is missing or damaged.
    """

    def __init__(
        self, items: Items, part: str, length: int | None = None, *, target: str | None = None, seed: int = 0
    ) -> None:
        self.items = items
        self._part = part
        self._seed = seed
        self._epoch = 0
        parts = {name: items.zoo.layout(name).part(part) for name in items.architectures}
        self.length = _length(part, parts, length)
        start, stop = np.array(list(parts.values()), np.int64)[items.architecture].T
        self._start = start
        self._places: NDArray[np.int64] = stop - start - self.length + 1
        self.classes, self.targets = _targets(items, target)

    @property
    def members(self) -> NDArray[np.int64]:
        """The id of each item's member [N]."""
        return self.items.members

    @property
    def snapshots(self) -> NDArray[np.int64]:
        """Which snapshot of its member each item is [N]."""
        return self.items.snapshots

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

    def batch(self, indices: Sequence[int]) -> Item:
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
        values = np.empty((len(chosen), self.length), np.float32)
        for out, index, start in zip(values, chosen.tolist(), self.starts(chosen).tolist(), strict=True):
            out[:] = self.items.weights(index, start, start + self.length)
        return torch.from_numpy(values), torch.from_numpy(self.targets[chosen])

    def starts(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the slices of items start in the flat vector, in this epoch: [B] int64."""
        bits = np.zeros(len(indices), np.uint64)
        for part in (self._seed, self._epoch, self.items.members[indices], self.items.snapshots[indices]):
            bits = mix(bits ^ np.asarray(part, np.int64).astype(np.uint64))
        # The upper half times the range: unbiased to one part in 2**32 / range.
        offset = ((bits >> np.uint64(32)) * self._places[indices].astype(np.uint64)) >> np.uint64(32)
        starts: NDArray[np.int64] = self._start[indices] + offset.astype(np.int64)
        return starts

    def only(self, chosen: NDArray[Any]) -> SliceDataset:
        """Some of the items, with the same slices: a mask [N] bool, or indices in ascending order."""
        part = copy.copy(self)
        part.items = self.items.only(chosen)
        part.targets, part._start, part._places = self.targets[chosen], self._start[chosen], self._places[chosen]
        return part

    def split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> tuple[SliceDataset, ...]:
        """Share the members out over data sets: see ``Items.partition``."""
        return tuple(self.only(chosen) for chosen in self.items.partition(fractions, seed))


def _length(part: str, parts: dict[str, tuple[int, int]], length: int | None) -> int:
    sizes = {name: stop - start for name, (start, stop) in parts.items()}
    if length is None:
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{size:,}" for size in sorted(set(sizes.values())))
            raise UsageError(f"part {part} is not of one size ({found} values): give a length, as {part}:LENGTH")
        return next(iter(sizes.values()))
    if length < 1:
        raise UsageError(f"`length` (={length}) must be at least 1")
    shortest = min(sizes, key=sizes.__getitem__)
    if sizes[shortest] < length:
        raise UsageError(
            f"part {part} of architecture {shortest} has {sizes[shortest]:,} values, "
            f"fewer than the length {length:,}: choose a smaller length or other members"
        )
    return length


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

"""Chosen snapshots of chosen members, each with its weights and with what is known of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import UsageError
from ..nets import Layout
from .integrity import DamagedError
from .shards import Float32, Shard
from .tables import CONFIG, numbers

if TYPE_CHECKING:
    from .reader import Zoo


class Items:
    """Chosen snapshots of chosen members; an item is one snapshot of one member.

    Args:
        zoo: to read from.
        snapshots: None for the last snapshot of each member, "all", or a list of indices, negative ones from
            the end. A member without such a snapshot has no item for it.
        members: ids; None for all members. That includes diverged ones, whose snapshots end with the last
            finite epoch.

    Attributes:
        zoo: to read from.
        members: the id of each item's member [N] int64, ascending.
        snapshots: which snapshot of its member each item is [N] int64.
        architectures: names of the architectures that occur among the members chosen at first.
        architecture: which of them each item has [N] int64.

    Raises:
        UsageError: a member does not exist, no item is left, or ``members`` or ``snapshots`` is no such list.
        WseError: a table is missing or damaged.
    """

    def __init__(
        self, zoo: Zoo, *, snapshots: str | Sequence[int] | None = None, members: Sequence[int] | None = None
    ) -> None:
        self.zoo = zoo
        rows = _rows(zoo, members)
        table = pc.take(zoo.members, _indices(rows))
        owner, self.snapshots = _choose(numbers(table["snapshots"]), snapshots)
        if not len(owner):
            raise UsageError(f"no slice is left of {zoo.folder}: choose other members or snapshots")
        self.members: NDArray[np.int64] = numbers(table["id"])[owner]
        self.architectures, architecture = _codes(table["architecture"])
        self.architecture = architecture[owner]
        self._member_row = rows[owner]
        self._files, shard = _codes(table["shard"])
        self._shard = shard[owner]
        self._shard_row: NDArray[np.int64] = numbers(table["row"])[owner]

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        return f"Items({len(self):,} snapshots of {len(np.unique(self.members)):,} members of {self.zoo!r})"

    def layout(self, index: int) -> Layout:
        """The layout of an item's weights."""
        return self.zoo.layout(self.architectures[self.architecture[index]])

    def weights(self, index: int, start: int = 0, stop: int | None = None) -> Float32:
        """The weights of an item, or consecutive ones of them.

        Args:
            index: of the item.
            start: first value.
            stop: one past the last value; None: the end.

        Returns:
            [stop - start] float32; of a zoo in float32 a read-only view of the file.

        Raises:
            WseError: a shard is missing or damaged.
        """
        shard, row, snapshot = self.shard(index)
        return shard.read(row, snapshot, start, stop)

    def stored(self, index: int) -> NDArray[Any]:
        """The weights of an item as they stand in the file, a read-only view [D]; bfloat16 as uint16.

        Raises:
            WseError: a shard is missing or damaged.
        """
        shard, row, snapshot = self.shard(index)
        return shard.stored(row, snapshot)

    def shard(self, index: int) -> tuple[Shard, int, int]:
        """The shard of an item, the row of its member there, and its snapshot.

        Raises:
            WseError: the shard is missing or damaged.
        """
        shard = self.zoo.shard(self._files[self._shard[index]])
        row, member, snapshot = int(self._shard_row[index]), self.members[index], int(self.snapshots[index])
        if row >= len(shard.members) or shard.members[row] != member or snapshot >= shard.snapshots[row]:
            raise DamagedError(shard.path, f"row {row} lacks snapshot {snapshot} of member {member}")
        return shard, row, snapshot

    def path(self, index: int) -> Path:
        """The file that an item is in."""
        return self.zoo.path(self._files[self._shard[index]])

    def extent(self, index: int) -> tuple[Path, int, int]:
        """The file that an item is in, the first of its bytes there, and their number.

        Raises:
            WseError: a shard is missing or damaged.
        """
        shard, row, snapshot = self.shard(index)
        start = shard.offset(row, snapshot)
        return shard.path, start, shard.offset(row, snapshot + 1) - start

    def on_disk(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Items in the order in which they lie on the disk."""
        order = np.lexsort((self.snapshots[indices], self._shard_row[indices], self._shard[indices]))
        return indices[order]

    def column(self, name: str) -> pa.ChunkedArray:
        """What is known of each item: [N], with nulls where it is not set.

        Args:
            name: a property, with or without ``config.``; a column of the snapshots table (``test_accuracy``,
                ``generalization_gap``, ``epoch``, ...): what held for that snapshot; another column of the
                members table.

        Raises:
            UsageError: there is no such column.
        """
        members, snapshots = self.zoo.members, self.zoo.snapshots
        name = name.removeprefix(CONFIG)
        if CONFIG + name in members.column_names:
            return pc.take(members[CONFIG + name], _indices(self._member_row))
        if name in snapshots.column_names[2:]:
            first = np.searchsorted(numbers(snapshots["member"]), self.members)
            return pc.take(snapshots[name], _indices(first + self.snapshots))
        if name in members.column_names:
            return pc.take(members[name], _indices(self._member_row))
        known = sorted({name.removeprefix(CONFIG) for name in members.column_names} - {"id", "shard", "row"})
        raise UsageError(f"no target {name!r} in {self.zoo.folder}: use one of {', '.join(known)}")

    def only(self, chosen: NDArray[Any]) -> Items:
        """Some of the items: a mask [N] bool, or indices in ascending order."""
        part = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and len(value) == len(self):
                setattr(part, name, value[chosen])
        return part

    def compact(self) -> Items:
        """The same items, and only the architectures that they have."""
        part = copy.copy(self)
        used, part.architecture = np.unique(self.architecture, return_inverse=True)
        part.architectures = [self.architectures[code] for code in used.tolist()]
        return part

    def split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> tuple[Items, ...]:
        """Share the members out over sets of items: see ``partition``."""
        return tuple(self.only(chosen) for chosen in self.partition(fractions, seed))

    def partition(self, fractions: Sequence[float], seed: int = 0) -> tuple[NDArray[np.bool_], ...]:
        """Share the members out; all items of a member go the same way.

        Args:
            fractions: of the members; they sum to 1. Sizes are rounded.
            seed: of the random order of the members.

        Returns:
            For each fraction which items are in it, [N] bool.

        Raises:
            UsageError: the fractions are not positive, do not sum to 1, or leave a share without members.
        """
        if min(fractions, default=0) <= 0 or abs(sum(fractions) - 1) > 1e-9:
            raise UsageError(f"`fractions` (={tuple(fractions)}) must be positive and sum to 1")
        ids = np.unique(self.members)
        # Sorted by a hash of the id: a member's place in the order does not depend on who else is there.
        order = np.argsort(mix(mix(np.full(len(ids), seed, np.int64).astype(np.uint64)) ^ ids.astype(np.uint64)))
        bounds = np.round(np.cumsum([0.0, *fractions]) * len(ids)).astype(int)
        if np.any(np.diff(bounds) == 0):
            raise UsageError(f"{len(ids)} members are too few to be split {tuple(fractions)}")
        return tuple(np.isin(self.members, ids[order[start:stop]]) for start, stop in pairwise(bounds.tolist()))


def mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _rows(zoo: Zoo, members: Sequence[int] | None) -> NDArray[np.int64]:
    """Rows of the members table, ascending."""
    if members is None:
        return np.arange(len(zoo.ids))
    wanted = np.unique(
        _whole_numbers(members, "`members` must be ids, as a list (those of a mask: zoo.ids[mask])")
    )
    unknown = np.setdiff1d(wanted, zoo.ids)
    if len(unknown):
        raise UsageError(f"{zoo.folder} has no member {unknown[0]}: choose from its {len(zoo):,} ids")
    return np.searchsorted(zoo.ids, wanted)


def _whole_numbers(given: Any, told: str) -> NDArray[np.int64]:
    """What was given as an array; a mask, or numbers that would be cut, are an error that says so."""
    values = np.asarray(given)
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "iu"):
        raise UsageError(told)
    return values.astype(np.int64)


def _indices(rows: NDArray[np.int64]) -> pa.Array:
    """Row numbers for Arrow; handed over as a NumPy array they would make it import pandas."""
    buffer = pa.py_buffer(np.ascontiguousarray(rows, np.int64))
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, buffer])


def _choose(
    counts: NDArray[np.int64], snapshots: str | Sequence[int] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each item the position of its member and its snapshot, given each member's number of snapshots."""
    if isinstance(snapshots, str) and snapshots == "all":
        owner = np.repeat(np.arange(len(counts)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        return owner, np.arange(len(owner)) - first
    told = f"`snapshots` (={snapshots!r}) must be None, 'all' or a list of indices"
    wanted = _whole_numbers([-1] if snapshots is None else snapshots, told)
    index = np.where(wanted < 0, counts[:, None] + wanted, wanted)
    grid = np.arange(int(counts.max(initial=0)))
    # Through a table [members, snapshots], so that naming a snapshot twice (0 and -5 of 5) gives one item.
    chosen = (index[:, :, None] == grid).any(axis=1) & (grid < counts[:, None])
    owner, snapshot = np.nonzero(chosen)
    return owner, snapshot


def _codes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct strings of a column, and for each row which one it is."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), np.from_dlpack(encoded.indices).astype(np.int64)

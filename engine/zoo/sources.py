"""Where slices are read from: files mapped into memory, or one array that holds a part of all items."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from wse.kernels.slices import Runs
from wse.kernels.slices.cpu import gather

from ..errors import UsageError
from ..machine import physical_bytes
from .items import Items
from .memory import expect, free_bytes
from .normalising import Scaling
from .places import Int64, Places
from .shards import stored_dtype

_STAGE_BYTES = 64 * 2**20  # read, checked and laid down at a time


class Source(Protocol):
    """What slices are read from."""

    def gather(self, chosen: Int64, places: Int64) -> torch.Tensor:
        """A slice of each of these items [B] at these places [B]: [B, length] float32.

        Raises:
            WseError: a shard is missing or damaged.
        """

    def only(self, items: Items, scaling: Scaling, chosen: NDArray[Any]) -> Source:
        """The same for some of the items: a mask [N] bool, or indices in ascending order."""


class Files:
    """The files of a zoo, mapped into memory. A snapshot is checked when it is first seen.

    Args:
        items: whose weights.
        places: of their slices.
        scaling: how they are normalised.
    """

    def __init__(self, items: Items, places: Places, scaling: Scaling) -> None:
        self._items, self._places, self._scaling = items, places, scaling
        self._dtype = stored_dtype(items.zoo.manifest.dtype)
        # Where the vector of each item lies in memory, 0 until it is seen, and in its file.
        self._addresses: Int64 = np.zeros(len(items), np.int64)
        self._offsets = self._addresses.copy()
        # Mapped by torch, files do not stay open: a system allows as few as 256 of them.
        self._maps: dict[Path, torch.Tensor] = {}
        layouts = [items.zoo.layout(name) for name in items.architectures]
        sizes = np.array([layout.size for layout in layouts])[items.architecture]
        self._vector_bytes: Int64 = sizes * self._dtype.itemsize
        self._fits = int(self._vector_bytes.sum()) < physical_bytes() // 2

    def gather(self, chosen: Int64, places: Int64) -> torch.Tensor:
        """See ``Source``."""
        self._see(chosen[self._addresses[chosen] == 0])
        counts = self._places.counts(self._items.architecture[chosen])
        if not self._fits:
            self._expect_slices(chosen, places, counts)
        addresses = self._addresses[chosen]
        values = gather(
            addresses, places, counts, self._places.length, self._places.runs, self._dtype,
            order=np.argsort(addresses), threads=torch.get_num_threads(), **self._scaling.arguments(chosen),
        )  # fmt: skip
        return torch.from_numpy(values)

    def only(self, items: Items, scaling: Scaling, chosen: NDArray[Any]) -> Files:
        """See ``Source``."""
        part = Files(items, self._places, scaling)
        part._addresses, part._offsets = self._addresses[chosen], self._offsets[chosen]
        part._maps = self._maps
        return part

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process maps files of its own.
        return {**vars(self), "_maps": {}, "_addresses": np.zeros_like(self._addresses)}

    def _see(self, unseen: Int64) -> None:
        """Check items, map them, and find what they are normalised by."""
        for stage in _stages(self._items, np.unique(unseen), self._vector_bytes):
            for index in stage.tolist():
                shard, row, snapshot = self._items.shard(index)
                self._scaling.see(index, shard.stored(row, snapshot))
                if shard.path not in self._maps:
                    file = str(shard.path)
                    self._maps[shard.path] = torch.from_file(file, size=shard.bytes, dtype=torch.uint8)
                self._offsets[index] = shard.offset(row, snapshot)
                self._addresses[index] = self._maps[shard.path].data_ptr() + self._offsets[index]

    def _expect_slices(self, chosen: Int64, places: Int64, counts: Int64) -> None:
        """Have slices read all at once that may have left memory since they were seen."""
        runs, size = self._places.runs, self._dtype.itemsize
        first, last = runs.stored_at(places), runs.stored_at(places + counts - 1)
        starts = self._offsets[chosen] + size * first
        paths = [self._items.path(index) for index in chosen.tolist()]
        expect(zip(paths, starts.tolist(), (size * (last - first + 1)).tolist(), strict=True))


class Arena:
    """One array that holds the part of all items, in main memory or in that of a GPU.

    All weights are read, checked and laid down when it is made.

    Args:
        items: whose weights.
        places: of their slices.
        scaling: how they are normalised.
        device: that has the memory, as PyTorch names it. Slices are made there.

    Raises:
        UsageError: the memory is too small, or there is no such device.
        WseError: a shard is missing or damaged.
    """

    def __init__(self, items: Items, places: Places, scaling: Scaling, device: str) -> None:
        self._architecture, self._places, self._scaling, self._device = items.architecture, places, scaling, device
        self._dtype = stored_dtype(items.zoo.manifest.dtype)
        # What lies between runs is not in the array: each architecture's runs follow each other.
        first = np.repeat(places.first, np.diff(places.first_run))
        self._runs = Runs(begin=places.runs.begin, source=places.runs.begin[:-1] - first)
        sizes = places.sizes[items.architecture]
        order = items.on_disk(np.arange(len(items)))
        self._offsets = np.empty(len(items), np.int64)
        self._offsets[order] = np.cumsum(sizes[order]) - sizes[order]
        _check_memory(int(sizes.sum()) * self._dtype.itemsize, device)
        values = np.empty(int(sizes.sum()) if device == "cpu" else 0, self._dtype)
        self._values = _as_tensor(values)
        if device != "cpu":
            self._values = torch.empty(int(sizes.sum()), dtype=self._values.dtype, device=device)
        for stage in _stages(items, order, sizes * self._dtype.itemsize):
            start, stop = self._offsets[stage[0]], self._offsets[stage[-1]] + sizes[stage[-1]]
            part = values[start:stop] if device == "cpu" else np.empty(stop - start, self._dtype)
            for index in stage.tolist():
                vector, runs = items.stored(index), places.runs_of(int(items.architecture[index]))
                scaling.see(index, vector)
                at = self._offsets[index] - start
                for begin, end, source in zip(runs.begin[:-1], runs.begin[1:], runs.source, strict=True):
                    part[at + begin : at + end] = vector[source : source + end - begin]
            if device != "cpu":
                self._values[start:stop].copy_(_as_tensor(part))

    def gather(self, chosen: Int64, places: Int64) -> torch.Tensor:
        """See ``Source``."""
        counts = self._places.counts(self._architecture[chosen])
        if self._device != "cpu":
            return self.gather_on_device(chosen, places, counts)
        addresses = self._values.data_ptr() + self._dtype.itemsize * self._offsets[chosen]
        values = gather(
            addresses, places, counts, self._places.length, self._runs, self._dtype,
            threads=torch.get_num_threads(), **self._scaling.arguments(chosen),
        )  # fmt: skip
        return torch.from_numpy(values)

    def gather_on_device(self, chosen: Int64, places: Int64, counts: Int64) -> torch.Tensor:
        """``gather`` by Triton."""
        from wse.kernels.slices import triton

        arguments = self._scaling.arguments(chosen)
        first = places if arguments["first"] is None else arguments["first"]
        # One copy for what changes from batch to batch, one for all batches of what does not.
        batch = np.stack((self._offsets[chosen], places, counts, first))
        offsets, at, count, arguments["first"] = torch.from_numpy(batch).to(self._device)
        table, arguments["shift"], arguments["scale"] = self._on_device
        length = self._places.length
        return triton.gather(self._values, offsets, at, count, length, table, **arguments)

    @cached_property
    def _on_device(self) -> tuple[Any, torch.Tensor | None, torch.Tensor | None]:
        from wse.kernels.slices.triton import Table

        shift, scale = (
            None if array is None else torch.from_numpy(array).to(self._device)
            for array in (self._scaling.shift, self._scaling.scale)
        )
        return Table.of(self._runs, self._device), shift, scale

    def only(self, items: Items, scaling: Scaling, chosen: NDArray[Any]) -> Arena:
        """See ``Source``."""
        part = copy.copy(self)
        part._architecture, part._scaling, part._offsets = items.architecture, scaling, self._offsets[chosen]
        return part


def _stages(items: Items, indices: Int64, sizes: Int64) -> Iterator[Int64]:
    """Items in the order of the disk, ``_STAGE_BYTES`` at a time; the next are read in the background meanwhile.

    Args:
        items: of a zoo.
        indices: which of them.
        sizes: bytes that each of all items takes.
    """
    order = items.on_disk(indices)
    stage_of = np.cumsum(sizes[order]) // _STAGE_BYTES
    stages = np.split(order, np.flatnonzero(np.diff(stage_of)) + 1) if len(order) else []
    for number, stage in enumerate(stages):
        for soon in stages[number + (number > 0) : number + 2]:
            expect(items.extent(index) for index in soon.tolist())
        yield stage


def _check_memory(needed: int, device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UsageError(f"`resident` (={device!r}) must be True, False or a device such as cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"`resident` (={device!r}) needs an NVIDIA GPU, and PyTorch sees none")
    free = free_bytes(device)
    if needed > free:
        raise UsageError(
            f"the weights need {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: choose fewer "
            "members or snapshots, or read from the files (resident=False)"
        )


def _as_tensor(values: NDArray[Any]) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor.view(torch.bfloat16) if values.dtype == np.uint16 else tensor

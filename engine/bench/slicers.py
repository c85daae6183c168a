"""Ways to get batches of slices: ours, and what a user would write instead.

All give the same slices of the same snapshots, moving averages included, so that what others read is consecutive.
Others are told where slices start; ours draw it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ..zoo import Zoo
from ..zoo.normalising import Normalizing
from ..zoo.slices import SliceDataset

Kind = Literal["ours", "user"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What slices to make.

    Attributes:
        folder: of the zoo; one architecture, float32.
        length: of a slice, in values.
        batch: slices of a batch.
        threads: that may be used.
        standardised: whether each slice is to have mean 0 and standard deviation 1.
    """

    folder: Path
    length: int
    batch: int
    threads: int
    standardised: bool

    @cached_property
    def dataset(self) -> SliceDataset:
        """Ours over the files, which says what there is to be read and where."""
        return self.ours()

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The items in the order of a pass."""
        return np.random.default_rng(0).permutation(len(self.dataset))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where the slices of epoch 0 start in the vectors of ``order``."""
        return self.dataset.starts(self.order)

    def ours(self, **options: Any) -> SliceDataset:
        """A data set of our own, of files that nobody has opened."""
        how: Normalizing = "slice" if self.standardised else "none"
        zoo = Zoo.open(self.folder)
        return zoo.slices("all", self.length, snapshots="all", normalize=how, statistics=True, **options)

    def expected(self, count: int) -> NDArray[np.float64]:
        """The first slices of a pass in float64, read one by one [count, length]."""
        read = [
            self.dataset.items.weights(index, start, start + self.length)
            for index, start in zip(self.order[:count].tolist(), self.starts[:count].tolist(), strict=True)
        ]
        values = np.array(read, np.float64)
        if self.standardised:
            values = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
        return values

    def located(self) -> Iterator[list[tuple[Path, int, int, int]]]:
        """(file, row, snapshot, start) of the slices of each batch of a pass."""
        items = self.dataset.items
        found = []
        for index, start in zip(self.order.tolist(), self.starts.tolist(), strict=True):
            shard, row, snapshot = items.shard(index)
            found.append((shard.path, row, snapshot, start))
        for first in range(0, len(found), self.batch):
            yield found[first : first + self.batch]

    def finished(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise a batch as a user would."""
        if not self.standardised:
            return values
        return (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True, correction=0)


class Slicer(ABC):
    """One way, opened for a task.

    Attributes:
        name: for results.
        label: for the table, at most 30 characters.
        kind: whether it is ours, or what a user would write instead.
        reads_files: whether it reads files as it goes.
        one_thread: whether PyTorch gets a single thread. Threads often cost small operations more than they give.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    kind: ClassVar[Kind] = "user"
    reads_files: ClassVar[bool] = True
    one_thread: ClassVar[bool] = False

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def batches(self) -> Iterator[torch.Tensor]:
        """The batches of a pass over all snapshots; at first at the places of epoch 0."""


class Ours(Slicer):
    """Ours over the files."""

    name, label, kind = "files", "ours: files", "ours"
    resident: ClassVar[bool] = False

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._dataset = task.ours(resident=self.resident)
        self._epoch = 0

    def batches(self) -> Iterator[torch.Tensor]:
        """See ``Slicer``; each pass is another epoch."""
        self._dataset.set_epoch(self._epoch)
        self._epoch += 1
        order, size = self.task.order, self.task.batch
        for first in range(0, len(order), size):
            yield self._dataset.batch(order[first : first + size])[0]


class OursResident(Ours):
    """Ours over weights that were read before."""

    name, label, reads_files, resident = "resident", "ours: resident", False, True


class Memmap(Slicer):
    """NumPy over mapped files, and ``torch.stack``."""

    name, label, one_thread = "memmap", "NumPy memmap, torch.stack", True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._batches = list(task.located())
        self._arrays = {path: mapped(path) for batch in self._batches for path, *_ in batch}

    def batches(self) -> Iterator[torch.Tensor]:
        """See ``Slicer``."""
        length, arrays = self.task.length, self._arrays
        for batch in self._batches:
            read = [
                torch.from_numpy(np.array(arrays[path][row, snapshot, start : start + length]))
                for path, row, snapshot, start in batch
            ]
            yield self.task.finished(torch.stack(read))


class Safetensors(Slicer):
    """``get_slice`` of safetensors, and ``torch.stack``."""

    name, label, one_thread = "safetensors", "safetensors get_slice", True

    def __init__(self, task: Task) -> None:
        from safetensors import safe_open

        super().__init__(task)
        self._batches = list(task.located())
        paths = {path for batch in self._batches for path, *_ in batch}
        self._files: dict[Path, Any] = {path: safe_open(path, framework="pt") for path in paths}

    def batches(self) -> Iterator[torch.Tensor]:
        """See ``Slicer``."""
        length = self.task.length
        slices: dict[Path, Any] = {path: file.get_slice("weights") for path, file in self._files.items()}
        for batch in self._batches:
            read = [slices[path][row, snapshot, start : start + length] for path, row, snapshot, start in batch]
            yield self.task.finished(torch.stack(read))


class Loader(Slicer):
    """A plain data set over mapped files and a ``DataLoader`` with as many processes as threads."""

    name, label, one_thread = "dataloader", "plain Dataset, DataLoader", True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._loader = DataLoader(
            _PlainDataset(task), batch_size=task.batch, num_workers=task.threads, persistent_workers=True
        )

    def batches(self) -> Iterator[torch.Tensor]:
        """See ``Slicer``."""
        yield from self._loader


class Indexing(Slicer):
    """A tensor that holds all weights, sliced one by one, and ``torch.stack``."""

    name, label, reads_files = "indexing", "PyTorch tensor, torch.stack", False

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        items = task.dataset.items
        weights = np.empty((len(items), items.layout(0).size), np.float32)
        for index, row in enumerate(weights):
            row[:] = items.weights(index)
        self._weights = torch.from_numpy(weights)

    def batches(self) -> Iterator[torch.Tensor]:
        """See ``Slicer``."""
        order, starts, size, length = self.task.order, self.task.starts, self.task.batch, self.task.length
        for first in range(0, len(order), size):
            places = zip(order[first : first + size].tolist(), starts[first : first + size].tolist(), strict=True)
            yield self.task.finished(
                torch.stack([self._weights[index, start : start + length] for index, start in places])
            )


class IndexingOnOne(Indexing):
    """The same with one thread."""

    name, label, one_thread = "indexing-1", "PyTorch tensor, one thread", True


class _PlainDataset(Dataset[torch.Tensor]):
    """One slice at a time, as most data sets are written."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._slices = [located for batch in task.located() for located in batch]
        self._arrays = {path: mapped(path) for path, *_ in self._slices}

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int) -> torch.Tensor:
        path, row, snapshot, start = self._slices[index]
        read = np.array(self._arrays[path][row, snapshot, start : start + self._task.length])
        return self._task.finished(torch.from_numpy(read)[None])[0]


def mapped(path: Path) -> NDArray[np.float32]:
    """The weights of a shard [members, snapshots, D], mapped by NumPy."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        shape = file.get_slice("weights").get_shape()
    with path.open("rb") as header:
        start = 8 + int.from_bytes(header.read(8), "little")
    return np.asarray(np.memmap(path, np.float32, "r", start, tuple(shape)))


SLICERS: tuple[type[Slicer], ...] = (OursResident, Ours, Indexing, IndexingOnOne, Memmap, Safetensors, Loader)

"""What deep models read their items from: the seam between data and the training loop.

The loop knows nothing of slices, networks or graphs. It asks a `Source` for the inputs of some items and hands
them to the net as they are, so a net and its source agree between themselves on what an input is::

    class Pairs:                                  # a source of the reader's own
        random = False
        def __init__(self, items): self.items = items
        def __len__(self): return len(self.items)
        def set_epoch(self, epoch): ...
        def inputs(self, indices): return {"weights": tensor [B, ...], "mask": tensor [B, ...]}
        def only(self, chosen): return Pairs(self.items.only(chosen))

    def build(source, outputs): return PairNet(outputs)       # net(inputs) -> [B, outputs]

    DeepClassifier(build, source=Pairs).fit(items, y, groups=items.members)
"""

from __future__ import annotations

import copy
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from ...zoo.slices import SliceDataset

Indices = NDArray[np.int64]


@runtime_checkable
class Source(Protocol):
    """Items that a net can read.

    Attributes:
        random: whether `set_epoch` changes what `inputs` gives. If so, predictions can be means over several
            looks at an item.
    """

    random: bool

    def __len__(self) -> int:
        """Number of items."""

    def set_epoch(self, epoch: int) -> None:
        """Draw anew what is random, from the epoch and nothing else that changes.

        Training counts epochs from 1: here a source may leave parts out or augment. Epochs 0, -1, -2, ... are
        further looks at items that are validated or predicted.
        """

    def inputs(self, indices: Indices) -> Any:
        """What the net takes for some items [B]: a tensor, or a tuple, list or dict of tensors, in CPU memory."""

    def only(self, chosen: NDArray[Any]) -> Source:
        """Some of the items, in a source of its own epoch: a mask [N] bool, or indices in ascending order."""


class ArraySource:
    """Rows of an array [N, length] float32: [B, length]."""

    random = False

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values

    @property
    def length(self) -> int:
        """Values of an item."""
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def set_epoch(self, epoch: int) -> None:
        """Nothing is random."""

    def inputs(self, indices: Indices) -> torch.Tensor:
        """[B, length] float32."""
        return torch.from_numpy(self.values[indices])

    def only(self, chosen: NDArray[Any]) -> ArraySource:
        """Some of the rows."""
        return ArraySource(self.values[chosen])


class SliceSource:
    """Slices, at other places in every epoch: [B, length] float32."""

    def __init__(self, slices: SliceDataset) -> None:
        self._slices = copy.copy(slices)  # whose epoch is the reader's, not ours
        every = np.arange(len(slices))
        places = []
        for epoch in (0, 1):
            self.set_epoch(epoch)
            places.append(self._slices.starts(every))
        self.random = bool((places[0] != places[1]).any())
        self.set_epoch(0)

    @property
    def length(self) -> int:
        """Values of a slice."""
        return self._slices.length

    def __len__(self) -> int:
        return len(self._slices)

    def set_epoch(self, epoch: int) -> None:
        """Draw other places."""
        self._slices.set_epoch(epoch)

    def inputs(self, indices: Indices) -> torch.Tensor:
        """[B, length] float32."""
        return self._slices.batch(indices.tolist())[0]

    def only(self, chosen: NDArray[Any]) -> SliceSource:
        """Some of the items, with the same slices."""
        part = copy.copy(self)
        part._slices = self._slices.only(chosen)
        return part

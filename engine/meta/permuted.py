"""Networks whose neurons stand in another order: the same functions, other weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..nets.permute import permutation
from ..zoo import Items
from ..zoo.shards import Float32


class PermutedItems(Items):
    """Items that are read as if their neurons had been permuted, each in an order of its own.

    A model that is not invariant reads something else of them, though they compute what they did before.

    Args:
        items: to be permuted.
        seed: of the orders, which follow from it, the member and the snapshot.
    """

    def __init__(self, items: Items, seed: int = 0) -> None:
        vars(self).update(vars(items))
        self._permutation_seed = seed

    def stored(self, index: int) -> NDArray[Any]:
        """The weights of an item with its neurons permuted, in the number format of the file [D]."""
        permuted: NDArray[Any] = super().stored(index)[self._order(index)]
        return permuted

    def weights(self, index: int, start: int = 0, stop: int | None = None) -> Float32:
        """The weights of an item with its neurons permuted, or consecutive ones of them."""
        permuted: Float32 = super().weights(index)[self._order(index)][start:stop]
        return permuted

    def _order(self, index: int) -> NDArray[np.int64]:
        address = [self._permutation_seed, int(self.members[index]), int(self.snapshots[index])]
        return permutation(self.layout(index), np.random.default_rng(address))

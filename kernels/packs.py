"""Packs: members of one architecture side by side, and the tiles their work is cut into.

The images of all members of a step are concatenated; ``row_offsets`` [P + 1] says where each member's begin. An
operation whose images consist of items (pixels, groups of pixels, rows of a matrix) cuts each member's items into
tiles, so that a program never sees two members. Tables have a fixed capacity: grids do not change when other
members move in, and a captured CUDA graph stays valid. A tile that is not used has first == end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .transfer import write

LARGEST_ITEM = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tiles:
    """How a pack's items are cut into tiles.

    Attributes:
        table: (member, first item, end of this tile) of each tile, int32 [T, 3].
        first: the first tile of each member, and their number, int32 [P + 1].
        items_per_image: items of an image.
        size: the most items of a tile.
    """

    table: Tensor
    first: Tensor
    items_per_image: int
    size: int

    def __len__(self) -> int:
        return len(self.table)


class Pack:
    """Which images of a step belong to which member, and every table of tiles that follows from it.

    Args:
        members: P, how many members there is room for.
        images: how many images of all members together there is room for.
        device: where the tables lie.

    Attributes:
        row_offsets: the first image of each member, and the number of images, int32 [P + 1].

    Raises:
        ValueError: there is no room for a member.
    """

    def __init__(self, *, members: int, images: int, device: torch.device | str = "cpu") -> None:
        if members < 1 or images < 0:
            raise ValueError(f"`members` (={members}) must be at least 1 and `images` (={images}) at least 0")
        self.members, self.images, self.device = members, images, torch.device(device)
        self.row_offsets = torch.zeros(members + 1, dtype=torch.int32, device=device)
        self._offsets = np.zeros(members + 1, np.int64)
        self._tiles: dict[tuple[int, int], Tiles] = {}

    @classmethod
    def of(cls, row_offsets: Sequence[int], device: torch.device | str = "cpu") -> Pack:
        """A pack that is exactly full."""
        pack = cls(members=len(row_offsets) - 1, images=row_offsets[-1], device=device)
        pack.lay(row_offsets)
        return pack

    def lay(self, row_offsets: Sequence[int]) -> None:
        """Let other images belong to the members; all tables are rewritten in place.

        Args:
            row_offsets: the first image of each member, and the number of images, [P + 1].

        Raises:
            ValueError: the offsets do not start at 0, fall, or do not fit into the pack.
        """
        offsets = np.asarray(row_offsets, np.int64)
        if offsets.shape != (self.members + 1,) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError(f"`row_offsets` must be {self.members + 1} numbers that start at 0 and never fall")
        if offsets[-1] > self.images:
            raise ValueError(f"`row_offsets` end at {offsets[-1]}, but there is room for {self.images} images")
        if np.array_equal(offsets, self._offsets):
            return
        self._offsets = offsets
        write(self.row_offsets, offsets)
        for tiles in self._tiles.values():
            self._fill(tiles)

    def tiles(self, *, items_per_image: int, size: int) -> Tiles:
        """The table for tiles of up to ``size`` items; the same object whenever it is asked for.

        Raises:
            ValueError: a number is below 1, or items could not be counted in 32 bits.
        """
        key = (items_per_image, size)
        if key not in self._tiles:
            if min(key) < 1 or self.images * items_per_image > LARGEST_ITEM:
                raise ValueError(
                    f"{self.images} images of {items_per_image} items in tiles of {size}: a pack has "
                    f"from 1 to {LARGEST_ITEM:,} items, and a tile at least 1"
                )
            # Beyond whole tiles, each member has at most one that is not full, if there is an image for it.
            capacity = self.images * items_per_image // size + min(self.members, self.images)
            made = Tiles(
                table=torch.zeros(max(capacity, 1), 3, dtype=torch.int32, device=self.device),
                first=torch.zeros(self.members + 1, dtype=torch.int32, device=self.device),
                items_per_image=items_per_image,
                size=size,
            )
            self._fill(made)
            self._tiles[key] = made
        return self._tiles[key]

    def _fill(self, tiles: Tiles) -> None:
        starts = self._offsets * tiles.items_per_image
        counts = -(-np.diff(starts) // tiles.size)
        first = np.concatenate(([0], np.cumsum(counts)))
        member = np.repeat(np.arange(self.members), counts)
        begin = starts[member] + (np.arange(first[-1]) - first[member]) * tiles.size
        table = np.zeros((len(tiles), 3), np.int32)
        table[: first[-1]] = np.stack([member, begin, np.minimum(begin + tiles.size, starts[member + 1])], 1)
        write(tiles.table, table)
        write(tiles.first, first)

"""Packs: the tables say whose items are whose, whatever moves in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wse.kernels.packs import Pack

COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def check(pack: Pack, counts: list[int], items_per_image: int, size: int) -> None:
    """Every item is in one tile, of its own member, and in order."""
    tiles = pack.tiles(items_per_image=items_per_image, size=size)
    table, first = tiles.table.tolist(), tiles.first.tolist()
    offsets = np.concatenate(([0], np.cumsum(counts))).tolist()
    assert pack.row_offsets.tolist() == offsets
    for member, (start, stop) in enumerate(pairwise(offsets)):
        mine = table[first[member] : first[member + 1]]
        assert all(owner == member and 0 < end - begin <= size for owner, begin, end in mine)
        covered = [item for _, begin, end in mine for item in range(begin, end)]
        assert covered == list(range(start * items_per_image, stop * items_per_image))
        assert len(mine) == -(-(stop - start) * items_per_image // size)
    assert all(begin == end for _, begin, end in table[first[-1] :])


@given(first=COUNTS, data=st.data(), items_per_image=st.integers(1, 7), size=st.integers(1, 16))
def test_tables_follow_who_moves_in(
    first: list[int], data: st.DataObject, items_per_image: int, size: int
) -> None:
    again = data.draw(st.lists(st.integers(0, 9), min_size=len(first), max_size=len(first)))
    pack = Pack(members=len(first), images=max(sum(first), sum(again)))
    pack.lay(np.concatenate(([0], np.cumsum(first))).tolist())
    check(pack, first, items_per_image, size)
    tiles = pack.tiles(items_per_image=items_per_image, size=size)
    table, offsets = tiles.table, pack.row_offsets
    pack.lay(np.concatenate(([0], np.cumsum(again))).tolist())
    check(pack, again, items_per_image, size)
    # In place, with room for as many tiles as before: a captured graph would see the change.
    assert pack.tiles(items_per_image=items_per_image, size=size) is tiles
    assert tiles.table is table
    assert pack.row_offsets is offsets


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`members` \(=0\) must be at least 1"):
        Pack(members=0, images=1)
    pack = Pack(members=2, images=4)
    for offsets in ([0, 1], [1, 2, 3], [0, 3, 2]):
        with pytest.raises(ValueError, match="3 numbers that start at 0 and never fall"):
            pack.lay(offsets)
    with pytest.raises(ValueError, match="end at 5, but there is room for 4"):
        pack.lay([0, 1, 5])
    with pytest.raises(ValueError, match="4 images of 0 items"):
        pack.tiles(items_per_image=0, size=1)
    with pytest.raises(ValueError, match="from 1 to 2,147,483,647 items"):
        pack.tiles(items_per_image=2**30, size=1)

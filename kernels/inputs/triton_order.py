"""Which images a pack's batches are made of, for Triton: computed place by place, nothing is shuffled or stored.

The indices are those of ``epoch_indices`` in ``engine/train/split.py``, bit for bit: a place of the epoch is
permuted and gives a class and a rank in it; the rank is permuted within the member's share of the class, and then
within the class if the share is not all of it.

R images, P members, C classes at most.
"""

from __future__ import annotations

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from ..packs import Pack
from ..philox import Stream
from ..philox.triton import permuted, read_address
from ..triton_variant import Variant

_BLOCK = 128
_TRAINING_SUBSET = tl.constexpr(int(Stream.TRAINING_SUBSET))
_EPOCH_CLASS = tl.constexpr(int(Stream.EPOCH_CLASS))
_EPOCH_ORDER = tl.constexpr(int(Stream.EPOCH_ORDER))


@triton.jit
def epoch_indices_kernel(
    indices_ptr,
    tiles_ptr,
    row_offsets_ptr,
    addresses_ptr,
    orders_ptr,
    classes_ptr,
    table_ptr,
    C,
    BLOCK: tl.constexpr,
):
    """A tile of one member's images."""
    tile = tiles_ptr + tl.program_id(0) * 3
    member, first, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    if first == end:
        return
    begin = tl.load(row_offsets_ptr + member)
    seed, identity, epoch, first_place = read_address(addresses_ptr, member)
    n_classes, per_class = tl.load(orders_ptr + member * 2), tl.load(orders_ptr + member * 2 + 1)

    rows = first + tl.arange(0, BLOCK)
    there = rows < end
    zero = rows.to(tl.uint32) * 0
    sizes = zero + (n_classes * per_class).to(tl.uint32)
    places = first_place + (rows - begin).to(tl.uint32)
    # Where there is no image the first place stands in: what is outside might be permuted for ever.
    places = tl.where(there & (places < sizes), places, zero)
    places = permuted(places, sizes, seed, identity, epoch, zero + _EPOCH_ORDER)
    labels, ranks = places // per_class.to(tl.uint32), places % per_class.to(tl.uint32)

    row = classes_ptr + (member.to(tl.int64) * C + labels.to(tl.int32)) * 3
    start, size, share = tl.load(row), tl.load(row + 1).to(tl.uint32), tl.load(row + 2).to(tl.uint32)
    branch = (labels + 1) << 8
    ranks = permuted(ranks, share, seed, identity, epoch, branch | _EPOCH_CLASS)
    epoch_of_subset = epoch * 0
    in_class = permuted(ranks, size, seed, identity, epoch_of_subset, branch | _TRAINING_SUBSET)
    ranks = tl.where(share == size, ranks, in_class)
    images = tl.load(table_ptr + start + ranks.to(tl.int32), mask=there, other=0)
    tl.store(indices_ptr + rows, images, mask=there)


def epoch_indices(
    indices: Tensor, pack: Pack, *, addresses: Tensor, orders: Tensor, classes: Tensor, table: Tensor
) -> None:
    """The images of every member's next batch.

    Args:
        indices: int32 [R], written.
        pack: whose images they are; a member's batch is as large as its images are many.
        addresses: int64 [P, 4]: seed, member id, epoch, place of the batch's first image.
        orders: int32 [P, 2]: number of classes, and how many images an epoch takes of each at most.
        classes: int32 [P, C, 3]: where a class begins in the table, its training images, the member's share.
        table: int32, training images sorted by class, of all image sets.
    """
    tiles = pack.tiles(items_per_image=1, size=_BLOCK)
    epoch_indices_kernel[(len(tiles),)](
        indices,
        tiles.table,
        pack.row_offsets,
        addresses,
        orders,
        classes,
        table,
        classes.shape[1],
        BLOCK=_BLOCK,
        num_warps=4,
    )


def variants() -> Iterator[Variant]:
    """One form serves all."""
    integers = ("indices_ptr", "tiles_ptr", "row_offsets_ptr", "orders_ptr", "classes_ptr", "table_ptr")
    yield Variant(
        kernel=epoch_indices_kernel,
        name="epoch-indices",
        signature={**dict.fromkeys(integers, "*i32"), "addresses_ptr": "*i64", "C": "i32"},
        constexprs={"BLOCK": _BLOCK},
    )

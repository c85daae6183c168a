"""Dropout of a pack's values for Triton, with the keep masks of ``dropout.py`` bit for bit.

Nothing is stored: the backward pass computes the same mask again and applies it to the gradient.

R images, P members; values are [R, H, W + 2 * margin, C'], C of the channels C' real.
"""

from __future__ import annotations

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from ..packs import Pack
from ..triton_variant import Variant
from .dropout import SAMPLES_PER_BLOCK
from .reference import Stream
from .triton import read_address

_BLOCK_U = 256
_SAMPLES = tl.constexpr(SAMPLES_PER_BLOCK)
_DROPOUT = tl.constexpr(int(Stream.DROPOUT))


@triton.jit
def dropout_kernel(
    values_ptr,
    tiles_ptr,
    row_offsets_ptr,
    addresses_ptr,
    levels_ptr,
    scales_ptr,
    stream,
    H: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    STORED: tl.constexpr,
    MARGIN: tl.constexpr,
    BLOCK_U: tl.constexpr,
):
    """A block of units in the sixteen images that share its random words."""
    tile = tiles_ptr + tl.program_id(0) * 3
    member, first, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    level = tl.load(levels_ptr + member)
    if (first == end) | (level == 0):
        return
    begin, stop = tl.load(row_offsets_ptr + member), tl.load(row_offsets_ptr + member + 1)
    seed, identity, epoch, first_place = read_address(addresses_ptr, member)
    samples_of_batch = (stop - begin).to(tl.uint32)
    blocks = (samples_of_batch + _SAMPLES - 1) // _SAMPLES
    block = first_place // samples_of_batch * blocks + ((first - begin) // _SAMPLES).to(tl.uint32)

    units = tl.program_id(1) * BLOCK_U + tl.arange(0, BLOCK_U)
    zero = units.to(tl.uint32) * 0
    position = block * (H * W * C) + units.to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, position, zero + epoch, zero + identity, zero + stream.to(tl.uint32))
    samples = tl.arange(0, _SAMPLES)
    word, shift = samples[:, None] // 4, (samples[:, None] % 4 * 8).to(tl.uint32)
    words = tl.where(
        word == 0, w0[None, :], tl.where(word == 1, w1[None, :], tl.where(word == 2, w2[None, :], w3[None, :]))
    )
    draws = ((words >> shift) & 0xFF).to(tl.int32)

    rows = first + samples
    pixels, channels = units // C, units % C
    places = (pixels // W * (W + 2 * MARGIN) + MARGIN + pixels % W) * STORED + channels
    at = values_ptr + rows[:, None].to(tl.int64) * (H * (W + 2 * MARGIN) * STORED) + places[None, :]
    there = (rows[:, None] < end) & (units[None, :] < H * W * C)
    values = tl.load(at, mask=there, other=0.0).to(tl.float32)
    kept = tl.where(draws >= level, values * tl.load(scales_ptr + member), 0.0)
    tl.store(at, kept.to(values_ptr.dtype.element_ty), mask=there)


def dropout(
    values: Tensor,
    pack: Pack,
    *,
    addresses: Tensor,
    levels: Tensor,
    scales: Tensor,
    layer: int,
    channels: int,
    margin: int = 0,
) -> None:
    """Drop units in place: of values on the way forward, of their gradient on the way back.

    Args:
        values: bfloat16 or float32 [R, H, W + 2 * margin, C'], or [R, C']; a member with level 0 is left
            alone.
        pack: whose images they are.
        addresses: int64 [P, 4]: seed, member id, epoch, place of the batch's first image.
        levels: int32 [P], ``drop_level`` of each member's rate.
        scales: float32 [P], what kept values are multiplied by: 1 / ``keep_probability``.
        layer: index among the network's dropout layers.
        channels: C, those of the channels that are real; the others are left alone.
        margin: columns left and right that are no pixels.
    """
    height, width, stored = values.shape[1:] if values.ndim == 4 else (1, 1, values.shape[1])
    width -= 2 * margin
    tiles = pack.tiles(items_per_image=1, size=SAMPLES_PER_BLOCK)
    dropout_kernel[(len(tiles), triton.cdiv(height * width * channels, _BLOCK_U))](
        values,
        tiles.table,
        pack.row_offsets,
        addresses,
        levels,
        scales,
        Stream.DROPOUT.indexed(layer),
        H=height,
        W=width,
        C=channels,
        STORED=stored,
        MARGIN=margin,
        BLOCK_U=_BLOCK_U,
        num_warps=4,
    )


def variants() -> Iterator[Variant]:
    """The hidden layers of the nws family, and the convolutions of the small-cnn family."""
    shapes = [(1, units) for units in sorted({width >> hidden for width in (64, 128, 192) for hidden in range(4)})]
    shapes += [(size, 16) for size in (15, 7, 3)]
    for size, channels in shapes:
        for dtype in ("bf16", "fp32"):
            yield Variant(
                kernel=dropout_kernel,
                name=f"dropout-{size}x{size}-{channels}-{dtype}",
                signature={
                    "values_ptr": f"*{dtype}",
                    "tiles_ptr": "*i32",
                    "row_offsets_ptr": "*i32",
                    "addresses_ptr": "*i64",
                    "levels_ptr": "*i32",
                    "scales_ptr": "*fp32",
                    "stream": "i32",
                },
                constexprs={
                    "H": size,
                    "W": size,
                    "C": channels,
                    "STORED": channels,
                    "MARGIN": 0,
                    "BLOCK_U": _BLOCK_U,
                },
            )

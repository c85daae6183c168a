"""A pack's batches for Triton: gathered by index from resident images, augmented, as the architecture sees them.

R images of a step, P members; H, W pixels. Images have four channels in memory, the last of them zero: a pixel
that is read is a word. A launch makes images as they are, another one those that are augmented, which take many
more registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..packs import Pack
from ..philox.triton import read_address
from ..triton_variant import Variant
from .reference import LUMA
from .triton_augment import augmented, channel_of

CHANNELS = 4

_CHANNELS = tl.constexpr(CHANNELS)
_RED, _GREEN, _BLUE = (tl.constexpr(weight) for weight in LUMA)


@triton.jit
def _shares(pixels, channel: tl.constexpr):
    """A byte of words divided by 255, exactly as a division rounds: what a product leaves over is added."""
    byte = channel_of(pixels, channel)
    share = byte * (1 / 255)
    return tl.fma(tl.fma(share, -255.0, byte), 1 / 255, share)


@triton.jit
def inputs_kernel(
    values_ptr, images_ptr, indices_ptr, tiles_ptr, row_offsets_ptr, addresses_ptr, augments_ptr, low, span,
    H: tl.constexpr, W: tl.constexpr, MARGIN: tl.constexpr, GREY: tl.constexpr, AUGMENT: tl.constexpr,
    GROUPS: tl.constexpr,
):  # fmt: skip
    """One image."""
    tile = tiles_ptr + tl.program_id(0) * 3
    member, row, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    if row == end:
        return
    if (tl.load(augments_ptr + member) != 0) != AUGMENT:  # the other launch's
        return
    image = images_ptr + tl.load(indices_ptr + row).to(tl.int64) * (H * W)
    pixels = tl.arange(0, GROUPS)[:, None] * 8 + tl.arange(0, 8)[None, :]
    inside = pixels < H * W
    if AUGMENT:
        seed, identity, epoch, first_place = read_address(addresses_ptr, member)
        sample = first_place + (row - tl.load(row_offsets_ptr + member)).to(tl.uint32)
        red, green, blue = augmented(image, seed, identity, epoch, sample, H, W, GROUPS)
    else:
        words = tl.load(image + pixels, mask=inside, other=0)
        red, green, blue = _shares(words, 0), _shares(words, 1), _shares(words, 2)

    dtype = values_ptr.dtype.element_ty
    zero = tl.zeros((GROUPS, 8), dtype)
    if GREY:
        first, second, third = ((red * _RED + green * _GREEN + blue * _BLUE) * span + low).to(dtype), zero, zero
    else:
        first, second = (low + span * red).to(dtype), (low + span * green).to(dtype)
        third = (low + span * blue).to(dtype)
    # Joined so that the channels of a pixel are next to each other, and the eight pixels of a group, which lie in
    # one row: threads side by side write what is side by side.
    GROUP: tl.constexpr = 8 * _CHANNELS
    colours = tl.reshape(tl.join(tl.join(first, third), tl.join(second, zero)), (GROUPS, GROUP))
    group = tl.arange(0, GROUPS) * 8
    places = (group // W * (W + 2 * MARGIN) + MARGIN + group % W) * _CHANNELS
    at = values_ptr + row.to(tl.int64) * (H * (W + 2 * MARGIN) * _CHANNELS) + places[:, None]
    tl.store(at + tl.arange(0, GROUP)[None, :], colours, mask=(group < H * W)[:, None])


def input_tiles(
    values: Tensor,
    pack: Pack,
    *,
    images: Tensor,
    indices: Tensor,
    addresses: Tensor,
    augments: Tensor,
    margin: int,
    grey: bool,
    low: float,
    high: float,
    augment: bool = True,
) -> None:
    """Write the images of a step, with what each member's augmentation makes of them.

    Args:
        values: bfloat16 or float32 [R, H, W + 2 * margin, 4], written inside the margins. Channels that are none
            become 0.
        pack: whose images they are.
        images: uint8 [n, H, W, 4], the resident images of all image sets; W a multiple of 8.
        indices: int32 [R], which of them.
        addresses: int64 [P, 4]: seed, member id, epoch, place of the batch's first image.
        augments: int32 [P], 0 for members whose images stay as they are.
        margin: columns left and right that are no pixels.
        grey: one channel of luma instead of three.
        low: what black becomes.
        high: what white becomes.
        augment: whether a member may have augmentation.

    Raises:
        ValueError: sizes do not fit.
    """
    _, H, W, channels = images.shape
    if values.shape[1:] != (H, W + 2 * margin, CHANNELS) or W % 8 or channels != CHANNELS:
        raise ValueError(f"images {tuple(images.shape)} do not fit values {tuple(values.shape)}, margin {margin}")
    tiles = pack.tiles(items_per_image=1, size=1)
    for augmented_ones in (False, True)[: 1 + augment]:
        inputs_kernel[(len(tiles),)](
            values, images.view(torch.int32), indices, tiles.table, pack.row_offsets, addresses, augments, low,
            high - low, **_constants(H, W, margin, grey, augmented_ones), num_warps=4,
        )  # fmt: skip


def _constants(height: int, width: int, margin: int, grey: bool, augment: bool) -> dict[str, int]:
    return {
        "H": height,
        "W": width,
        "MARGIN": margin,
        "GREY": grey,
        "AUGMENT": augment,
        "GROUPS": triton.next_power_of_2(height * width // 8),
    }


def variants() -> Iterator[Variant]:
    """Colour for the filters of the nws family, grey without margins for the small-cnn family."""
    seen = [(margin, False, augment) for margin in (1, 2, 3) for augment in (False, True)] + [(0, True, False)]
    for (margin, grey, augment), dtype in product(seen, ("bf16", "fp32")):
        yield Variant(
            kernel=inputs_kernel,
            name=f"inputs-m{margin}-{'grey' if grey else 'colour'}{'-augmented' if augment else ''}-{dtype}",
            signature={
                "values_ptr": f"*{dtype}",
                "images_ptr": "*i32",
                **dict.fromkeys(("indices_ptr", "tiles_ptr", "row_offsets_ptr", "augments_ptr"), "*i32"),
                "addresses_ptr": "*i64",
                "low": "fp32",
                "span": "fp32",
            },
            constexprs=_constants(32, 32, margin, grey, augment),
        )

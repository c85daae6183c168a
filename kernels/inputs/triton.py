"""A pack's batches for Triton: gathered by index from resident images, augmented, as the architecture sees them.

R images of a step, P members; H, W pixels, CN channels that an image has in memory. Three channels are stored as
four, the last of them zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from ..packs import Pack
from ..philox.triton import read_address
from ..triton_variant import Variant
from .reference import LUMA
from .triton_augment import augmented

COLOUR_CHANNELS = 4

_RED, _GREEN, _BLUE = (tl.constexpr(weight) for weight in LUMA)


@triton.jit
def inputs_kernel(
    values_ptr,
    images_ptr,
    indices_ptr,
    tiles_ptr,
    row_offsets_ptr,
    addresses_ptr,
    augments_ptr,
    low,
    span,
    H: tl.constexpr,
    W: tl.constexpr,
    CN: tl.constexpr,
    MARGIN: tl.constexpr,
    GREY: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """One image."""
    tile = tiles_ptr + tl.program_id(0) * 3
    member, row, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    if row == end:
        return
    image = images_ptr + tl.load(indices_ptr + row).to(tl.int64) * (H * W * 3)
    group, place = tl.arange(0, GROUPS)[:, None], tl.arange(0, 8)[None, :]
    pixels = group * 8 + place
    inside = pixels < H * W
    if tl.load(augments_ptr + member) != 0:
        seed, identity, epoch, first_place = read_address(addresses_ptr, member)
        sample = first_place + (row - tl.load(row_offsets_ptr + member)).to(tl.uint32)
        red, green, blue = augmented(image, seed, identity, epoch, sample, group, place, H, W)
    else:
        red = tl.div_rn(tl.load(image + pixels * 3, mask=inside, other=0).to(tl.float32), 255.0)
        green = tl.div_rn(tl.load(image + pixels * 3 + 1, mask=inside, other=0).to(tl.float32), 255.0)
        blue = tl.div_rn(tl.load(image + pixels * 3 + 2, mask=inside, other=0).to(tl.float32), 255.0)

    dtype = values_ptr.dtype.element_ty
    places = (pixels // W * (W + 2 * MARGIN) + MARGIN + pixels % W) * CN
    at = values_ptr + row.to(tl.int64) * (H * (W + 2 * MARGIN) * CN) + places
    zero = tl.zeros((GROUPS, 8), dtype)
    if GREY:
        luma = ((red * _RED + green * _GREEN + blue * _BLUE) * span + low).to(dtype)
        tl.store(at, luma, mask=inside)
        for channel in tl.static_range(1, CN):
            tl.store(at + channel, zero, mask=inside)
    else:
        # Joined so that the channels of a pixel are next to each other: (r, b) and (g, 0) give r, g, b, 0.
        left = tl.join((low + span * red).to(dtype), (low + span * blue).to(dtype))
        right = tl.join((low + span * green).to(dtype), zero)
        colours = tl.reshape(tl.join(left, right), (GROUPS, 8, CN))
        channels = tl.arange(0, CN)
        tl.store(at[:, :, None] + channels[None, None, :], colours, mask=inside[:, :, None])


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
) -> None:
    """Write the images of a step, with what each member's augmentation makes of them.

    Args:
        values: bfloat16 or float32 [R, H, W + 2 * margin, CN], written inside the margins; CN is 4, or any number
            where the input is grey. Channels that are none become 0.
        pack: whose images they are.
        images: uint8 [n, H, W, 3], the resident images of all image sets; H * W a multiple of 8.
        indices: int32 [R], which of them.
        addresses: int64 [P, 4]: seed, member id, epoch, place of the batch's first image.
        augments: int32 [P], 0 for members whose images stay as they are.
        margin: columns left and right that are no pixels.
        grey: one channel of luma instead of three.
        low: what black becomes.
        high: what white becomes.

    Raises:
        ValueError: sizes do not fit.
    """
    _, H, W, _ = images.shape
    if values.shape[1:3] != (H, W + 2 * margin) or H * W % 8 or not (grey or values.shape[3] == COLOUR_CHANNELS):
        raise ValueError(f"images {tuple(images.shape)} do not fit values {tuple(values.shape)}, margin {margin}")
    tiles = pack.tiles(items_per_image=1, size=1)
    inputs_kernel[(len(tiles),)](
        values,
        images,
        indices,
        tiles.table,
        pack.row_offsets,
        addresses,
        augments,
        low,
        high - low,
        H=H,
        W=W,
        CN=values.shape[3],
        MARGIN=margin,
        GREY=grey,
        GROUPS=triton.next_power_of_2(H * W // 8),
        num_warps=4,
    )


def variants() -> Iterator[Variant]:
    """Colour for the filters of the nws family, grey without margins for the small-cnn family."""
    for margin, grey, channels in ((1, False, 4), (2, False, 4), (3, False, 4), (0, True, 1), (0, True, 4)):
        for dtype in ("bf16", "fp32"):
            yield Variant(
                kernel=inputs_kernel,
                name=f"inputs-m{margin}-c{channels}-{'grey' if grey else 'colour'}-{dtype}",
                signature={
                    "values_ptr": f"*{dtype}",
                    "images_ptr": "*u8",
                    **dict.fromkeys(("indices_ptr", "tiles_ptr", "row_offsets_ptr", "augments_ptr"), "*i32"),
                    "addresses_ptr": "*i64",
                    "low": "fp32",
                    "span": "fp32",
                },
                constexprs={"H": 32, "W": 32, "CN": channels, "MARGIN": margin, "GREY": grey, "GROUPS": 128},
            )

"""Convolutions of a pack on the GPU, forward and input gradient: one product of windows and bands serves both.

Letters of shapes: R images of all members, H W C pixels and channels, M the margin of zeros that lies left and
right of every row of pixels, P members, K filter side, T tiles, J window values, N columns of a super-pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..batchnorm.moments import Moments
from ..packs import Pack
from ..triton_first_level import respect_cache_modifiers
from ..triton_layout import check_part, margin_of
from ..triton_variant import Variant
from .shapes import (
    ConvShape,
    Precision,
    Product,
    Tiling,
    forward_product,
    forward_tiling,
    gradient_product,
    gradient_tiling,
    known_shapes,
)

respect_cache_modifiers()

_BAND_ROWS = 16
_IMAGE_SIDE = 32  # of the presets


@triton.jit
def band_kernel(
    w_ptr, band_ptr, w_stride,
    KERNEL: tl.constexpr, SOURCE: tl.constexpr, TARGET: tl.constexpr, PIXELS: tl.constexpr, DOWN: tl.constexpr,
    UP: tl.constexpr, SHIFT: tl.constexpr, REVERSE: tl.constexpr, PADDED: tl.constexpr, COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Write a member's filter [K, K, C, O] along the band [K, J, N]."""
    member, row = tl.program_id(0).to(tl.int64), tl.program_id(1)
    value = (tl.program_id(2) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inner, outer = value % SOURCE, column % TARGET
    if REVERSE:
        tap = SHIFT + column // TARGET - UP * (value // SOURCE)
        place = (((KERNEL - 1 - row) * KERNEL + tap) * TARGET + outer) * SOURCE + inner
    else:
        tap = value // SOURCE - DOWN * (column // TARGET)
        place = ((row * KERNEL + tap) * SOURCE + inner) * TARGET + outer
    there = (tap >= 0) & (tap < KERNEL) & (column < PIXELS * TARGET)
    weight = tl.load(w_ptr + member * w_stride + place, mask=there, other=0.0)
    at = ((member * KERNEL + row) * PADDED + value) * COLUMNS + column
    tl.store(band_ptr + at, weight.to(band_ptr.dtype.element_ty), mask=value < PADDED)


@triton.jit
def product_kernel(
    source_ptr, band_ptr, bias_ptr, target_ptr, moments_ptr, tile_ptr, bias_stride,
    SOURCE_HEIGHT: tl.constexpr, SOURCE_PITCH: tl.constexpr, SOURCE: tl.constexpr, SOURCE_WIDTH: tl.constexpr,
    SOURCE_MARGIN: tl.constexpr, TARGET_HEIGHT: tl.constexpr, TARGET_PITCH: tl.constexpr, TARGET: tl.constexpr,
    TARGET_WIDTH: tl.constexpr, TARGET_MARGIN: tl.constexpr, KERNEL: tl.constexpr, PIXELS: tl.constexpr,
    DOWN: tl.constexpr, UP: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr, VALUES: tl.constexpr,
    PADDED: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
    MASK_COLUMNS: tl.constexpr, BIAS: tl.constexpr, MOMENTS: tl.constexpr,
):  # fmt: skip
    """One tile of super-pixels: windows [ROWS, J] times the member's band [J, N], filter row by filter row."""
    tile = tl.program_id(0)
    member = tl.load(tile_ptr + 3 * tile).to(tl.int64)
    first, end = tl.load(tile_ptr + 3 * tile + 1), tl.load(tile_ptr + 3 * tile + 2)
    if first >= end:
        return
    ACROSS: tl.constexpr = (TARGET_WIDTH + PIXELS - 1) // PIXELS
    CHUNKS: tl.constexpr = PADDED // CHUNK
    item = first + tl.arange(0, ROWS)
    live = item < end
    across, line = item % ACROSS, item // ACROSS
    image, down = line // TARGET_HEIGHT, line % TARGET_HEIGHT * DOWN - TOP
    # A multiple of the super-pixel plus a constant, so that the compiler sees how it is aligned.
    start = across * (PIXELS * DOWN // UP * SOURCE) + (SOURCE_MARGIN - LEFT) * SOURCE
    column, inside = tl.arange(0, COLUMNS), tl.arange(0, CHUNK)
    band_ptr += member * (KERNEL * PADDED * COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in tl.range(0, KERNEL * CHUNKS, num_stages=STAGES):
        value = step % CHUNKS * CHUNK + inside
        seen = down + step // CHUNKS
        there = live & (seen >= 0) & (seen < SOURCE_HEIGHT * UP)
        if UP > 1:
            there = there & (seen % UP == 0)
            seen = seen // UP
        mask = there[:, None]
        if VALUES != PADDED:
            mask = mask & (value < VALUES)[None, :]
        if MASK_COLUMNS:
            pixel = (across * (PIXELS * DOWN // UP) - LEFT)[:, None] + (value // SOURCE)[None, :]
            mask = mask & (pixel >= 0) & (pixel < SOURCE_WIDTH)
        row = (image * SOURCE_HEIGHT + seen).to(tl.int64) * SOURCE_PITCH + start
        # Windows overlap: they are to meet in the first-level cache, which copies of 16 bytes bypass by default.
        window = tl.load(source_ptr + row[:, None] + value[None, :], mask=mask, other=0.0, cache_modifier=".ca")
        band = tl.load(band_ptr + (step * CHUNK + inside)[:, None] * COLUMNS + column[None, :])
        total = tl.dot(window, band, total, input_precision="tf32x3")
    mask = live[:, None] & (column < PIXELS * TARGET)[None, :]
    if TARGET_WIDTH % PIXELS != 0:
        mask = mask & ((across * PIXELS)[:, None] + (column // TARGET)[None, :] < TARGET_WIDTH)
    if BIAS:
        bias = tl.load(bias_ptr + member * bias_stride + column % TARGET, mask=column < PIXELS * TARGET, other=0.0)
        total += bias[None, :]
    made = total.to(target_ptr.dtype.element_ty)
    place = line.to(tl.int64) * TARGET_PITCH + across * (PIXELS * TARGET) + TARGET_MARGIN * TARGET
    tl.store(target_ptr + place[:, None] + column[None, :], made, mask=mask)
    if MOMENTS:  # of what was stored, rounded, since that is what will be normalised
        number = made.to(tl.float32)
        if BIAS or TARGET_WIDTH % PIXELS != 0:  # without either, what is not there is 0
            number = tl.where(mask, number, 0.0)
        count = tl.zeros((COLUMNS,), tl.float32) + (end - first)
        if TARGET_WIDTH % PIXELS != 0:
            count = tl.sum(mask.to(tl.float32), 0)
        mean = tl.sum(number, 0) / tl.maximum(count, 1.0)
        away = tl.where(mask, number - mean[None, :], 0.0)
        at = moments_ptr + tile.to(tl.int64) * (3 * COLUMNS) + column
        tl.store(at, count)
        tl.store(at + COLUMNS, mean)
        tl.store(at + 2 * COLUMNS, tl.sum(away * away, 0))


def convolve(
    x: Tensor, w: Tensor, y: Tensor, *, shape: ConvShape, pack: Pack, bias: Tensor | None = None,
    moments: bool = False, tiling: Tiling | None = None,
) -> Moments | None:  # fmt: skip
    """Convolve every member's images with its own filters.

    Args:
        x: bfloat16 or float32 [R, H, W + 2 M, C]; margins are zero.
        w: float32 [P, K, K, C, O], which may be a part of the members' vectors.
        y: what is made, as ``x`` [R, H', W' + 2 M', O]; its margins are left as they are.
        shape: sizes.
        pack: which images belong to whom.
        bias: float32 [P, O].
        moments: whether to return what batch normalisation needs to know of ``y``.
        tiling: what to cut it into, if not what suits the sizes.

    Raises:
        ValueError: a tensor has another shape, dtype or memory layout.
    """
    tiling = tiling or forward_tiling(shape, _precision(x))
    return _multiply(x, w, y, forward_product(shape, tiling), shape, pack, bias, moments, reverse=False)


def input_gradient(
    dy: Tensor, w: Tensor, dx: Tensor, *, shape: ConvShape, pack: Pack, tiling: Tiling | None = None
) -> None:
    """The gradient of a convolution's input.

    Args:
        dy: the gradient of the output, bfloat16 or float32 [R, H', W' + 2 M', O]; margins are zero.
        w: float32 [P, K, K, C, O], which may be a part of the members' vectors.
        dx: what is made, as ``dy`` [R, H, W + 2 M, C]; its margins are left as they are.
        shape: sizes.
        pack: which images belong to whom.
        tiling: what to cut it into, if not what suits the sizes.

    Raises:
        ValueError: a tensor has another shape, dtype or memory layout.
    """
    tiling = tiling or gradient_tiling(shape, _precision(dy))
    _multiply(dy, w, dx, gradient_product(shape, tiling), shape, pack, None, False, reverse=True)


def _multiply(
    source: Tensor, w: Tensor, target: Tensor, product: Product, shape: ConvShape, pack: Pack,
    bias: Tensor | None, moments: bool, *, reverse: bool,
) -> Moments | None:  # fmt: skip
    margins = margin_of("source", source, product.source), margin_of("target", target, product.target)
    check_part("w", w, (pack.members, shape.kernel, shape.kernel, shape.channels, shape.outputs))
    if bias is not None:
        check_part("bias", bias, (pack.members, shape.outputs))
    if source.dtype != target.dtype or len(source) < pack.images or len(target) < pack.images:
        raise ValueError(f"both tensors must be of one dtype and have room for {pack.images} images")
    kernel, padded, columns = product.kernel, product.padded_window, product.columns
    band = source.new_empty(pack.members, kernel, padded, columns)
    band_kernel[(pack.members, kernel, triton.cdiv(padded, _BAND_ROWS))](
        w, band, w.stride(0), **_band_constants(product, reverse)
    )
    tiles = pack.tiles(items_per_image=product.items, size=product.tiling.rows)
    parts = torch.empty(len(tiles) if moments else 1, 3, columns, dtype=torch.float32, device=source.device)
    product_kernel[(len(tiles),)](
        source, band, w if bias is None else bias, target, parts, tiles.table,
        0 if bias is None else bias.stride(0),
        **_product_constants(product, *margins, bias=bias is not None, moments=moments),
        num_warps=product.tiling.num_warps,
    )  # fmt: skip
    return Moments(parts=parts, first=tiles.first, copies=product.tiling.pixels) if moments else None


def _precision(tensor: Tensor) -> Precision:
    return "fp32" if tensor.dtype == torch.float32 else "bf16"


def _band_constants(product: Product, reverse: bool) -> dict[str, Any]:
    return {
        "KERNEL": product.kernel,
        "SOURCE": product.source[2],
        "TARGET": product.target[2],
        "PIXELS": product.tiling.pixels,
        "DOWN": product.down,
        "UP": product.up,
        "SHIFT": product.shift,
        "REVERSE": reverse,
        "PADDED": product.padded_window,
        "COLUMNS": product.columns,
        "ROWS": _BAND_ROWS,
    }


def _product_constants(
    product: Product, source_margin: int, target_margin: int, *, bias: bool, moments: bool
) -> dict[str, Any]:
    (source_height, source_width, source), (height, width, target) = product.source, product.target
    return {
        "SOURCE_HEIGHT": source_height,
        "SOURCE_PITCH": (source_width + 2 * source_margin) * source,
        "SOURCE": source,
        "SOURCE_WIDTH": source_width,
        "SOURCE_MARGIN": source_margin,
        "TARGET_HEIGHT": height,
        "TARGET_PITCH": (width + 2 * target_margin) * target,
        "TARGET": target,
        "TARGET_WIDTH": width,
        "TARGET_MARGIN": target_margin,
        "KERNEL": product.kernel,
        "PIXELS": product.tiling.pixels,
        "DOWN": product.down,
        "UP": product.up,
        "TOP": product.top,
        "LEFT": product.left,
        "VALUES": product.window_values,
        "PADDED": product.padded_window,
        "COLUMNS": product.columns,
        "ROWS": product.tiling.rows,
        "CHUNK": product.tiling.chunk,
        "STAGES": product.tiling.num_stages,
        "MASK_COLUMNS": not product.within(source_margin),
        "BIAS": bias,
        "MOMENTS": moments,
    }


def variants() -> Iterator[Variant]:
    """Every form that the presets can ask for."""
    for shape in known_shapes():
        for precision, pointer in (("bf16", "*bf16"), ("fp32", "*fp32")):
            yield from _variants(shape, precision, pointer)  # type: ignore[arg-type]


def _variants(shape: ConvShape, precision: Precision, pointer: str) -> Iterator[Variant]:
    name = f"k{shape.kernel}-{shape.height}x{shape.width}-{shape.channels}-{shape.outputs}-{precision}"
    forward = forward_product(shape, forward_tiling(shape, precision))
    gradient = gradient_product(shape, gradient_tiling(shape, precision))
    margin = (shape.kernel - 1) // 2 if shape.padding == "same" else 0
    is_first = shape.height == _IMAGE_SIDE  # the images need no gradient
    for what, product, bias, moments in (
        ("convolve-moments", forward, False, True),
        ("convolve", forward, False, False),
        ("convolve-bias", forward, True, False),
        ("input-gradient", gradient, False, False),
    )[: 4 - is_first]:
        yield Variant(
            kernel=product_kernel,
            name=f"{what}-{name}",
            signature={
                "source_ptr": pointer,
                "band_ptr": pointer,
                "bias_ptr": "*fp32",
                "target_ptr": pointer,
                "moments_ptr": "*fp32",
                "tile_ptr": "*i32",
                "bias_stride": "i32",
            },
            constexprs=_product_constants(
                product, margin, margin if product is gradient else 0, bias=bias, moments=moments
            ),
            num_warps=product.tiling.num_warps,
            num_stages=product.tiling.num_stages,
            needs_matrix=True,
            aligned=("bias_stride",),
        )
    for what, product, reverse in (("band", forward, False), ("reversed-band", gradient, True))[: 2 - is_first]:
        yield Variant(
            kernel=band_kernel,
            name=f"{what}-{name}",
            signature={"w_ptr": "*fp32", "band_ptr": pointer, "w_stride": "i32"},
            constexprs=_band_constants(product, reverse),
            aligned=("w_stride",),
        )

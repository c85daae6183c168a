"""Weight gradients of a pack's convolutions on the GPU: windows transposed times the output's gradient.

A member's super-pixels are split into long tiles, each of which leaves its own sum; a second kernel adds the
sums in order, and what lies along the band. Nothing is added atomically: the same bits every time. Letters of
shapes are those of ``triton.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..packs import Pack
from ..triton_first_level import respect_cache_modifiers
from ..triton_layout import check_part, margin_of
from ..triton_variant import Variant
from .shapes import ConvShape, Product, Tiling, forward_product, known_shapes, weight_tiling

respect_cache_modifiers()

_FOLD_ROWS = 256
_PROGRAMS = 512  # tiles of a pack, about: enough to fill a GPU a few times


@triton.jit
def weight_gradient_kernel(
    x_ptr, dy_ptr, parts_ptr, bias_parts_ptr, tile_ptr,
    HEIGHT: tl.constexpr, X_PITCH: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
    X_MARGIN: tl.constexpr, OUT_HEIGHT: tl.constexpr, Y_PITCH: tl.constexpr, OUTPUTS: tl.constexpr,
    OUT_WIDTH: tl.constexpr, Y_MARGIN: tl.constexpr, KERNEL: tl.constexpr, PIXELS: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr, VALUES: tl.constexpr, COLUMNS: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr, MASK_COLUMNS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """One tile's sums for ROWS of the KERNEL * VALUES window values of all filter rows."""
    tile, block = tl.program_id(0), tl.program_id(1)
    first, end = tl.load(tile_ptr + 3 * tile + 1), tl.load(tile_ptr + 3 * tile + 2)
    if first >= end:
        return
    ACROSS: tl.constexpr = (OUT_WIDTH + PIXELS - 1) // PIXELS
    place = block * ROWS + tl.arange(0, ROWS)
    row, value = place // VALUES, place % VALUES
    column = tl.arange(0, COLUMNS)
    offset = (row - TOP) * X_PITCH + (X_MARGIN - LEFT) * CHANNELS + value
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    bias = tl.zeros((COLUMNS,), tl.float32)
    for start in tl.range(first, end, CHUNK, num_stages=STAGES):
        item = start + tl.arange(0, CHUNK)
        live = item < end
        across, line = item % ACROSS, item // ACROSS
        image, down = line // OUT_HEIGHT, line % OUT_HEIGHT * STRIDE
        seen = (down - TOP)[:, None] + row[None, :]
        mask = live[:, None] & (seen >= 0) & (seen < HEIGHT) & (row < KERNEL)[None, :]
        if MASK_COLUMNS:
            pixel = (across * (PIXELS * STRIDE) - LEFT)[:, None] + (value // CHANNELS)[None, :]
            mask = mask & (pixel >= 0) & (pixel < WIDTH)
        at = (image * HEIGHT + down).to(tl.int64) * X_PITCH + across * (PIXELS * STRIDE * CHANNELS)
        # Windows overlap, as in ``product_kernel``.
        window = tl.load(x_ptr + at[:, None] + offset[None, :], mask=mask, other=0.0, cache_modifier=".ca")
        there = live[:, None] & (column < PIXELS * OUTPUTS)[None, :]
        if OUT_WIDTH % PIXELS != 0:
            there = there & ((across * PIXELS)[:, None] + (column // OUTPUTS)[None, :] < OUT_WIDTH)
        at = line.to(tl.int64) * Y_PITCH + across * (PIXELS * OUTPUTS) + Y_MARGIN * OUTPUTS
        d = tl.load(dy_ptr + at[:, None] + column[None, :], mask=there, other=0.0)
        total = tl.dot(tl.trans(window), d, total, input_precision="tf32x3")
        if BIAS:
            bias += tl.sum(d.to(tl.float32), 0)
    blocks = tl.num_programs(1)
    at = (tile.to(tl.int64) * blocks * ROWS + place)[:, None] * COLUMNS + column[None, :]
    tl.store(parts_ptr + at, total)
    if BIAS:
        if block == 0:
            tl.store(bias_parts_ptr + tile.to(tl.int64) * COLUMNS + column, bias)


@triton.jit
def fold_kernel(
    parts_ptr, dw_ptr, first_ptr, dw_stride, part_rows,
    KERNEL: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, PIXELS: tl.constexpr,
    STRIDE: tl.constexpr, VALUES: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Add a member's tiles, in order, and what lies along the band, to its gradient [K, K, C, O]."""
    member = tl.program_id(0).to(tl.int64)
    weight = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    there = weight < KERNEL * KERNEL * CHANNELS * OUTPUTS
    outer, inner = weight % OUTPUTS, weight // OUTPUTS % CHANNELS
    tap, row = weight // (OUTPUTS * CHANNELS) % KERNEL, weight // (OUTPUTS * CHANNELS * KERNEL)
    total = tl.zeros((ROWS,), tl.float32)
    first, end = tl.load(first_ptr + member), tl.load(first_ptr + member + 1)
    part = parts_ptr + first.to(tl.int64) * part_rows * COLUMNS
    for _ in range(first, end):
        for pixel in tl.static_range(PIXELS):
            place = row * VALUES + (pixel * STRIDE + tap) * CHANNELS + inner
            total += tl.load(part + place * COLUMNS + pixel * OUTPUTS + outer, mask=there, other=0.0)
        part += part_rows * COLUMNS
    tl.store(dw_ptr + member * dw_stride + weight, total, mask=there)


def weight_gradient(
    x: Tensor, dy: Tensor, dw: Tensor, *, shape: ConvShape, pack: Pack, db: Tensor | None = None,
    tiling: Tiling | None = None, split: int | None = None,
) -> None:  # fmt: skip
    """The gradient of every member's filters, and of its bias.

    Args:
        x: the input, bfloat16 or float32 [R, H, W + 2 M, C]; margins are zero.
        dy: the gradient of the output, as ``x`` [R, H', W' + 2 M', O].
        dw: what is made, float32 [P, K, K, C, O]; 0 for a member without images.
        shape: sizes.
        pack: which images belong to whom.
        db: what is made, float32 [P, O]; None if the bias has no gradient.
        tiling: what to cut it into, if not what suits the sizes.
        split: super-pixels of a tile, if not what suits the pack.

    Raises:
        ValueError: a tensor has another shape, dtype or memory layout.
    """
    tiling = tiling or weight_tiling(shape, "fp32" if x.dtype == torch.float32 else "bf16")
    product = forward_product(shape, tiling)
    margins = margin_of("x", x, product.source), margin_of("dy", dy, product.target)
    if x.dtype != dy.dtype or min(len(x), len(dy)) < pack.images:
        raise ValueError(f"`x` and `dy` must be of one dtype and have room for {pack.images} images")
    check_part("dw", dw, (pack.members, shape.kernel, shape.kernel, shape.channels, shape.outputs))
    if db is not None:
        check_part("db", db, (pack.members, shape.outputs))
    chunks = triton.cdiv(pack.images * product.items, _PROGRAMS * tiling.chunk)
    tiles = pack.tiles(items_per_image=product.items, size=split or max(16, chunks) * tiling.chunk)
    blocks = triton.cdiv(shape.kernel * product.window_values, tiling.rows)
    parts = torch.empty(len(tiles), blocks * tiling.rows, product.columns, dtype=torch.float32, device=x.device)
    bias_parts = parts.new_empty(len(tiles), 1, product.columns)
    weight_gradient_kernel[(len(tiles), blocks)](
        x, dy, parts, bias_parts, tiles.table,
        **_constants(product, *margins, bias=db is not None), num_warps=tiling.num_warps,
    )  # fmt: skip
    fold_kernel[(pack.members, triton.cdiv(dw[0].numel(), _FOLD_ROWS))](
        parts, dw, tiles.first, dw.stride(0), parts.shape[1], **_fold_constants(product)
    )
    if db is not None:
        fold_kernel[(pack.members, triton.cdiv(shape.outputs, _FOLD_ROWS))](
            bias_parts, db, tiles.first, db.stride(0), 1, **_bias_constants(product)
        )


def _constants(product: Product, x_margin: int, y_margin: int, *, bias: bool) -> dict[str, Any]:
    (height, width, channels), (out_height, out_width, outputs) = product.source, product.target
    return {
        "HEIGHT": height,
        "X_PITCH": (width + 2 * x_margin) * channels,
        "CHANNELS": channels,
        "WIDTH": width,
        "X_MARGIN": x_margin,
        "OUT_HEIGHT": out_height,
        "Y_PITCH": (out_width + 2 * y_margin) * outputs,
        "OUTPUTS": outputs,
        "OUT_WIDTH": out_width,
        "Y_MARGIN": y_margin,
        "KERNEL": product.kernel,
        "PIXELS": product.tiling.pixels,
        "STRIDE": product.down,
        "TOP": product.top,
        "LEFT": product.left,
        "VALUES": product.window_values,
        "COLUMNS": product.columns,
        "ROWS": product.tiling.rows,
        "CHUNK": product.tiling.chunk,
        "STAGES": product.tiling.num_stages,
        "MASK_COLUMNS": not product.within(x_margin),
        "BIAS": bias,
    }


def _fold_constants(product: Product) -> dict[str, Any]:
    return {
        "KERNEL": product.kernel,
        "CHANNELS": product.source[2],
        "OUTPUTS": product.target[2],
        "PIXELS": product.tiling.pixels,
        "STRIDE": product.down,
        "VALUES": product.window_values,
        "COLUMNS": product.columns,
        "ROWS": _FOLD_ROWS,
    }


def _bias_constants(product: Product) -> dict[str, Any]:
    """A bias is a filter of one place that sees one channel, which is 1, at every pixel of a super-pixel."""
    return {**_fold_constants(product), "KERNEL": 1, "CHANNELS": 1, "STRIDE": 0, "VALUES": 1}


def variants() -> Iterator[Variant]:
    """Every form that the presets can ask for."""
    for shape in known_shapes():
        margin = (shape.kernel - 1) // 2 if shape.padding == "same" else 0
        for precision, pointer in (("bf16", "*bf16"), ("fp32", "*fp32")):
            product = forward_product(shape, weight_tiling(shape, precision))  # type: ignore[arg-type]
            name = f"k{shape.kernel}-{shape.height}x{shape.width}-{shape.channels}-{shape.outputs}-{precision}"
            for bias in (False, True):
                yield Variant(
                    kernel=weight_gradient_kernel,
                    name=f"weight-gradient{'-bias' if bias else ''}-{name}",
                    signature={
                        "x_ptr": pointer,
                        "dy_ptr": pointer,
                        "parts_ptr": "*fp32",
                        "bias_parts_ptr": "*fp32",
                        "tile_ptr": "*i32",
                    },
                    constexprs=_constants(product, margin, margin, bias=bias),
                    num_warps=product.tiling.num_warps,
                    num_stages=product.tiling.num_stages,
                    needs_matrix=True,
                )
            if precision == "bf16":
                for what, constants in (
                    ("fold", _fold_constants(product)),
                    ("fold-bias", _bias_constants(product)),
                ):
                    yield Variant(
                        kernel=fold_kernel,
                        name=f"{what}-{name}",
                        signature={
                            "parts_ptr": "*fp32",
                            "dw_ptr": "*fp32",
                            "first_ptr": "*i32",
                            "dw_stride": "i32",
                            "part_rows": "i32",
                        },
                        constexprs=constants,
                        aligned=("dw_stride",),
                    )

"""Linear layers of a pack on the GPU: forward, input gradient and weight gradient as grouped matrix products.

Letters of shapes: R rows of all members, P members, K inputs in K' >= K stored, N outputs in N' >= N stored. What
is only stored is never read, and written as 0. Weights are float32, rounded to the rows' dtype as they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..packs import Pack
from ..triton_layout import check_part, power_of_two
from ..triton_variant import Variant

_ROWS = 64
_LARGEST_BLOCK = 64


@triton.jit
def linear_kernel(
    x_ptr, w_ptr, bias_ptr, y_ptr, tile_ptr, w_stride, bias_stride,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, X_STORED: tl.constexpr, Y_STORED: tl.constexpr,
    W_STORED: tl.constexpr, TRANSPOSED: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One tile of rows [ROWS, INPUTS] times COLUMNS of the member's weights, or of their transpose."""
    tile = tl.program_id(0)
    member = tl.load(tile_ptr + 3 * tile).to(tl.int64)
    first, end = tl.load(tile_ptr + 3 * tile + 1), tl.load(tile_ptr + 3 * tile + 2)
    if first >= end:
        return
    row = first + tl.arange(0, ROWS)
    live, wide = (row < end)[:, None], row.to(tl.int64)[:, None]
    column, inside = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, CHUNK)
    there = (column < OUTPUTS)[None, :]
    w_ptr += member * w_stride
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in tl.range(0, INPUTS, CHUNK, num_stages=STAGES):
        value = start + inside
        x = tl.load(x_ptr + wide * X_STORED + value[None, :], mask=live & (value < INPUTS)[None, :], other=0.0)
        if TRANSPOSED:
            # Read along the weights' rows, as they lie, and turned afterwards.
            mask = (column < OUTPUTS)[:, None] & (value < INPUTS)[None, :]
            w = tl.load(w_ptr + column[:, None] * W_STORED + value[None, :], mask=mask, other=0.0)
            w = tl.trans(w.to(x.dtype))
        else:
            mask = (value < INPUTS)[:, None] & there
            w = tl.load(w_ptr + value[:, None] * W_STORED + column[None, :], mask=mask, other=0.0)
            w = w.to(x.dtype)
        total = tl.dot(x, w, total, input_precision="tf32x3")
    if BIAS:
        total += tl.load(bias_ptr + member * bias_stride + column, mask=column < OUTPUTS, other=0.0)[None, :]
    made = tl.where(there, total, 0.0).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + wide * Y_STORED + column[None, :], made, mask=live & (column < Y_STORED)[None, :])


@triton.jit
def weight_kernel(
    x_ptr, dy_ptr, dw_ptr, db_ptr, row_offset_ptr, dw_stride, db_stride,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, X_STORED: tl.constexpr, Y_STORED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A block [ROWS, COLUMNS] of one member's gradient, over all of its rows in their order."""
    member = tl.program_id(0).to(tl.int64)
    value = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    first, end = tl.load(row_offset_ptr + member), tl.load(row_offset_ptr + member + 1)
    total, bias = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((COLUMNS,), tl.float32)
    for start in tl.range(first, end, CHUNK, num_stages=STAGES):
        row = start + tl.arange(0, CHUNK)
        live, wide = (row < end)[:, None], row.to(tl.int64)[:, None]
        x = tl.load(x_ptr + wide * X_STORED + value[None, :], mask=live & (value < INPUTS)[None, :], other=0.0)
        d = tl.load(dy_ptr + wide * Y_STORED + column[None, :], mask=live & (column < OUTPUTS)[None, :], other=0.0)
        total = tl.dot(tl.trans(x), d, total, input_precision="tf32x3")
        bias += tl.sum(d.to(tl.float32), 0)
    total = tl.where((column < OUTPUTS)[None, :], total, 0.0)
    at = dw_ptr + member * dw_stride + value[:, None] * Y_STORED + column[None, :]
    tl.store(at, total, mask=(value < INPUTS)[:, None] & (column < Y_STORED)[None, :])
    if tl.program_id(1) == 0:
        tl.store(db_ptr + member * db_stride + column, bias, mask=column < OUTPUTS)


def linear(x: Tensor, w: Tensor, bias: Tensor, y: Tensor, *, pack: Pack) -> None:
    """Multiply every member's rows by its own weights, and add its bias.

    Args:
        x: bfloat16 or float32 [R, K'].
        w: float32 [P, K, N'], which may be a part of the members' vectors.
        bias: as ``w``, [P, N].
        y: what is made, as ``x`` [R, N'].
        pack: which rows belong to whom.

    Raises:
        ValueError: a tensor has another shape, dtype or memory layout.
    """
    outputs = _check(x, w, y, bias, pack)
    tiles = pack.tiles(items_per_image=1, size=_ROWS)
    constants = _linear_constants(
        w.shape[1], outputs, x.shape[1], y.shape[1], w.shape[2], transposed=False, wide=x.dtype == torch.float32
    )
    linear_kernel[(len(tiles), triton.cdiv(y.shape[1], constants["COLUMNS"]))](
        x, w, bias, y, tiles.table, w.stride(0), bias.stride(0), **constants
    )


def input_gradient(dy: Tensor, w: Tensor, dx: Tensor, *, outputs: int, pack: Pack) -> None:
    """The gradient of a linear layer's input.

    Args:
        dy: the gradient of the output, bfloat16 or float32 [R, N'].
        w: float32 [P, K, N'], which may be a part of the members' vectors.
        dx: what is made, as ``dy`` [R, K'].
        outputs: N.
        pack: which rows belong to whom.

    Raises:
        ValueError: a tensor has another shape, dtype or memory layout.
    """
    _check(dx, w, dy, w[:, 0, :outputs], pack)
    tiles = pack.tiles(items_per_image=1, size=_ROWS)
    constants = _linear_constants(
        outputs, w.shape[1], dy.shape[1], dx.shape[1], w.shape[2], transposed=True, wide=dy.dtype == torch.float32
    )
    linear_kernel[(len(tiles), triton.cdiv(dx.shape[1], constants["COLUMNS"]))](
        dy, w, w, dx, tiles.table, w.stride(0), 0, **constants
    )


def weight_gradient(x: Tensor, dy: Tensor, dw: Tensor, db: Tensor, *, pack: Pack) -> None:
    """The gradients of every member's weights and bias.

    Args:
        x: the input, bfloat16 or float32 [R, K'].
        dy: the gradient of the output, as ``x`` [R, N'].
        dw: what is made, float32 [P, K, N'], which may be a part of the members' vectors; 0 for a member without
            rows.
        db: as ``dw``, [P, N].
        pack: which rows belong to whom.

    Raises:
        ValueError: a tensor has another shape, dtype or memory layout.
    """
    outputs = _check(x, dw, dy, db, pack)
    constants = _weight_constants(dw.shape[1], outputs, x.shape[1], dy.shape[1])
    blocks = triton.cdiv(dw.shape[1], constants["ROWS"]), triton.cdiv(dy.shape[1], constants["COLUMNS"])
    weight_kernel[(pack.members, *blocks)](
        x, dy, dw, db, pack.row_offsets, dw.stride(0), db.stride(0), **constants
    )


def _check(x: Tensor, w: Tensor, y: Tensor, bias: Tensor, pack: Pack) -> int:
    """N, if all fits together."""
    for name, rows in (("x", x), ("y", y)):
        fits = rows.ndim == 2 and rows.is_contiguous() and len(rows) >= pack.images and rows.dtype == x.dtype
        if not fits or rows.dtype not in (torch.bfloat16, torch.float32):
            raise ValueError(
                f"`{name}` ({rows.dtype} {list(rows.shape)}) must be contiguous rows, bfloat16 or float32 as the "
                f"other rows are, and at least {pack.images} of them"
            )
    if w.ndim != 3 or w.shape[1] > x.shape[1]:
        raise ValueError(
            f"`w` ({list(w.shape)}) must be [members, inputs, outputs] for {x.shape[1]} stored inputs"
        )
    check_part("w", w, (pack.members, w.shape[1], y.shape[1]))
    if bias.ndim != 2 or not 0 < bias.shape[1] <= y.shape[1]:
        raise ValueError(f"`bias` ({list(bias.shape)}) must be [members, outputs] for {y.shape[1]} stored outputs")
    check_part("bias", bias, (pack.members, bias.shape[1]))
    return bias.shape[1]


def _linear_constants(
    inputs: int, outputs: int, x_stored: int, y_stored: int, w_stored: int, *, transposed: bool, wide: bool
) -> dict[str, Any]:
    """``wide``: whether rows are float32, which are three products and twice the bytes."""
    return {
        "INPUTS": inputs,
        "OUTPUTS": outputs,
        "X_STORED": x_stored,
        "Y_STORED": y_stored,
        "W_STORED": w_stored,
        "TRANSPOSED": transposed,
        "BIAS": not transposed,
        "ROWS": _ROWS,
        "COLUMNS": power_of_two(min(y_stored, _LARGEST_BLOCK), at_least=16),
        "CHUNK": power_of_two(min(inputs, 32 if wide else _LARGEST_BLOCK), at_least=16),
        "STAGES": 3,
    }


def _weight_constants(inputs: int, outputs: int, x_stored: int, y_stored: int) -> dict[str, Any]:
    return {
        "INPUTS": inputs,
        "OUTPUTS": outputs,
        "X_STORED": x_stored,
        "Y_STORED": y_stored,
        "ROWS": 64,
        "COLUMNS": power_of_two(min(y_stored, _LARGEST_BLOCK), at_least=16),
        "CHUNK": 32,
        "STAGES": 3,
    }


def known_layers() -> Iterator[tuple[int, int]]:
    """Inputs and outputs of every linear layer that the presets can ask for."""
    for width in (64, 128, 192):
        yield from ((16 * 4 * channels, width) for channels in (4, 8, 12))
        for hidden in range(3):
            yield width >> hidden, width >> hidden + 1
            yield width >> hidden + 1, 20
    yield 16, 10


def variants() -> Iterator[Variant]:
    """Every form that the presets can ask for."""
    for inputs, outputs in sorted(set(known_layers())):
        stored = -(-outputs // 8) * 8
        for precision, pointer in (("bf16", "*bf16"), ("fp32", "*fp32")):
            name, wide = f"{inputs}-{outputs}-{precision}", precision == "fp32"
            forward = _linear_constants(inputs, outputs, inputs, stored, stored, transposed=False, wide=wide)
            backward = _linear_constants(outputs, inputs, stored, inputs, stored, transposed=True, wide=wide)
            for what, constants in (("linear", forward), ("input-gradient", backward)):
                yield Variant(
                    kernel=linear_kernel,
                    name=f"{what}-{name}",
                    signature={
                        "x_ptr": pointer,
                        "w_ptr": "*fp32",
                        "bias_ptr": "*fp32",
                        "y_ptr": pointer,
                        "tile_ptr": "*i32",
                        "w_stride": "i32",
                        "bias_stride": "i32",
                    },
                    constexprs=constants,
                    needs_matrix=True,
                    aligned=("w_stride", "bias_stride"),
                )
            yield Variant(
                kernel=weight_kernel,
                name=f"weight-gradient-{name}",
                signature={
                    "x_ptr": pointer,
                    "dy_ptr": pointer,
                    "dw_ptr": "*fp32",
                    "db_ptr": "*fp32",
                    "row_offset_ptr": "*i32",
                    "dw_stride": "i32",
                    "db_stride": "i32",
                },
                constexprs=_weight_constants(inputs, outputs, inputs, stored),
                needs_matrix=True,
                aligned=("dw_stride", "db_stride"),
            )

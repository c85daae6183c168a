"""The channels of a program, and which pixel of a pooling window comes out largest, in kernels of both directions.

Activations grow with their argument, except for GELU. Normalisation grows or, where its scale is negative, falls.
So the largest is found among the values as they are, or their negatives. Nothing is normalised and activated but
the one that is kept, and the bits are those of comparing what comes out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..activation.triton import GELU, gelu

_NAN_WINS = tl.constexpr(tl.PropagateNan.ALL)
_SIGN, _ONE = tl.constexpr(-(2**31)), tl.constexpr(0x3F800000)  # bits of float32


@triton.jit
def channels_of(STORED: tl.constexpr, BLOCK: tl.constexpr):
    """The channels of a program. Where one has them all the compiler knows it, and need not mask any."""
    channel = tl.arange(0, BLOCK)
    if STORED > BLOCK:
        channel += tl.program_id(1) * BLOCK
    return channel


@triton.jit
def windows_from(start, end, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, POOL: tl.constexpr, ROWS: tl.constexpr):
    """ROWS windows: column, row and image of each, whether it is there, and whether it is whole."""
    window = start + tl.arange(0, ROWS)
    across, line = window % ((WIDTH + POOL - 1) // POOL), window // ((WIDTH + POOL - 1) // POOL)
    down, image = line % ((HEIGHT + POOL - 1) // POOL), line // ((HEIGHT + POOL - 1) // POOL)
    live = window < end
    whole = live
    if HEIGHT % POOL != 0 or WIDTH % POOL != 0:
        whole = live & (across < WIDTH // POOL) & (down < HEIGHT // POOL)
    return across, down, image, live, whole


@triton.jit
def dropped(value, keep_ptr, row, live, scale, STORED: tl.constexpr, BLOCK: tl.constexpr):
    """A program's channels of pixels ``row``, or their gradients: scaled where they are kept, and 0 elsewhere."""
    at = row.to(tl.int64) * ((STORED + BLOCK - 1) // BLOCK)
    if STORED > BLOCK:
        at += tl.program_id(1)
    word = tl.load(keep_ptr + at, mask=live, other=0)
    if BLOCK < 64:
        word = word.to(tl.int32)
    kept = word[:, None] >> tl.arange(0, BLOCK)[None, :] & 1
    return value * tl.where(kept != 0, scale, 0.0)  # multiplied, so that NaN stays NaN


@triton.jit
def _pixel(
    y_ptr, at, mask, place, WIDTH: tl.constexpr, STORED: tl.constexpr, POOL: tl.constexpr
):  # fmt: skip
    pixel = at + (place // POOL * (WIDTH * STORED) + place % POOL * STORED)
    return tl.load(y_ptr + pixel, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _largest_of_gelu(
    y_ptr, at, mask, mean, scale, beta, WIDTH: tl.constexpr, STORED: tl.constexpr, POOL: tl.constexpr
):
    value = _pixel(y_ptr, at, mask, 0, WIDTH, STORED, POOL)
    best, winner = gelu((value - mean) * scale + beta), tl.zeros(mask.shape, tl.int32)
    for place in tl.range(1, POOL * POOL, num_stages=1, loop_unroll_factor=1):  # unrolled, registers are spilled
        other = _pixel(y_ptr, at, mask, place, WIDTH, STORED, POOL)
        height = gelu((other - mean) * scale + beta)
        wins = (height > best) | (height != height)
        best, winner = tl.where(wins, height, best), tl.where(wins, place, winner)
        value = tl.where(wins, other, value)
    return value, winner


@triton.jit
def _largest_of_others(
    y_ptr, at, mask, scale, WIDTH: tl.constexpr, STORED: tl.constexpr, POOL: tl.constexpr, NORM: tl.constexpr
):
    sign = 1.0
    if NORM:
        sign = (scale.to(tl.int32, bitcast=True) & _SIGN | _ONE).to(tl.float32, bitcast=True)
    first = _pixel(y_ptr, at, mask, 0, WIDTH, STORED, POOL)
    best, winner = first * sign, tl.zeros(mask.shape, tl.int32)
    for place in tl.static_range(1, POOL * POOL):
        other = _pixel(y_ptr, at, mask, place, WIDTH, STORED, POOL) * sign
        winner = tl.where(other > best, place, winner)
        best = tl.maximum(best, other, propagate_nan=_NAN_WINS)
    value = best * sign
    if NORM:  # without a scale all come out alike; where their gradient goes makes no difference then
        value = tl.where(scale == 0.0, first, value)
    return value, winner


@triton.jit
def largest(
    y_ptr, at, mask, mean, scale, beta, code, WIDTH: tl.constexpr, STORED: tl.constexpr, POOL: tl.constexpr,
    NORM: tl.constexpr, WITH_GELU: tl.constexpr,
):  # fmt: skip
    """The value of each window's pixel that comes out largest, NaN if one is; its place, the first of equals."""
    if WITH_GELU:
        if code == GELU:
            value, winner = _largest_of_gelu(y_ptr, at, mask, mean, scale, beta, WIDTH, STORED, POOL)
        else:
            value, winner = _largest_of_others(y_ptr, at, mask, scale, WIDTH, STORED, POOL, NORM)
    else:
        value, winner = _largest_of_others(y_ptr, at, mask, scale, WIDTH, STORED, POOL, NORM)
    return value, winner

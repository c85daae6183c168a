"""Batch normalisation of lane tiles, channel by channel; ``activation/cpu.py`` applies its affine map.

Sums run in float32 along a row and in float64 from there on, lane by lane and in a fixed order, so they are the
same whatever else the machine does. A last group that is not full is masked out of them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ..activation.cpu import INVERSE_STD, MEAN, OFFSET, SCALE, SHIFT, SLOPE, TILT
from ..simd import VECTOR_BYTES, Builder, V, Value, clear, kernel, peek, peek_double, poke
from .constants import DECAY, EPSILON

SUMS_BYTES = 4 * VECTOR_BYTES
"""Bytes of a channel's two sums, float64 [2, V]."""

# Centred on c, the variance is mean((x - c)**2) - (mean - c)**2. Its rounding error grows with the ratio of the
# second term to the result; up to this ratio the error stays below one more bit or two.
_CENTRED_WELL = 4.0


@kernel
def add_moments(
    k: Builder, x: Value, x_row: Value, rows: Value, pixels: Value, centre: Value, mask: Value, sums: Value
) -> None:
    """Add to ``sums`` those of x - centre and of its square, over one tile; ``mask`` [V] is 0 in dead lanes."""
    middle, alive = k.load_all(centre), k.load(mask)
    with k.loop(rows) as row:
        start = k.plus(x, k.times(row, x_row))
        total, squares = k.variable(k.constant(0.0)), k.variable(k.constant(0.0))
        with k.loop(pixels) as pixel:
            value = k.mul(alive, k.sub(k.load(k.plus(start, k.times(pixel, VECTOR_BYTES))), middle))
            total.set(k.add(total.get(), value))
            squares.set(k.fma(value, value, squares.get()))
        k.add_doubles(total.get(), sums)
        k.add_doubles(squares.get(), k.plus(sums, 2 * VECTOR_BYTES))


@kernel
def normal_gradient(
    k: Builder, x: Value, x_row: Value, d: Value, d_row: Value, g: Value, g_row: Value,
    rows: Value, pixels: Value, channel: Value, mask: Value,
) -> None:  # fmt: skip
    """G = slope * d + tilt * (x - mean) + offset on one tile, 0 in dead lanes; may work in place on d."""
    alive, mean = k.load(mask), k.load_all(channel, MEAN)
    slope, tilt, offset = (k.mul(alive, k.load_all(channel, at)) for at in (SLOPE, TILT, OFFSET))
    with k.loop(rows) as row:
        from_x, from_d, to_g = (
            k.plus(start, k.times(row, stride)) for start, stride in ((x, x_row), (d, d_row), (g, g_row))
        )
        with k.loop(pixels) as pixel:
            at = k.times(pixel, VECTOR_BYTES)
            linear = k.fma(tilt, k.sub(k.load(k.plus(from_x, at)), mean), offset)
            k.store(k.fma(slope, k.load(k.plus(from_d, at)), linear), k.plus(to_g, at))


@kernel
def normal_unpool(
    k: Builder, x: Value, x_row: Value, pooled: Value, pooled_row: Value, d: Value, d_row: Value,
    g: Value, g_row: Value, rows: Value, pixels: Value, channel: Value, mask: Value,
) -> None:  # fmt: skip
    """As ``normal_gradient`` where ``d`` [rows, pixels] belongs to the 2 x 2 pooling of x: ``pooled``.

    d counts at the first of a window that equals the pooled value, as in PyTorch, and is 0 elsewhere.
    """
    alive, mean, zero = k.load(mask), k.load_all(channel, MEAN), k.constant(0.0)
    slope, tilt, offset = (k.mul(alive, k.load_all(channel, at)) for at in (SLOPE, TILT, OFFSET))
    with k.loop(rows) as row:
        from_pooled, from_d = k.plus(pooled, k.times(row, pooled_row)), k.plus(d, k.times(row, d_row))
        from_x, to_g = k.plus(x, k.times(row, k.times(x_row, 2))), k.plus(g, k.times(row, k.times(g_row, 2)))
        with k.loop(pixels) as pixel:
            at, across = k.times(pixel, VECTOR_BYTES), k.times(pixel, 2 * VECTOR_BYTES)
            extreme = k.load(k.plus(from_pooled, at))
            left = k.mul(slope, k.load(k.plus(from_d, at)))
            for source, target in ((from_x, to_g), (k.plus(from_x, x_row), k.plus(to_g, g_row))):
                for side in (0, VECTOR_BYTES):
                    value = k.load(k.plus(source, across), side)
                    hit = k.equal(value, extreme)
                    linear = k.fma(tilt, k.sub(value, mean), offset)
                    k.store(k.add(linear, k.select(hit, left, zero)), k.plus(target, across), side)
                    left = k.select(hit, zero, left)


@kernel
def add_lane_sums(k: Builder, source: Value, mask: Value, sums: Value) -> None:
    """Add to ``sums`` a tile's sum and sum of squares, float32 [2, V], in the lanes that are alive."""
    alive = k.load(mask)
    k.add_doubles(k.mul(alive, k.load(source)), sums)
    k.add_doubles(k.mul(alive, k.load(source, VECTOR_BYTES)), k.plus(sums, 2 * VECTOR_BYTES))


@njit(nogil=True)
def lane_total(sums):
    """The sum of the V float64 at an address."""
    total = 0.0
    for lane in range(V):
        total += peek_double(sums + 8 * lane)
    return total


@njit(nogil=True)
def group_moments(x, x_group, x_row, groups, rows, pixels, centre, masks, sums):
    """``sums`` of one channel over all its tiles, ``x_group`` bytes apart."""
    clear(sums, SUMS_BYTES // VECTOR_BYTES)
    for group in range(groups):
        add_moments(x + group * x_group, x_row, rows, pixels, centre, masks + group * VECTOR_BYTES, sums)


@njit(nogil=True)
def is_centred_well(sums, count):
    """Whether the variance of ``count`` values may be computed from sums taken around this centre."""
    mean = lane_total(sums) / count
    return mean * mean <= _CENTRED_WELL * (lane_total(sums + 2 * VECTOR_BYTES) / count - mean * mean)


@njit(nogil=True)
def batch_statistics(sums, count, centre):
    """(mean, biased variance) of ``count`` values from the sums around ``centre``."""
    mean = lane_total(sums) / count
    return centre + mean, max(lane_total(sums + 2 * VECTOR_BYTES) / count - mean * mean, 0.0)


@njit(nogil=True)
def normalise_by(channel, mean, variance, gamma, beta):
    """Set a channel's affine map to gamma * (x - mean) / sqrt(variance + epsilon) + beta."""
    inverse_std = 1 / math.sqrt(variance + EPSILON)
    poke(channel + SCALE, np.float32(gamma * inverse_std))
    poke(channel + SHIFT, np.float32(beta - mean * gamma * inverse_std))
    poke(channel + MEAN, np.float32(mean))
    poke(channel + INVERSE_STD, np.float32(inverse_std))


@njit(nogil=True)
def leave_as_is(channel):
    """Set a channel's maps to the identity."""
    for at, number in (
        (SCALE, 1.0),
        (SHIFT, 0.0),
        (MEAN, 0.0),
        (INVERSE_STD, 1.0),
        (SLOPE, 1.0),
        (TILT, 0.0),
        (OFFSET, 0.0),
    ):
        poke(channel + at, np.float32(number))


@njit(nogil=True)
def move_average(average, batch):
    """Let the moving average at an address follow a batch's statistic."""
    poke(average, np.float32(peek(average) + (1 - DECAY) * (batch - peek(average))))


@njit(nogil=True)
def prepare_gradient(channel, sums, count, gamma, d_gamma, d_beta):
    """From the sums of dy and dy * (x - mean): gradients of gamma and beta, and the map that gives dx."""
    inverse_std = peek(channel + INVERSE_STD)
    total = lane_total(sums)
    aligned = lane_total(sums + 2 * VECTOR_BYTES) * inverse_std
    poke(d_gamma, np.float32(aligned))
    poke(d_beta, np.float32(total))
    slope = gamma * inverse_std
    poke(channel + SLOPE, np.float32(slope))
    poke(channel + TILT, np.float32(-slope * aligned * inverse_std / count))
    poke(channel + OFFSET, np.float32(-slope * total / count))

"""Activations on lane tiles, between the affine map of a batch normalisation and dropout.

A tile is one channel of one group of V samples: rows of pixels, V floats a pixel. All kernels exist once for
each activation and are chosen at run time by its code. Dropout is a factor ``kept`` and a bit for every value;
where there is none the factor is 1 and all pixels read the same bits, which are set.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from numba import int64, njit

from ..simd import VECTOR_BYTES, Builder, Value, kernel
from ..simd.functions import erf, exp, expm1, sigmoid, tanh
from .codes import ACTIVATION_CODES, LEAKY_SLOPE

# Where a channel's numbers lie: float32 each, byte offsets. ``scale`` and ``shift`` are the forward affine map,
# ``mean`` and ``inverse_std`` those of the batch, and the gradient is slope * dy + tilt * (x - mean) + offset.
SCALE, SHIFT, MEAN, INVERSE_STD, SLOPE, TILT, OFFSET = range(0, 28, 4)
CHANNEL_BYTES = 32


def _gelu_gate(k: Builder, x: Value) -> Value:
    """The normal distribution function."""
    return k.mul(k.constant(0.5), k.add(k.constant(1.0), erf(k, k.mul(x, k.constant(math.sqrt(0.5))))))


def value(k: Builder, name: str, x: Value) -> Value:
    """The activation ``name`` of ``x``. NaN stays NaN, so that a diverged network is seen to be one."""
    zero = k.constant(0.0)
    match name:
        case "identity":
            return x
        case "relu":
            return k.maximum(zero, x)
        case "elu":
            return k.select(k.greater(x, zero), x, expm1(k, k.minimum(zero, x)))
        case "sigmoid":
            return sigmoid(k, x)
        case "tanh":
            return tanh(k, x)
        case "leaky_relu":
            return k.select(k.greater(x, zero), x, k.mul(x, k.constant(LEAKY_SLOPE)))
        case "gelu":
            return k.mul(x, _gelu_gate(k, x))
    raise ValueError(name)


def gradient(k: Builder, name: str, x: Value, y: Value, d: Value) -> Value:
    """D * f'(x), given y = f(x). Only gelu needs ``x``, so the others may be handed anything for it."""
    zero, one = k.constant(0.0), k.constant(1.0)
    match name:
        case "identity":
            return d
        case "relu":
            return k.select(k.greater(y, zero), d, zero)
        case "elu":
            return k.select(k.greater(y, zero), d, k.fma(y, d, d))
        case "sigmoid":
            return k.mul(d, k.mul(y, k.sub(one, y)))
        case "tanh":
            return k.mul(d, k.sub(one, k.mul(y, y)))
        case "leaky_relu":
            return k.select(k.greater(y, zero), d, k.mul(d, k.constant(LEAKY_SLOPE)))
        case "gelu":
            density = k.mul(exp(k, k.mul(k.mul(x, x), k.constant(-0.5))), k.constant(1 / math.sqrt(2 * math.pi)))
            return k.mul(d, k.fma(x, density, _gelu_gate(k, x)))
    raise ValueError(name)


def _forward(name: str) -> Callable[..., None]:
    @kernel
    def activate(
        k: Builder, x: Value, x_row: Value, y: Value, y_row: Value, rows: Value, pixels: Value, channel: Value,
        kept: Value, keep: Value, keep_row: Value, keep_pixel: Value, shift: Value,
    ) -> None:  # fmt: skip
        scale, shift_by = k.load_all(channel, SCALE), k.load_all(channel, SHIFT)
        factor, zero = k.load_all(kept), k.constant(0.0)
        with k.loop(rows) as row:
            source, target = k.plus(x, k.times(row, x_row)), k.plus(y, k.times(row, y_row))
            bits = k.plus(keep, k.times(row, keep_row))
            with k.loop(pixels) as pixel:
                at = k.times(pixel, VECTOR_BYTES)
                normal = k.fma(k.load(k.plus(source, at)), scale, shift_by)
                made = k.mul(value(k, name, normal), factor)
                stays = k.load_bits(k.plus(bits, k.times(pixel, keep_pixel)), shift)
                k.store(k.select(stays, made, zero), k.plus(target, at))

    return activate


def _backward(name: str) -> Callable[..., None]:
    @kernel
    def derive(
        k: Builder, d: Value, d_row: Value, x: Value, x_row: Value, y: Value, y_row: Value,
        g: Value, g_row: Value, rows: Value, pixels: Value, channel: Value, sums: Value,
        kept: Value, keep: Value, keep_row: Value, keep_pixel: Value, shift: Value,
    ) -> None:  # fmt: skip
        scale, shift_by, mean = (k.load_all(channel, at) for at in (SCALE, SHIFT, MEAN))
        factor, zero = k.load_all(kept), k.constant(0.0)
        restore = k.div(k.constant(1.0), factor)
        with k.loop(rows) as row:
            in_row = [
                k.plus(start, k.times(row, stride))
                for start, stride in ((d, d_row), (x, x_row), (y, y_row), (g, g_row))
            ]
            bits = k.plus(keep, k.times(row, keep_row))
            total, moment = k.variable(zero), k.variable(zero)
            with k.loop(pixels) as pixel:
                at = k.times(pixel, VECTOR_BYTES)
                from_d, from_x, from_y, to_g = (k.plus(start, at) for start in in_row)
                raw, made = k.load(from_x), k.mul(k.load(from_y), restore)
                slope = gradient(k, name, k.fma(raw, scale, shift_by), made, k.mul(k.load(from_d), factor))
                stays = k.load_bits(k.plus(bits, k.times(pixel, keep_pixel)), shift)
                slope = k.select(stays, slope, zero)
                k.store(slope, to_g)
                total.set(k.add(total.get(), slope))
                moment.set(k.fma(slope, k.sub(raw, mean), moment.get()))
            k.add_doubles(total.get(), sums)
            k.add_doubles(moment.get(), k.plus(sums, 2 * VECTOR_BYTES))

    return derive


(_identity, _relu, _elu, _sigmoid, _tanh, _leaky_relu, _gelu) = map(_forward, ACTIVATION_CODES)
(_d_identity, _d_relu, _d_elu, _d_sigmoid, _d_tanh, _d_leaky_relu, _d_gelu) = map(_backward, ACTIVATION_CODES)


@njit(nogil=True)
def activate(code, x, x_row, y, y_row, rows, pixels, channel, kept, keep, keep_row, keep_pixel, shift):
    """Y = kept * f(scale * x + shift) on one tile, 0 where a value is dropped; may work in place.

    Args:
        code: the activation.
        x: address of the tile.
        x_row: bytes from row to row.
        y: address of the result.
        y_row: bytes from row to row.
        rows: how many.
        pixels: in a row.
        channel: address of the channel's numbers.
        kept: address of the factor of what is kept.
        keep: address of the dropout bits of the tile's first pixel.
        keep_row: bytes from row to row.
        keep_pixel: bytes from pixel to pixel.
        shift: the group's first bit in its block of 16 samples.
    """
    # Numba would compile everything anew for each argument that a caller gives as a constant.
    geometry = (
        x, int64(x_row), y, int64(y_row), int64(rows), pixels, channel,
        kept, keep, int64(keep_row), int64(keep_pixel), int64(shift),
    )  # fmt: skip
    if code == 0:
        _identity(*geometry)
    elif code == 1:
        _relu(*geometry)
    elif code == 2:
        _elu(*geometry)
    elif code == 3:
        _sigmoid(*geometry)
    elif code == 4:
        _tanh(*geometry)
    elif code == 5:
        _leaky_relu(*geometry)
    else:
        _gelu(*geometry)


@njit(nogil=True)
def derive(
    code,
    d,
    d_row,
    x,
    x_row,
    y,
    y_row,
    g,
    g_row,
    rows,
    pixels,
    channel,
    sums,
    kept,
    keep,
    keep_row,
    keep_pixel,
    shift,
):
    """G = kept * d * f'(scale * x + shift), 0 where y was dropped, and its sums; may work in place on d.

    Adds to ``sums``, float64 [2, V]: the sums over the tile of g and of g * (x - mean), lane by lane. What is
    dead in d (0) is dead in all of these.

    Args:
        code: the activation.
        d: address of the gradient of the loss with respect to y.
        d_row: bytes from row to row.
        x: address of what came into the affine map (only gelu needs it, and the second sum).
        x_row: bytes from row to row.
        y: address of what ``activate`` gave.
        y_row: bytes from row to row.
        g: address of the result.
        g_row: bytes from row to row.
        rows: how many.
        pixels: in a row.
        channel: address of the channel's numbers.
        sums: address of the sums.
        kept: address of the factor of what is kept.
        keep: address of the dropout bits of the tile's first pixel.
        keep_row: bytes from row to row.
        keep_pixel: bytes from pixel to pixel.
        shift: the group's first bit in its block of 16 samples.
    """
    geometry = (
        d, int64(d_row), x, int64(x_row), y, int64(y_row), g, int64(g_row), int64(rows), pixels, channel, sums,
        kept, keep, int64(keep_row), int64(keep_pixel), int64(shift),
    )  # fmt: skip
    if code == 0:
        _d_identity(*geometry)
    elif code == 1:
        _d_relu(*geometry)
    elif code == 2:
        _d_elu(*geometry)
    elif code == 3:
        _d_sigmoid(*geometry)
    elif code == 4:
        _d_tanh(*geometry)
    elif code == 5:
        _d_leaky_relu(*geometry)
    else:
        _d_gelu(*geometry)

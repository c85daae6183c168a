"""The input gradient of convolutions with 3 x 3 filters and stride 2, with exactly the useful multiplications.

The gradient of output j goes to inputs 2 j, 2 j + 1 and 2 j + 2 of its row, so a whole row of the input's gradient
is held in registers. Rows of one parity use filter rows 0 and 2, those of the other filter row 1.

If a ReLU and dropout made the input (``tiles.row_tile``), the gradient of what they were given is written, and its
sums are made, the gradient of a bias: where the input is above the floor, which what was dropped is not either.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from ..simd import MANY_REGISTERS, VECTOR_BYTES, Builder, Value, kernel
from .tiles import CHANNELS

SIZE = 3
STRIDE = 2
MOST_PIXELS = 7 if MANY_REGISTERS else 4
"""The widest output row whose input row fits the registers."""

_WEIGHT_BYTES = 4 * CHANNELS
_PLANE_BYTES = SIZE * SIZE * _WEIGHT_BYTES
_MOST_IN_PAIRS = 4 if MANY_REGISTERS else 2


def _scatter(pixels: int, inputs: int) -> Callable[..., None]:
    """One row of the gradient of ``inputs`` input channels, from rows of ``pixels`` gradients of all outputs."""
    width = STRIDE * (pixels - 1) + SIZE

    @kernel
    def scatter(
        k: Builder, d: Value, d_channel: Value, d_row: Value, w: Value, w_block: Value, blocks: Value, taps: Value,
        y: Value, y_channel: Value, out: Value, out_channel: Value,
        floor: Value, sums: Value, sums_channel: Value,
    ) -> None:  # fmt: skip
        zero = k.constant(0.0)
        totals = [[k.variable(zero) for _ in range(width)] for _ in range(inputs)]
        block_d, block_w = k.variable(d), k.variable(w)
        with k.loop(blocks):
            line_d, line_w = k.variable(block_d.get()), k.variable(block_w.get())
            with k.loop(taps):
                for channel, at in enumerate(k.steps(line_d.get(), d_channel, CHANNELS)):
                    slopes = [k.load(at, pixel * VECTOR_BYTES) for pixel in range(pixels)]
                    for column in range(SIZE):
                        for source in range(inputs):
                            place = source * _PLANE_BYTES + column * _WEIGHT_BYTES + 4 * channel
                            factor = k.load_all(line_w.get(), place)
                            for pixel, slope in enumerate(slopes):
                                total = totals[source][STRIDE * pixel + column]
                                total.set(k.fma(factor, slope, total.get()))
                line_d.set(k.minus(line_d.get(), d_row))
                line_w.set(k.plus(line_w.get(), STRIDE * SIZE * _WEIGHT_BYTES))
            block_d.set(k.plus(block_d.get(), k.times(d_channel, CHANNELS)))
            block_w.set(k.plus(block_w.get(), w_block))
        least = k.load_all(floor)
        for source in range(inputs):
            made, target = k.plus(y, k.times(y_channel, source)), k.plus(out, k.times(out_channel, source))
            summed = zero
            for pixel in range(width):
                passed = k.greater(k.load(made, pixel * VECTOR_BYTES), least)
                slope = k.select(passed, totals[source][pixel].get(), zero)
                k.store(slope, target, pixel * VECTOR_BYTES)
                summed = k.add(summed, slope)
            k.add_doubles(summed, k.plus(sums, k.times(sums_channel, source)))

    return scatter


_single_1, _single_2, _single_3, _single_4, _single_5, _single_6, _single_7 = (
    _scatter(min(pixels, MOST_PIXELS), 1) for pixels in range(1, 8)
)
_pair_1, _pair_2, _pair_3, _pair_4 = (_scatter(min(pixels, _MOST_IN_PAIRS), 2) for pixels in range(1, 5))


@njit(nogil=True)
def _scatter_one(pixels, geometry):
    if pixels == 1:
        _single_1(*geometry)
    elif pixels == 2:
        _single_2(*geometry)
    elif pixels == 3:
        _single_3(*geometry)
    elif pixels == 4:
        _single_4(*geometry)
    elif pixels == 5:
        _single_5(*geometry)
    elif pixels == 6:
        _single_6(*geometry)
    else:
        _single_7(*geometry)


@njit(nogil=True)
def _scatter_pair(pixels, geometry):
    if pixels == 1:
        _pair_1(*geometry)
    elif pixels == 2:
        _pair_2(*geometry)
    elif pixels == 3:
        _pair_3(*geometry)
    else:
        _pair_4(*geometry)


@njit(nogil=True)
def scatter_row(
    row, d, d_channel, d_row, d_rows, pixels, w, w_block, blocks, channels,
    y, y_channel, out, out_channel, floor, sums, sums_channel,
):  # fmt: skip
    """One row of the input's gradient, of one group.

    Args:
        row: which.
        d: address of the output's gradient, float32 [outputs, d_rows, pixels, V], 0 where there is no channel.
        d_channel: bytes from channel to channel.
        d_row: bytes from row to row.
        d_rows: rows of the output.
        pixels: outputs of a row, at most MOST_PIXELS.
        w: address of the weights, float32 [outputs / 4, channels, 3, 3, 4].
        w_block: bytes of four outputs' weights.
        blocks: outputs / 4, rounded up.
        channels: input channels.
        y: address of the row of the input.
        y_channel: bytes from channel to channel.
        out: address of the row of the result; 2 * pixels + 1 pixels are written.
        out_channel: bytes from channel to channel.
        floor: address of the least value of the input.
        sums: address of float64 [channels][V], added to.
        sums_channel: bytes from channel to channel.
    """
    first = max(row % 2, row - 2 * (d_rows - 1))  # the first filter row that meets a row of the output
    taps = 0 if first >= SIZE else min((SIZE - 1 - first) // 2, (row - first) // 2) + 1
    slopes, weights = d + (row - first) // 2 * d_row, w + first * SIZE * _WEIGHT_BYTES
    channel = 0
    while channel < channels:
        together = 2 if pixels <= _MOST_IN_PAIRS and channel + 1 < channels else 1
        geometry = (
            slopes, d_channel, d_row, weights + channel * _PLANE_BYTES, w_block, blocks, taps,
            y + channel * y_channel, y_channel, out + channel * out_channel, out_channel,
            floor, sums + channel * sums_channel, sums_channel,
        )  # fmt: skip
        if together == 2:
            _scatter_pair(pixels, geometry)
        else:
            _scatter_one(pixels, geometry)
        channel += together

"""Convolutions of one group of V images in lane tiles: forward, input gradient and weight gradient.

A group is [channel][row][pixel][V] float32 with any strides between channels and rows. All strides and
addresses are in bytes. Padding is a zero border that the caller keeps around the images. Channels are made four
at a time, so outputs have room for a multiple of four.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import int64, njit

from ..simd import MANY_REGISTERS, VECTOR_BYTES
from .tiles import CHANNELS, gradient_tile, pooled_tile, row_tile

MOST_PIXELS = 5 if MANY_REGISTERS else 3
"""Pixels of a strip: with four channels, as many accumulators as there are registers for."""

_FEW_PIXELS, _FEW_TERMS = 3, 32
"""Sums of fewer terms are over so soon that shorter strips, whose ends overlap with what follows, are faster."""

_BLOCK_PIXELS = 64
"""Pixels of four channels whose gradients a first-level cache holds besides what they are multiplied with."""


def keeps_vectors(pixels: int) -> bool:
    """Whether a weight gradient is kept as vectors until the end of the batch, by the output's pixels.

    Large images are worked on in blocks, too many to sum over the lanes after each. For others the vectors would
    be more to move through the second-level cache than the sums are to make.
    """
    return pixels > _BLOCK_PIXELS


def _rows(columns: int | None, rows: int | None = None) -> Callable[..., None]:
    """Any number of pixels: in as few strips as can be, of sizes that differ by one at most."""
    one, two, three, four, five = (row_tile(min(pixels, MOST_PIXELS), columns, rows) for pixels in range(1, 6))

    @njit(nogil=True)
    def tiles(size, x, out, out_rows, count, geometry):
        if size == 1:
            one(x, out, out_rows, count, *geometry)
        elif size == 2:
            two(x, out, out_rows, count, *geometry)
        elif size == 3:
            three(x, out, out_rows, count, *geometry)
        elif size == 4:
            four(x, out, out_rows, count, *geometry)
        else:
            five(x, out, out_rows, count, *geometry)

    @njit(nogil=True)
    def strips(x, out, out_rows, pixels, geometry):
        channels, filter_rows, filter_columns = geometry[5:8]
        most = _FEW_PIXELS if channels * filter_rows * filter_columns < _FEW_TERMS else MOST_PIXELS
        count = (pixels + most - 1) // most
        size, larger = pixels // count, pixels % count
        if larger:
            tiles(size + 1, x, out, out_rows, larger, geometry)
        done = (size + 1) * larger
        x_pixel, out_pixel, keep, keep_pixel = geometry[2], geometry[11], geometry[13], geometry[15]
        rest = (*geometry[:13], keep + done * keep_pixel, *geometry[14:])
        tiles(size, x + done * x_pixel, out + done * out_pixel, out_rows, count - larger, rest)

    return strips


_rows_3x3 = _rows(3, 3)
_rows_1, _rows_2, _rows_3, _rows_4, _rows_5, _rows_7, _rows_any = map(_rows, (1, 2, 3, 4, 5, 7, None))


@njit(nogil=True)
def convolve_rows(
    x, out, rows, pixels, x_channel, x_row, x_pixel, x_step, w, channels, filter_rows, filter_columns, start,
    out_channel, out_row, out_pixel, floor, keep, keep_row, keep_pixel, shift,
):  # fmt: skip
    """Rows of four output channels of one group, and what ends them: see ``tiles.row_tile``.

    Args:
        x: address of the first row's first input pixel in the first channel.
        out: address of the first row's first output pixel.
        rows: how many.
        pixels: outputs of a row.
        x_channel: bytes from channel to channel.
        x_row: bytes from row to row.
        x_pixel: bytes between the inputs of neighbouring outputs.
        x_step: bytes between the inputs of neighbouring output rows.
        w: address of the weights, float32 [channels, filter_rows, filter_columns, 4].
        channels: input channels.
        filter_rows: height of the filter.
        filter_columns: width of the filter.
        start: address of float32 [4] that the sums start from.
        out_channel: bytes from channel to channel.
        out_row: bytes from row to row.
        out_pixel: bytes from output to output.
        floor: address of the least value that is stored.
        keep: address of the dropout bits of the first output's first channel; channels lie side by side.
        keep_row: bytes from row to row.
        keep_pixel: bytes from pixel to pixel.
        shift: the group's first bit in its block of 16.
    """
    # Numba would compile everything anew for each argument that a caller gives as a constant.
    rows = int64(rows)
    geometry = (
        x_channel, x_row, int64(x_pixel), int64(x_step), w, channels, filter_rows, filter_columns, start,
        out_channel, int64(out_row), int64(out_pixel),
        floor, keep, int64(keep_row), int64(keep_pixel), int64(shift),
    )  # fmt: skip
    if filter_columns == 3 and filter_rows == 3:
        _rows_3x3(x, out, rows, pixels, geometry)
    elif filter_columns == 3:
        _rows_3(x, out, rows, pixels, geometry)
    elif filter_columns == 5:
        _rows_5(x, out, rows, pixels, geometry)
    elif filter_columns == 7:
        _rows_7(x, out, rows, pixels, geometry)
    elif filter_columns == 1:
        _rows_1(x, out, rows, pixels, geometry)
    elif filter_columns == 2:
        _rows_2(x, out, rows, pixels, geometry)
    elif filter_columns == 4:
        _rows_4(x, out, rows, pixels, geometry)
    else:
        _rows_any(x, out, rows, pixels, geometry)


_pooled_3, _pooled_5, _pooled_7 = map(pooled_tile, (3, 5, 7))


@njit(nogil=True)
def convolve_pooled(columns, *arguments):
    """Two rows of four channels with their 2 x 2 pooling, for filters of 3, 5 or 7: see ``tiles.pooled_tile``."""
    if columns == 3:
        _pooled_3(*arguments)
    elif columns == 5:
        _pooled_5(*arguments)
    else:
        _pooled_7(*arguments)


def _gradient(channels: int, rows: int, columns: int) -> Callable[..., None]:
    reduced, stored = (gradient_tile(channels, rows, columns, reduce=reduce) for reduce in (True, False))

    @njit(nogil=True)
    def gradient(reduce, d, x, target, geometry):
        if reduce:
            reduced(d, x, target, *geometry)
        else:
            stored(d, x, target, *geometry)

    return gradient


# As many places of the filter at once as there are registers for the sums; of a filter of 3, where four channels'
# gradients fit the first-level cache, a row, whose sums lie in memory as the lanes are summed.
_gradient_1 = _gradient(4, 1, 1)
if MANY_REGISTERS:
    _gradient_3x3, _gradient_3, _gradient_5, _gradient_7 = (
        _gradient(*shape) for shape in ((2, 3, 3), (4, 1, 3), (4, 1, 5), (2, 1, 7))
    )

    @njit(nogil=True)
    def _filter_gradient(size, reduce, d, d_channel, x, x_row, target, unit, geometry):
        if size == 3 and reduce and geometry[5] * geometry[6] <= _BLOCK_PIXELS:
            for row in range(3):
                _gradient_3(reduce, d, x + row * x_row, target + row * 12 * unit, geometry)
        elif size == 3:
            _gradient_3x3(reduce, d, x, target, geometry)
            _gradient_3x3(reduce, d + 2 * d_channel, x, target + 2 * unit, geometry)
        elif size == 5:
            for row in range(5):
                _gradient_5(reduce, d, x + row * x_row, target + row * 20 * unit, geometry)
        else:
            for row in range(7):
                line, at = x + row * x_row, target + row * 28 * unit
                _gradient_7(reduce, d, line, at, geometry)
                _gradient_7(reduce, d + 2 * d_channel, line, at + 2 * unit, geometry)
else:
    _gradient_2x3, _gradient_3, _gradient_4, _gradient_5 = (
        _gradient(*shape) for shape in ((2, 2, 3), (2, 1, 3), (2, 1, 4), (2, 1, 5))
    )

    @njit(nogil=True)
    def _filter_gradient(size, reduce, d, d_channel, x, x_row, target, unit, geometry):
        for channel in range(0, CHANNELS, 2):
            slopes, at = d + channel * d_channel, target + channel * unit
            if size == 3:
                _gradient_2x3(reduce, slopes, x, at, geometry)
                _gradient_3(reduce, slopes, x + 2 * x_row, at + 24 * unit, geometry)
            elif size == 5:
                for row in range(5):
                    _gradient_5(reduce, slopes, x + row * x_row, at + row * 20 * unit, geometry)
            else:
                for row in range(7):
                    line, place = x + row * x_row, at + row * 28 * unit
                    _gradient_4(reduce, slopes, line, place, geometry)
                    _gradient_3(reduce, slopes, line + 4 * VECTOR_BYTES, place + 16 * unit, geometry)


@njit(nogil=True)
def weight_gradient(
    d,
    x,
    target,
    reduce,
    out_channels,
    channels,
    size,
    d_channel,
    d_row,
    x_channel,
    x_row,
    x_pixel,
    x_step,
    rows,
    pixels,
):
    """Add one group's part to the gradient of a convolution's weights.

    Args:
        d: address of the gradient with respect to the output; dead lanes are 0.
        x: address of the input, border included.
        target: address of what is added to: with ``reduce`` the gradient, float32 [out / 4, in, size, size, 4],
            of which up to 2 V floats after the end are rewritten as they are; else vectors in that order.
        reduce: whether to sum over the lanes.
        out_channels: output channels; they are taken in fours.
        channels: input channels.
        size: side of the filter.
        d_channel: bytes from channel to channel.
        d_row: bytes from row to row.
        x_channel: bytes from channel to channel.
        x_row: bytes from row to row.
        x_pixel: bytes between the inputs of neighbouring outputs.
        x_step: bytes between the inputs of neighbouring output rows.
        rows: output rows.
        pixels: outputs of a row.
    """
    unit = 4 if reduce else VECTOR_BYTES
    block_rows = rows if reduce else max(_BLOCK_PIXELS // pixels, 1)
    for first in range(0, rows, block_rows):
        geometry = (d_channel, d_row, x_row, x_pixel, x_step, min(block_rows, rows - first), pixels)
        d_block, x_block = d + first * d_row, x + first * x_step
        _gradient_block(
            d_block,
            x_block,
            target,
            reduce,
            out_channels,
            channels,
            size,
            d_channel,
            x_channel,
            x_row,
            unit,
            geometry,
        )


@njit(nogil=True)
def _gradient_block(
    d, x, target, reduce, out_channels, channels, size, d_channel, x_channel, x_row, unit, geometry
):
    """As ``weight_gradient``, for some of the rows."""
    for out in range(0, out_channels, CHANNELS):
        slopes = d + out * d_channel
        for channel in range(channels):
            image = x + channel * x_channel
            block = target + (out * channels + channel * CHANNELS) * size * size * unit
            if size == 3 or size == 5 or size == 7:
                _filter_gradient(size, reduce, slopes, d_channel, image, x_row, block, unit, geometry)
            else:
                for place in range(size * size):
                    pixel = image + place // size * x_row + place % size * VECTOR_BYTES
                    _gradient_1(reduce, slopes, pixel, block + place * CHANNELS * unit, geometry)

"""The register tiles of convolutions: what holds the accumulators while the machine multiplies.

Lanes are samples: a vector is one pixel of one channel of V images. So no lane is wasted whatever the number of
channels, a zero border in memory is the padding, and neither pooling nor statistics need a shuffle.

Weights lie as [out channels / 4][in channels][filter rows][filter columns][4]: a tile makes CHANNELS = 4 output
channels from one broadcast of each weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..philox.cpu_dropout import BITS_BYTES
from ..simd import MANY_REGISTERS, VECTOR_BYTES, Builder, V, Value, Variable, kernel, lane_sums

CHANNELS = 4
_POOLED_TOGETHER = 4 if MANY_REGISTERS else 2

_WEIGHT_BYTES = 4 * CHANNELS


def _accumulate(
    k: Builder, x: Value, pixels: Sequence[Value], x_channel: Value, x_row: Value, w: Value,
    channels: Value, rows: int | Value, columns: int | Value, start: Sequence[Value], first: int = 0,
) -> list[list[Variable]]:  # fmt: skip
    """Sums over input channels and filter places of as many output channels, from ``first`` on, as ``start`` has.

    They are indexed [channel][pixel].

    ``pixels`` are byte offsets from ``x`` of each pixel's first input; ``rows`` and ``columns`` of the filter are
    unrolled if they are numbers.
    """
    sums = [[k.variable(begin) for _ in pixels] for begin in start]
    weight, plane = k.variable(w), k.variable(x)

    def column(x_at: Value, w_at: Value, x_offset: int, w_offset: int) -> None:
        values = [k.load(k.plus(x_at, pixel), x_offset) for pixel in pixels]
        for channel, totals in enumerate(sums, first):
            factor = k.load_all(w_at, w_offset + 4 * channel)
            for total, value in zip(totals, values, strict=True):
                total.set(k.fma(factor, value, total.get()))

    def filter_row(line: Variable) -> None:
        if isinstance(columns, int):
            for index in range(columns):
                column(line.get(), weight.get(), index * VECTOR_BYTES, index * _WEIGHT_BYTES)
            weight.set(k.plus(weight.get(), columns * _WEIGHT_BYTES))
        else:
            with k.loop(columns) as index:
                column(k.plus(line.get(), k.times(index, VECTOR_BYTES)), weight.get(), 0, 0)
                weight.set(k.plus(weight.get(), _WEIGHT_BYTES))
        line.set(k.plus(line.get(), x_row))

    with k.loop(channels):
        line = k.variable(plane.get())
        if isinstance(rows, int):
            for _ in range(rows):
                filter_row(line)
        else:
            with k.loop(rows):
                filter_row(line)
        plane.set(k.plus(plane.get(), x_channel))
    return sums


def row_tile(pixels: int, columns: int | None, rows: int | None = None) -> Callable[..., None]:
    """A kernel for strips of ``tiles`` x ``pixels`` output pixels of four channels, in some rows.

    It serves forward passes (with a stride between the inputs of neighbouring outputs) and input gradients (with
    a stride between the outputs); ``columns`` and ``rows`` are the filter's, None: known at run time only. What is
    stored is the sum, no less than the float at ``floor``, and 0 where the dropout bits at ``keep`` are not set.
    """

    @kernel
    def strip(
        k: Builder, x: Value, out: Value, out_rows: Value, tiles: Value,
        x_channel: Value, x_row: Value, x_pixel: Value, x_step: Value, w: Value,
        channels: Value, filter_rows: Value, filter_columns: Value, start: Value,
        out_channel: Value, out_row: Value, out_pixel: Value,
        floor: Value, keep: Value, keep_row: Value, keep_pixel: Value, shift: Value,
    ) -> None:  # fmt: skip
        begin = [k.load_all(start, 4 * channel) for channel in range(CHANNELS)]
        least, zero = k.load_all(floor), k.constant(0.0)
        offsets = k.steps(k.integer(0), x_pixel, pixels)
        with k.loop(out_rows) as row, k.loop(tiles) as tile:
            first = k.times(tile, pixels)
            sums = _accumulate(
                k, k.plus(k.plus(x, k.times(row, x_step)), k.times(first, x_pixel)), offsets, x_channel, x_row, w,
                channels, filter_rows if rows is None else rows,
                filter_columns if columns is None else columns, begin,
            )  # fmt: skip
            target = k.plus(k.plus(out, k.times(row, out_row)), k.times(first, out_pixel))
            bits = k.plus(k.plus(keep, k.times(row, keep_row)), k.times(first, keep_pixel))
            places = k.steps(bits, keep_pixel, pixels)
            for index, (channel, totals) in enumerate(
                zip(k.steps(target, out_channel, CHANNELS), sums, strict=True)
            ):
                for at, place, total in zip(k.steps(channel, out_pixel, pixels), places, totals, strict=True):
                    value = k.maximum(least, total.get())
                    k.store(k.select(k.load_bits(place, shift, index * BITS_BYTES), value, zero), at)

    return strip


def pooled_tile(columns: int) -> Callable[..., None]:
    """A kernel for a strip of 2 x 2 pixels of four channels, stride 1, that pools them and sums for statistics.

    Besides the convolution z it stores, for each window, the largest value, or the smallest where ``signs`` is
    negative: normalisation (of that sign) and activation are monotone, so they may follow the pooling and work
    on a quarter of the values. ``sums`` [4][2][V] gain the lanes' sums of z and z**2.
    """

    @kernel
    def strip(
        k: Builder, x: Value, x_channel: Value, x_row: Value, w: Value, channels: Value,
        start: Value, signs: Value,
        z: Value, z_channel: Value, z_row: Value, pooled: Value, pooled_channel: Value, sums: Value, tiles: Value,
    ) -> None:  # fmt: skip
        begin = [k.load_all(start, 4 * channel) for channel in range(CHANNELS)]
        falling = [k.less(k.load_all(signs, 4 * channel), k.constant(0.0)) for channel in range(CHANNELS)]
        offsets = [k.integer(0), k.integer(VECTOR_BYTES), x_row, k.plus(x_row, VECTOR_BYTES)]
        with k.loop(tiles) as tile:
            across = k.times(tile, 2 * VECTOR_BYTES)
            for channel in range(CHANNELS):
                if channel % _POOLED_TOGETHER == 0:
                    made = _accumulate(
                        k, k.plus(x, across), offsets, x_channel, x_row, w, channels, k.integer(columns), columns,
                        begin[channel : channel + _POOLED_TOGETHER], channel,
                    )  # fmt: skip
                a, b, c, d = (total.get() for total in made[channel % _POOLED_TOGETHER])
                top = k.plus(k.plus(z, across), k.times(z_channel, channel))
                bottom = k.plus(top, z_row)
                k.store(a, top)
                k.store(b, top, VECTOR_BYTES)
                k.store(c, bottom)
                k.store(d, bottom, VECTOR_BYTES)
                at = 2 * VECTOR_BYTES * channel
                total = k.add(k.add(a, b), k.add(c, d))
                squares = k.fma(d, d, k.fma(c, c, k.fma(b, b, k.mul(a, a))))
                k.store(k.add(k.load(sums, at), total), sums, at)
                k.store(k.add(k.load(sums, at + VECTOR_BYTES), squares), sums, at + VECTOR_BYTES)
                largest = k.maximum(k.maximum(a, b), k.maximum(c, d))
                smallest = k.minimum(k.minimum(a, b), k.minimum(c, d))
                target = k.plus(k.plus(pooled, k.times(tile, VECTOR_BYTES)), k.times(pooled_channel, channel))
                extreme = k.select(falling[channel], smallest, largest)
                # A NaN among the four must not get lost: their sum is one too.
                k.store(k.select(k.equal(total, total), extreme, total), target)

    return strip


def gradient_tile(channels: int, rows: int, columns: int, *, reduce: bool) -> Callable[..., None]:
    """A kernel for the weight gradient of ``channels`` output channels x one input channel, over one image.

    It makes ``rows`` x ``columns`` filter places at once. The sum over a group's samples is due across the lanes:
    with ``reduce`` it is done here and added to the gradient, float32 [place][4]; without, vectors are added to
    memory, float32 [place][4][V], to be reduced once a batch, which is better for small images. A reduction
    rewrites up to 2 V floats after the gradient as they are.
    """

    @kernel
    def gradient(
        k: Builder, d: Value, x: Value, target: Value, d_channel: Value, d_row: Value,
        x_row: Value, x_pixel: Value, x_step: Value, out_rows: Value, out_pixels: Value,
    ) -> None:  # fmt: skip
        places = [(row, column) for row in range(rows) for column in range(columns)]
        zero = k.constant(0.0)
        at = {
            (place, channel): VECTOR_BYTES * (index * CHANNELS + channel)
            for index, place in enumerate(places)
            for channel in range(channels)
        }
        sums = {key: k.variable(zero if reduce else k.load(target, offset)) for key, offset in at.items()}
        d_line, x_line = k.variable(d), k.variable(x)
        offsets = k.steps(k.integer(0), d_channel, channels)
        with k.loop(out_rows):
            d_at, x_at = k.variable(d_line.get()), k.variable(x_line.get())
            with k.loop(out_pixels):
                slopes = [k.load(k.plus(d_at.get(), offset)) for offset in offsets]
                lines = k.steps(x_at.get(), x_row, rows)
                for row, column in places:
                    value = k.load(lines[row], column * VECTOR_BYTES)
                    for channel in range(channels):
                        total = sums[(row, column), channel]
                        total.set(k.fma(slopes[channel], value, total.get()))
                d_at.set(k.plus(d_at.get(), VECTOR_BYTES))
                x_at.set(k.plus(x_at.get(), x_pixel))
            d_line.set(k.plus(d_line.get(), d_row))
            x_line.set(k.plus(x_line.get(), x_step))
        if not reduce:
            for key, offset in at.items():
                k.store(sums[key].get(), target, offset)
            return
        # Channels that are not made here take part as zeros, so that whole vectors can be added.
        spread = [
            sums[place, channel].get() if channel < channels else None
            for place in places
            for channel in range(CHANNELS)
        ]
        for first in range(0, len(spread), V):
            totals = lane_sums(k, spread[first : first + V])
            k.store(k.add(k.load(target, 4 * first), totals), target, 4 * first)

    return gradient


@kernel
def reduce_vectors(k: Builder, source: Value, target: Value, blocks: Value) -> None:
    """Add to ``target`` [blocks * V] the lane sums of the ``source`` vectors [blocks * V][V]."""
    with k.loop(blocks) as block:
        vectors = k.plus(source, k.times(block, V * VECTOR_BYTES))
        at = k.plus(target, k.times(block, VECTOR_BYTES))
        sums = lane_sums(k, [k.load(vectors, index * VECTOR_BYTES) for index in range(V)])
        k.store(k.add(k.load(at), sums), at)

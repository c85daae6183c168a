"""A convolution and what is joined to it, as compiled code over a program's tables: forward and backward.

Joined are a normalisation, an activation, a 2 x 2 max-pooling and dropout, each of which may be missing. A ReLU
and dropout that follow a convolution directly are done by its tiles; in the way back they are done by the tiles of
the next convolution's input gradient, where that has such tiles (``scatter_row``).
A convolution that is normalised starts its sums at bias - moving mean: normalisation does not see the
difference, and the sums of squares that the variance comes from do not cancel.
"""

from __future__ import annotations

from numba import njit

from wse.kernels.activation.codes import IDENTITY, RELU
from wse.kernels.activation.cpu import CHANNEL_BYTES, activate, derive
from wse.kernels.batchnorm.cpu import (
    SUMS_BYTES,
    add_lane_sums,
    lane_total,
    leave_as_is,
    normal_gradient,
    normal_unpool,
    prepare_gradient,
)
from wse.kernels.conv.cpu import convolve_pooled, convolve_rows, weight_gradient
from wse.kernels.conv.strided import scatter_row
from wse.kernels.conv.tiles import CHANNELS, reduce_vectors
from wse.kernels.philox.cpu_dropout import BITS_BYTES
from wse.kernels.philox.dropout import SAMPLES_PER_BLOCK
from wse.kernels.simd import VECTOR_BYTES, V, clear, peek, poke, scale

from .cpu_normalisation import set_normalisation


@njit(nogil=True)
def ends_in_tile(op, batch):
    """Whether activation and dropout are done by a convolution's tiles, as a ReLU is."""
    return op.z == op.y and op.active and batch.activation == RELU


@njit(nogil=True)
def weights_of(op, batch):
    """Address of the weights, times what dropout's kept values are multiplied by if the tiles do the dropout.

    As kept * ReLU(w x + b) = ReLU(kept w x + kept b), the factor costs nothing in the weights. Gradients are then
    made with these weights, and those of the true ones are the factor times theirs.
    """
    return op.scaled if is_scaled(op, batch) else batch.weights + op.weight


@njit(nogil=True)
def is_scaled(op, batch):
    """Whether the weights have dropout's factor in them."""
    return op.drop and batch.dropout and ends_in_tile(op, batch)


@njit(nogil=True)
def dropout_bits(op, y, batch, group):
    """Address of a group's bits; bytes from row to row, pixel to pixel, channel to channel; their first bit."""
    if op.drop and batch.dropout:
        unit, first = BITS_BYTES, group * V
        at = op.bits + first // SAMPLES_PER_BLOCK * op.block
        return at, y.width * y.channels * unit, y.channels * unit, unit, first % SAMPLES_PER_BLOCK
    return batch.all, 0, 0, 0, 0


@njit(nogil=True)
def weight_vectors(op, x, z):
    """How many vectors the packed weights fill."""
    channels = (z.channels + CHANNELS - 1) // CHANNELS * CHANNELS
    return (channels * x.channels * op.size * op.size + V - 1) // V


@njit(nogil=True)
def forward(op, tensors, batch):
    """The whole batch through one convolution and what is joined to it."""
    x, y, z, raw = tensors[op.x], tensors[op.y], tensors[op.z], tensors[op.z]
    code = batch.activation if op.active else IDENTITY
    start = batch.weights + op.bias
    if op.norm:
        start = op.start
        for channel in range(0, z.channels):
            centre = peek(batch.weights + op.moving_mean + 4 * channel)
            poke(start + 4 * channel, peek(batch.weights + op.bias + 4 * channel) - centre)
            clear(op.sums + channel * SUMS_BYTES, SUMS_BYTES // VECTOR_BYTES)
    else:
        for channel in range(z.channels):
            leave_as_is(op.channel + channel * CHANNEL_BYTES)
            if batch.first:
                clear(op.sums + channel * SUMS_BYTES, SUMS_BYTES // VECTOR_BYTES)
    if is_scaled(op, batch):
        start = op.start
        if batch.first:
            scale(batch.weights + op.weight, op.scaled, weight_vectors(op, x, z), op.kept)
            scale(batch.weights + op.bias, op.start, (z.channels + V - 1) // V, op.kept)
    if op.pool:
        raw = tensors[op.pooled]
        for group in range(batch.groups):
            _convolve_pooled(op, x, z, raw, batch, group, start)
    else:
        for group in range(batch.groups):
            _convolve(op, x, z, batch, group, start)
    if op.norm:
        for channel in range(z.channels):
            set_normalisation(op, z, channel, batch, True, op.pool)
    if not ends_in_tile(op, batch):
        for group in range(batch.groups):
            _activate(op, code, raw, y, batch, group)


@njit(nogil=True)
def _convolve(op, x, z, batch, group, start):
    """One group, with floor and dropout if these are all that follows."""
    floor = batch.least
    keep, keep_row, keep_pixel, keep_channel, shift = batch.all, 0, 0, 0, 0
    if ends_in_tile(op, batch):
        floor = op.floor
        keep, keep_row, keep_pixel, keep_channel, shift = dropout_bits(op, z, batch, group)
    filter_bytes = x.channels * op.size * op.size * 4
    for out in range(0, z.channels, CHANNELS):
        convolve_rows(
            x.at - op.corner + group * x.group, z.at + group * z.group + out * z.channel, z.height, z.width,
            x.channel, x.row, op.stride * VECTOR_BYTES, op.stride * x.row,
            weights_of(op, batch) + out * filter_bytes, x.channels, op.size, op.size, start + 4 * out,
            z.channel, z.row, VECTOR_BYTES, floor, keep + out * keep_channel, keep_row, keep_pixel, shift,
        )  # fmt: skip


@njit(nogil=True)
def _activate(op, code, raw, y, batch, group):
    """Normalisation, activation and dropout of one group."""
    keep, keep_row, keep_pixel, keep_channel, shift = dropout_bits(op, y, batch, group)
    for channel in range(y.channels):
        activate(
            code, raw.at + group * raw.group + channel * raw.channel, raw.row,
            y.at + group * y.group + channel * y.channel, y.row, y.height, y.width,
            op.channel + channel * CHANNEL_BYTES, op.kept,
            keep + channel * keep_channel, keep_row, keep_pixel, shift,
        )  # fmt: skip


@njit(nogil=True)
def _convolve_pooled(op, x, z, pooled, batch, group, start):
    """One group, two rows at a time, pooled on the way, and its sums for the statistics."""
    filter_bytes = x.channels * op.size * op.size * 4
    clear(op.tile_sums, (z.channels + CHANNELS - 1) // CHANNELS * CHANNELS * 2)
    for row in range(pooled.height):
        source = x.at - op.corner + group * x.group + 2 * row * x.row
        for out in range(0, z.channels, CHANNELS):
            convolve_pooled(
                op.size, source, x.channel, x.row, batch.weights + op.weight + out * filter_bytes, x.channels,
                start + 4 * out, batch.weights + op.gamma + 4 * out if op.norm else batch.ones,
                z.at + group * z.group + out * z.channel + 2 * row * z.row, z.channel, z.row,
                pooled.at + group * pooled.group + out * pooled.channel + row * pooled.row, pooled.channel,
                op.tile_sums + out * 2 * VECTOR_BYTES, pooled.width,
            )  # fmt: skip
    if op.norm:
        for channel in range(z.channels):
            sums = op.sums + channel * SUMS_BYTES
            add_lane_sums(op.tile_sums + channel * 2 * VECTOR_BYTES, batch.masks + group * VECTOR_BYTES, sums)


@njit(nogil=True)
def backward(op, operations, tensors, phases, batch):
    """Gradients of the weights, of the input if it has one, and of what is joined."""
    x, y, z, d_y, d_z = tensors[op.x], tensors[op.y], tensors[op.z], tensors[op.d_y], tensors[op.d_z]
    channels = (z.channels + CHANNELS - 1) // CHANNELS * CHANNELS
    raw = tensors[op.pooled] if op.pool else z
    code = batch.activation if op.active else IDENTITY
    if op.norm:
        for channel in range(z.channels):
            clear(op.sums + channel * SUMS_BYTES, SUMS_BYTES // VECTOR_BYTES)
    if op.behind < 0 or not ends_in_tile(op, batch):  # else it came out of the gradient behind it
        for group in range(batch.groups):
            _derive(op, code, d_y, raw, y, batch, group)
    if op.norm:
        for channel in range(z.channels):
            prepare_gradient(
                op.channel + channel * CHANNEL_BYTES, op.sums + channel * SUMS_BYTES,
                batch.samples * z.height * z.width, peek(batch.weights + op.gamma + 4 * channel),
                batch.gradient + op.gamma + 4 * channel, batch.gradient + op.beta + 4 * channel,
            )  # fmt: skip
    if batch.first:
        _flip(op, x, z, phases, batch)
    vectors = weight_vectors(op, x, z)
    if op.vectors and batch.first:
        clear(op.vectors, vectors * V)
    for group in range(batch.groups):
        if op.z != op.y:
            _unpool(op, z, raw, d_y, d_z, batch, group)
        weight_gradient(
            d_z.at + group * d_z.group, x.at - op.corner + group * x.group,
            op.vectors if op.vectors else batch.gradient + op.weight, op.vectors == 0,
            channels, x.channels, op.size,
            d_z.channel, d_z.row, x.channel, x.row, op.stride * VECTOR_BYTES, op.stride * x.row, z.height, z.width,
        )  # fmt: skip
        if op.scatter:
            _scatter(op, operations[max(op.before, 0)], x, d_z, tensors[op.d_x], batch, group)
        for index in range(op.phase, op.phase + op.phases):
            _input_gradient(op, phases[index], d_z, tensors[op.d_x], batch, group)
    if batch.last:
        if op.vectors:
            reduce_vectors(op.vectors, batch.gradient + op.weight, vectors)
        if not op.frozen:
            for channel in range(z.channels):
                at = batch.gradient + op.bias + 4 * channel
                poke(at, peek(at) + lane_total(op.sums + channel * SUMS_BYTES))
        if is_scaled(op, batch):
            scale(batch.gradient + op.weight, batch.gradient + op.weight, vectors, op.kept)
            scale(batch.gradient + op.bias, batch.gradient + op.bias, (z.channels + V - 1) // V, op.kept)


@njit(nogil=True)
def _derive(op, code, d_y, raw, y, batch, group):
    """Through dropout and the activation, for one group in place, and the sums that normalisation or bias need."""
    keep, keep_row, keep_pixel, keep_channel, shift = dropout_bits(op, y, batch, group)
    kept = batch.ones if is_scaled(op, batch) else op.kept
    for channel in range(y.channels):
        slopes = d_y.at + group * d_y.group + channel * d_y.channel
        derive(
            code, slopes, d_y.row, raw.at + group * raw.group + channel * raw.channel, raw.row,
            y.at + group * y.group + channel * y.channel, y.row, slopes, d_y.row,
            y.height, y.width, op.channel + channel * CHANNEL_BYTES, op.sums + channel * SUMS_BYTES,
            kept, keep + channel * keep_channel, keep_row, keep_pixel, shift,
        )  # fmt: skip


@njit(nogil=True)
def _unpool(op, z, raw, d_y, d_z, batch, group):
    """Through pooling and normalisation, for one group."""
    mask = batch.masks + group * VECTOR_BYTES
    for channel in range(z.channels):
        values, target = z.at + group * z.group + channel * z.channel, d_z.at + channel * d_z.channel
        slopes, numbers = d_y.at + group * d_y.group + channel * d_y.channel, op.channel + channel * CHANNEL_BYTES
        if op.pool:
            pooled = raw.at + group * raw.group + channel * raw.channel
            normal_unpool(
                values,
                z.row,
                pooled,
                raw.row,
                slopes,
                d_y.row,
                target,
                d_z.row,
                raw.height,
                raw.width,
                numbers,
                mask,
            )
        else:
            normal_gradient(values, z.row, slopes, d_y.row, target, d_z.row, z.height, z.width, numbers, mask)


@njit(nogil=True)
def _flip(op, x, z, phases, batch):
    """For every phase the weights as the filter of the input gradient: in and out change places, places turn."""
    weights = weights_of(op, batch)
    for index in range(op.phase, op.phase + op.phases):
        phase = phases[index]
        for channel in range(x.channels):
            for out in range(z.channels):
                source = weights + ((out // 4 * x.channels + channel) * op.size * op.size * 4 + out % 4) * 4
                block = (channel // 4 * z.channels + out) * phase.rows * phase.columns * 4 + channel % 4
                target = op.flipped + (phase.flipped + block) * 4
                for row in range(phase.rows):
                    from_row = phase.rest_row + (phase.rows - 1 - row) * op.stride
                    for column in range(phase.columns):
                        from_column = phase.rest_column + (phase.columns - 1 - column) * op.stride
                        value = peek(source + (from_row * op.size + from_column) * 16)
                        poke(target + (row * phase.columns + column) * 16, value)


@njit(nogil=True)
def _input_gradient(op, phase, d_z, d_x, batch, group):
    """One phase of one group's input gradient: a convolution of the bordered gradient of the output."""
    filter_bytes = d_z.channels * phase.rows * phase.columns * 4
    for row in range(phase.out_rows):
        source = d_z.at + group * d_z.group + (phase.d_row + row) * d_z.row + phase.d_column * VECTOR_BYTES
        place = d_x.at + group * d_x.group + (phase.row + row * op.stride) * d_x.row + phase.column * VECTOR_BYTES
        for channel in range(0, d_x.channels, CHANNELS):
            convolve_rows(
                source, place + channel * d_x.channel, 1, phase.out_columns,
                d_z.channel, d_z.row, VECTOR_BYTES, 0,
                op.flipped + phase.flipped * 4 + channel * filter_bytes, d_z.channels, phase.rows, phase.columns,
                batch.zeros, d_x.channel, 0, op.stride * VECTOR_BYTES, batch.least, batch.all, 0, 0, 0,
            )  # fmt: skip


@njit(nogil=True)
def _scatter(op, before, x, d_z, d_x, batch, group):
    """One group's input gradient row by row, and through what made the input if its tiles ended in that."""
    floor, sums, sums_channel = batch.least, batch.waste, 0
    if op.before >= 0 and ends_in_tile(before, batch):
        floor, sums, sums_channel = before.floor, before.sums, SUMS_BYTES
    for row in range(d_x.height):
        scatter_row(
            row, d_z.at + group * d_z.group, d_z.channel, d_z.row, d_z.height, d_z.width,
            weights_of(op, batch), x.channels * op.size * op.size * 4 * CHANNELS,
            (d_z.channels + CHANNELS - 1) // CHANNELS, x.channels,
            x.at + group * x.group + row * x.row, x.channel,
            d_x.at + group * d_x.group + row * d_x.row, d_x.channel,
            floor, sums, sums_channel,
        )  # fmt: skip

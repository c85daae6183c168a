"""Batch normalisation as compiled code over a program's tables."""

from __future__ import annotations

import numpy as np
from numba import njit

from wse.kernels.activation.codes import IDENTITY
from wse.kernels.activation.cpu import CHANNEL_BYTES, MEAN, activate, derive
from wse.kernels.batchnorm.cpu import (
    SUMS_BYTES,
    batch_statistics,
    group_moments,
    is_centred_well,
    move_average,
    normal_gradient,
    normalise_by,
    prepare_gradient,
)
from wse.kernels.simd import VECTOR_BYTES, clear, peek, poke


@njit(nogil=True)
def set_normalisation(op, x, channel, batch, shifted, summed):
    """Set one channel's affine map, from the batch or from the moving statistics.

    Args:
        op: the operation.
        x: the tensor that is normalised.
        channel: which.
        batch: the batch.
        shifted: whether the moving mean has already been subtracted from x.
        summed: whether the sums around 0 are there.
    """
    numbers, sums = op.channel + channel * CHANNEL_BYTES, op.sums + channel * SUMS_BYTES
    gamma = peek(batch.weights + op.gamma + 4 * channel)
    beta = peek(batch.weights + op.beta + 4 * channel)
    moving_mean = batch.weights + op.moving_mean + 4 * channel
    moving_variance = batch.weights + op.moving_variance + 4 * channel
    subtracted = peek(moving_mean) if shifted else np.float32(0.0)
    if not batch.batch_statistics:
        normalise_by(numbers, peek(moving_mean) - subtracted, peek(moving_variance), gamma, beta)
        return
    count = batch.samples * x.height * x.width
    at = x.at + channel * x.channel
    centre = peek(moving_mean) - subtracted
    poke(numbers + MEAN, centre)
    if not summed:
        group_moments(at, x.group, x.row, batch.groups, x.height, x.width, numbers + MEAN, batch.masks, sums)
    if not is_centred_well(sums, count):  # early in training: once more, around the mean that was found
        poke(numbers + MEAN, batch_statistics(sums, count, centre)[0])
        centre = peek(numbers + MEAN)
        group_moments(at, x.group, x.row, batch.groups, x.height, x.width, numbers + MEAN, batch.masks, sums)
    mean, variance = batch_statistics(sums, count, centre)
    normalise_by(numbers, mean, variance, gamma, beta)
    move_average(moving_mean, mean + subtracted)
    move_average(moving_variance, variance)


@njit(nogil=True)
def forward(op, tensors, batch):
    """The whole batch through a normalisation that stands alone."""
    x, y = tensors[op.x], tensors[op.y]
    for channel in range(x.channels):
        set_normalisation(op, x, channel, batch, False, False)
        for group in range(batch.groups):
            activate(
                IDENTITY, x.at + group * x.group + channel * x.channel, x.row,
                y.at + group * y.group + channel * y.channel, y.row,
                y.height, y.width, op.channel + channel * CHANNEL_BYTES, op.kept, batch.all, 0, 0, 0,
            )  # fmt: skip


@njit(nogil=True)
def backward(op, tensors, batch):
    """Gradients of gamma, beta and the input."""
    x, d_y, d_x = tensors[op.x], tensors[op.d_y], tensors[op.d_x]
    for channel in range(x.channels):
        numbers, sums = op.channel + channel * CHANNEL_BYTES, op.sums + channel * SUMS_BYTES
        values, slopes = x.at + channel * x.channel, d_y.at + channel * d_y.channel
        target = d_x.at + channel * d_x.channel
        clear(sums, SUMS_BYTES // VECTOR_BYTES)
        for group in range(batch.groups):
            here, slope = values + group * x.group, slopes + group * d_y.group  # the identity leaves d_y as it is
            derive(
                IDENTITY, slope, d_y.row, here, x.row, here, x.row, slope, d_y.row, x.height, x.width, numbers,
                sums, op.kept, batch.all, 0, 0, 0,
            )  # fmt: skip
        prepare_gradient(
            numbers, sums, batch.samples * x.height * x.width, peek(batch.weights + op.gamma + 4 * channel),
            batch.gradient + op.gamma + 4 * channel, batch.gradient + op.beta + 4 * channel,
        )  # fmt: skip
        for group in range(batch.groups):
            normal_gradient(
                values + group * x.group, x.row, slopes + group * d_y.group, d_y.row,
                target + group * d_x.group, d_x.row, x.height, x.width, numbers,
                batch.masks + group * VECTOR_BYTES,
            )  # fmt: skip

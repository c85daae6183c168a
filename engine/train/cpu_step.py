"""The interpreter of the CPU backend's programs: compiled code that trains on batches, and that measures them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from wse.kernels.activation.codes import IDENTITY, RELU
from wse.kernels.activation.cpu import activate, derive
from wse.kernels.batchnorm.cpu import leave_as_is
from wse.kernels.inputs.cpu import input_tiles
from wse.kernels.linear import cpu as linear
from wse.kernels.loss.cpu import cross_entropy, winners
from wse.kernels.optim.cpu import add_l2, decay, optimizer_step
from wse.kernels.philox.cpu_dropout import keep_bits, kept_factor
from wse.kernels.pool.cpu import average, max_pool, max_unpool, spread
from wse.kernels.simd import VECTOR_BYTES, V, poke
from wse.kernels.simd.cache import cached_njit, is_cached

from . import cpu_convolution, cpu_layout, cpu_normalisation, cpu_tables
from .cpu_convolution import dropout_bits
from .cpu_tables import ACTIVATION, AVERAGE_POOL, CONVOLUTION, DROPOUT, LINEAR, MAX_POOL, NORMALISATION

SOURCES = [
    Path(str(file))
    for file in (
        __file__,
        *(module.__file__ for module in (cpu_convolution, cpu_layout, cpu_normalisation, cpu_tables)),
    )
]

_convolution, _convolution_back = cpu_convolution.forward, cpu_convolution.backward
_normalisation, _normalisation_back = cpu_normalisation.forward, cpu_normalisation.backward
_linear, _linear_input, _linear_parameters = linear.forward, linear.input_gradient, linear.parameter_gradient


class Bound(NamedTuple):
    """A program in scratch memory.

    Attributes:
        operations: what is done, in order; records of ``cpu_tables.OPERATION``.
        tensors: records of ``cpu_tables.TENSOR``.
        phases: records of ``cpu_tables.PHASE``.
        batch: one record of ``cpu_tables.BATCH``.
        scratch: the memory, float32.
        input: index of the tensor of the images.
        logits: index of the tensor of the logits.
        d_logits: index of the tensor of their gradient.
        slice: a batch goes through in slices of so many samples, a multiple of 16 unless it is the whole batch.
    """

    operations: Any
    tensors: Any
    phases: Any
    batch: Any
    scratch: npt.NDArray[np.float32]
    input: int
    logits: int
    d_logits: int
    slice: int


class Scene(NamedTuple):
    """Images, and how a member sees them.

    Attributes:
        images: uint8 [n, 32, 32, 3], or [n, 32, 32, 1] of images without colour.
        labels: uint8 [n].
        indices: int64, which images, in order.
        low: what black becomes.
        high: what white becomes.
        grey: whether they become grey.
        augmented: whether they are augmented.
        seed: the run's seed.
        member: the member's id.
        epoch: of the draws.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    indices: npt.NDArray[np.int64]
    low: float
    high: float
    grey: bool
    augmented: bool
    seed: np.uint64
    member: int
    epoch: int


class Learning(NamedTuple):
    """How a member learns.

    Attributes:
        weights: packed weights, float32 [P].
        gradient: float32 [P].
        state: the optimizer's, float32 [slots, trained].
        decays: int64 [1, 2], the range that l2 and weight decay apply to.
        activation: its code.
        kind: the optimizer's code.
        form: the code of its form.
        momentum: its coefficient.
        dropout: the rate.
        l2: the coefficient.
        weight_decay: the coefficient.
        learns: whether it does, or is only measured.
        batch_statistics: whether normalisation uses the batch's statistics.
    """

    weights: npt.NDArray[np.float32]
    gradient: npt.NDArray[np.float32]
    state: npt.NDArray[np.float32]
    decays: npt.NDArray[np.int64]
    activation: int
    kind: int
    form: int
    momentum: float
    dropout: float
    l2: float
    weight_decay: float
    learns: bool
    batch_statistics: bool


@njit(nogil=True)
def enter(bound, scene, batch, first, samples, total):
    """Set how many samples a slice of a batch of ``total`` has, and write its images into the input tensor."""
    batch.samples = samples
    batch.groups = (samples + V - 1) // V
    for sample in range(batch.groups * V):
        there = np.float32(1.0 if sample < samples else 0.0)
        poke(batch.masks + 4 * sample, there)
        poke(batch.shares + 4 * sample, there / np.float32(total))
    tensor = bound.tensors[bound.input]
    input_tiles(
        scene.images, scene.indices[first : first + samples], bound.scratch, (tensor.at - batch.scratch) // 4,
        tensor.group // 4, tensor.channel // 4, tensor.row // 4, V, scene.grey, scene.low, scene.high,
        scene.augmented, scene.seed, scene.member, scene.epoch, first,
    )  # fmt: skip


@njit(nogil=True)
def forward(bound, batch, index):
    """A slice through one operation; dropout bits have been drawn."""
    tensors, op = bound.tensors, bound.operations[index]
    x, y = tensors[op.x], tensors[op.y]
    if op.kind == CONVOLUTION:
        _convolution(op, tensors, batch)
        return
    if op.kind == LINEAR:
        _linear(
            x.at, x.group, batch.weights + op.weight, batch.weights + op.bias, y.at, y.group, batch.groups,
            op.inputs, op.allotted, op.outputs,
        )  # fmt: skip
        return
    if op.kind == NORMALISATION:
        _normalisation(op, tensors, batch)
        return
    if op.kind == AVERAGE_POOL:
        poke(op.share, np.float32(1 / (x.height * x.width)))
    for group in range(batch.groups):
        if op.kind == ACTIVATION or op.kind == DROPOUT:
            _activate(op, x, y, batch, group)
            continue
        for channel in range(x.channels):
            source = x.at + group * x.group + channel * x.channel
            target = y.at + group * y.group + channel * y.channel
            if op.kind == MAX_POOL:
                max_pool(source, x.row, target, y.row, y.height, y.width, op.size)
            else:
                average(source, x.row, x.height, x.width, op.share, target)


@njit(nogil=True)
def backward(bound, batch, index):
    """From the gradient of what an operation gave to those of its parameters and of what it was given."""
    tensors, op = bound.tensors, bound.operations[index]
    x, y, d_y = tensors[op.x], tensors[op.y], tensors[op.d_y]
    if op.kind == CONVOLUTION:
        _convolution_back(op, bound.operations, tensors, bound.phases, batch)
        return
    if op.kind == LINEAR:
        _linear_parameters(
            x.at, x.group, d_y.at, d_y.group, batch.groups, op.inputs, op.allotted, op.outputs,
            op.turned, batch.gradient + op.weight, 0 if op.frozen else batch.gradient + op.bias,
        )  # fmt: skip
    if op.d_x < 0:
        return
    d_x = tensors[op.d_x]
    if op.kind == LINEAR:
        _linear_input(
            d_y.at, d_y.group, batch.weights + op.weight, d_x.at, d_x.group, batch.groups,
            op.inputs, op.allotted, op.outputs,
        )  # fmt: skip
        return
    if op.kind == NORMALISATION:
        _normalisation_back(op, tensors, batch)
        return
    for group in range(batch.groups):
        if op.kind == ACTIVATION or op.kind == DROPOUT:
            _derive(op, x, y, d_y, d_x, batch, group)
            continue
        for channel in range(x.channels):
            source = x.at + group * x.group + channel * x.channel
            made = y.at + group * y.group + channel * y.channel
            slope = d_y.at + group * d_y.group + channel * d_y.channel
            target = d_x.at + group * d_x.group + channel * d_x.channel
            if op.kind == MAX_POOL:
                max_unpool(slope, d_y.row, source, x.row, made, y.row, target, d_x.row, y.height, y.width, op.size)
            else:
                spread(slope, target, d_x.row, x.height, x.width, op.share)


@njit(nogil=True)
def _activate(op, x, y, batch, group):
    """An activation or dropout that stands alone, for one group."""
    leave_as_is(op.channel)
    keep, keep_row, keep_pixel, keep_channel, shift = dropout_bits(op, y, batch, group)
    code = batch.activation if op.kind == ACTIVATION else IDENTITY
    if y.height * y.width == 1:  # features lie side by side, like the pixels of a row
        activate(
            code, x.at + group * x.group, 0, y.at + group * y.group, 0, 1, y.channels, op.channel,
            op.kept, keep, 0, keep_channel, shift,
        )  # fmt: skip
        return
    for channel in range(y.channels):
        activate(
            code, x.at + group * x.group + channel * x.channel, x.row,
            y.at + group * y.group + channel * y.channel, y.row, y.height, y.width, op.channel,
            op.kept, keep + channel * keep_channel, keep_row, keep_pixel, shift,
        )  # fmt: skip


@njit(nogil=True)
def _derive(op, x, y, d_y, d_x, batch, group):
    """The way back through ``_activate``."""
    keep, keep_row, keep_pixel, keep_channel, shift = dropout_bits(op, y, batch, group)
    code = batch.activation if op.kind == ACTIVATION else IDENTITY
    if y.height * y.width == 1:
        derive(
            code, d_y.at + group * d_y.group, 0, x.at + group * x.group, 0, y.at + group * y.group, 0,
            d_x.at + group * d_x.group, 0, 1, y.channels, op.channel, op.sums,
            op.kept, keep, 0, keep_channel, shift,
        )  # fmt: skip
        return
    for channel in range(y.channels):
        derive(
            code, d_y.at + group * d_y.group + channel * d_y.channel, d_y.row,
            x.at + group * x.group + channel * x.channel, x.row,
            y.at + group * y.group + channel * y.channel, y.row,
            d_x.at + group * d_x.group + channel * d_x.channel, d_x.row, y.height, y.width, op.channel, op.sums,
            op.kept, keep + channel * keep_channel, keep_row, keep_pixel, shift,
        )  # fmt: skip


@njit(nogil=True)
def set_ends(bound, batch, learning):
    """What ends the operations for this member: the least value and the factor of what dropout keeps."""
    factor = kept_factor(learning.dropout)
    for index in range(len(bound.operations)):
        op = bound.operations[index]
        if op.kept:
            poke(op.floor, np.float32(0.0 if op.active and batch.activation == RELU else -np.inf))
            poke(op.kept, factor if op.drop and batch.dropout else np.float32(1.0))


@njit(nogil=True)
def draw_dropout(bound, batch, scene, rate, number):
    """The dropout bits of a slice, ``number`` counting slices.

    Bits are addressed by groups of 16 samples, so slices of a multiple of 16 have those that the batch has there.
    """
    for index in range(len(bound.operations)):
        op = bound.operations[index]
        if op.drop:
            units = bound.tensors[op.y].features
            keep_bits(
                op.bits,
                op.block,
                rate,
                scene.seed,
                scene.member,
                op.layer,
                scene.epoch,
                number,
                batch.samples,
                units,
            )


@njit(nogil=True)
def summed_loss(bound, batch, scene, first):
    """Summed loss of a slice, and the gradient of the batch's mean with respect to the logits."""
    logits, d_logits = bound.tensors[bound.logits], bound.tensors[bound.d_logits]
    labels = np.empty(V, np.int64)
    loss = 0.0
    for group in range(batch.groups):
        count = min(V, batch.samples - group * V)
        for lane in range(count):
            labels[lane] = scene.labels[scene.indices[first + group * V + lane]]
        loss += cross_entropy(
            logits.at + group * logits.group, logits.channels, labels[:count],
            batch.shares + group * VECTOR_BYTES, d_logits.at + group * d_logits.group, batch.totals,
        )  # fmt: skip
    return loss


@njit(nogil=True)
def learn(batch, learning, rate, count):
    """The optimizer step that follows from a batch's gradient."""
    if learning.l2:
        add_l2(learning.gradient, learning.weights, learning.decays, learning.l2)
    if learning.weight_decay:
        decay(learning.weights, learning.decays, rate, learning.weight_decay)
    trained = learning.state.shape[1]
    optimizer_step(
        learning.weights[:trained], learning.gradient[:trained], learning.state, learning.kind, learning.form,
        rate, count, learning.momentum,
    )  # fmt: skip


@njit(nogil=True)
def tally(bound, batch, scene, first, predicted):
    """Count the outputs that a batch's images are assigned to; how many of them rightly."""
    logits = bound.tensors[bound.logits]
    found = np.empty(V, np.int64)
    correct = 0
    for group in range(batch.groups):
        there = found[: min(V, batch.samples - group * V)]
        winners(logits.at + group * logits.group, logits.channels, there)
        for lane in range(len(there)):
            predicted[there[lane]] += 1
            correct += there[lane] == scene.labels[scene.indices[first + group * V + lane]]
    return correct


def _run(bound, scene, learning, rates, step, first_batch, batch_size, losses, predicted):
    """Train on consecutive batches until one's loss is not finite, or only measure them.

    Args:
        bound: the program.
        scene: the images.
        learning: the member.
        rates: each step's learning rate, float64 [batches].
        step: optimizer steps before these.
        first_batch: the first batch's number.
        batch_size: samples of a batch; the last may be smaller.
        losses: mean loss of each batch in nats, float64 [batches]; written.
        predicted: int64 [outputs]; when only measuring, the images assigned to each output are added.

    Returns:
        (batches done, images classified rightly if only measuring).
    """
    batch = bound.batch[0]
    batch.weights, batch.gradient = learning.weights.ctypes.data, learning.gradient.ctypes.data
    batch.activation, batch.batch_statistics = learning.activation, int(learning.batch_statistics)
    batch.dropout = int(learning.learns and learning.dropout > 0)
    set_ends(bound, batch, learning)
    operations = len(bound.operations)
    correct = 0
    for index in range(len(losses)):
        number = first_batch + index
        begin = number * batch_size
        samples = min(batch_size, len(scene.indices) - begin)
        slices = (samples + bound.slice - 1) // bound.slice
        losses[index] = 0.0
        if learning.learns:
            learning.gradient[:] = 0
        for part in range(slices):
            first = begin + part * bound.slice
            batch.first, batch.last = int(part == 0), int(part == slices - 1)
            enter(bound, scene, batch, first, min(bound.slice, begin + samples - first), samples)
            if batch.dropout:
                draw_dropout(bound, batch, scene, learning.dropout, number * slices + part)
            for place in range(operations):
                forward(bound, batch, place)
            losses[index] += summed_loss(bound, batch, scene, first) / samples
            if learning.learns:
                for place in range(operations - 1, -1, -1):
                    backward(bound, batch, place)
            else:
                correct += tally(bound, batch, scene, first, predicted)
        if learning.learns:
            learn(batch, learning, rates[index], step + index + 1)
            if not math.isfinite(losses[index]):
                return index + 1, correct
    return len(losses), correct


run_batches = cached_njit(_run, SOURCES)


def is_compiled() -> bool:
    """Whether the compiled code is on the disk, so that a first step starts at once."""
    return is_cached(SOURCES)

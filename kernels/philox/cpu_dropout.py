"""Which units are kept, as bits, drawn by vector code: two bytes a unit for 16 samples.

The bits are those of ``dropout.keep_mask``, for every vector width.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit

from ..simd import Builder, Value, kernel
from .dropout import LEVELS, SAMPLES_PER_BLOCK
from .reference import KEY_STEPS, MULTIPLIERS, ROUNDS, Stream

BITS_BYTES = SAMPLES_PER_BLOCK // 8
"""Bytes of one unit's bits: bit s is set if sample s of the block of 16 keeps the unit."""

DRAWN = 32
"""Units are drawn by so many at once, so there is room for a multiple of it. A unit is a long chain of products;
four registers of them overlap."""

_DROPOUT = int(Stream.DROPOUT)
_WORD = 0xFFFFFFFF
_WORDS = ir.VectorType(
    ir.IntType(64), DRAWN
)  # a word in each lower half; upper halves are whatever they happen to be


def _constant(value: int) -> Value:
    return ir.Constant(_WORDS, [value] * DRAWN)


def _everywhere(k: Builder, scalar: Value, kind: ir.VectorType) -> Value:
    nothing = ir.Constant(kind, ir.Undefined)
    first = k.ir.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return k.ir.shuffle_vector(first, nothing, zeros)


def _rounds(k: Builder, words: list[Value], keys: list[tuple[Value, Value]]) -> list[Value]:
    """Philox4x32-10 of DRAWN counters. Only products read lower halves alone, and only shifts upper halves."""

    def product(word: Value, multiplier: int) -> Value:
        return k.ir.mul(k.ir.and_(word, _constant(_WORD)), _constant(multiplier))

    w0, w1, w2, w3 = words
    for key0, key1 in keys:
        left, right = product(w0, int(MULTIPLIERS[0])), product(w2, int(MULTIPLIERS[1]))
        high_left, high_right = (k.ir.lshr(value, _constant(32)) for value in (left, right))
        w0, w1, w2, w3 = (
            k.ir.xor(k.ir.xor(high_right, w1), key0),
            right,
            k.ir.xor(k.ir.xor(high_left, w3), key1),
            left,
        )
    return [w0, w1, w2, w3]


def _pair(k: Builder, low: Value, high: Value) -> Value:
    """The lower half of each of two words, side by side."""
    halves = ir.VectorType(ir.IntType(32), 2 * DRAWN)
    places = [place for unit in range(DRAWN) for place in (2 * unit, 2 * DRAWN + 2 * unit)]
    joined = k.ir.shuffle_vector(
        k.ir.bitcast(low, halves), k.ir.bitcast(high, halves), ir.Constant(halves, places)
    )
    return k.ir.bitcast(joined, _WORDS)


@kernel
def _draw(
    k: Builder, out: Value, passes: Value, position: Value,
    seed: Value, epoch: Value, member: Value, stream: Value, level: Value,
) -> None:  # fmt: skip
    """The bits of ``passes`` x DRAWN units, those from block ``position`` on; bytes below ``level`` drop."""
    word = k.integer(_WORD)
    keys = []
    low, high = k.ir.and_(seed, word), k.ir.lshr(seed, k.integer(32))
    for _ in range(ROUNDS):
        keys.append((_everywhere(k, low, _WORDS), _everywhere(k, high, _WORDS)))
        low, high = k.plus(low, KEY_STEPS[0]), k.plus(high, KEY_STEPS[1])
    draws = DRAWN * SAMPLES_PER_BLOCK
    bytes_, bits = ir.VectorType(ir.IntType(8), draws), ir.IntType(draws)
    threshold = _everywhere(k, k.ir.trunc(level, ir.IntType(8)), bytes_)
    fixed = [_everywhere(k, value, _WORDS) for value in (epoch, member, stream)]
    counting = ir.Constant(_WORDS, list(range(DRAWN)))
    with k.loop(passes) as number:
        first = k.plus(position, k.times(number, DRAWN))
        w0, w1, w2, w3 = _rounds(k, [k.ir.add(_everywhere(k, first, _WORDS), counting), *fixed], keys)
        front, back = _pair(k, w0, w1), _pair(k, w2, w3)
        # A unit's four words side by side are its sixteen bytes.
        places = [place for unit in range(DRAWN) for place in (unit, DRAWN + unit)]
        units = k.ir.shuffle_vector(front, back, ir.Constant(ir.VectorType(ir.IntType(32), 2 * DRAWN), places))
        kept = k.ir.bitcast(k.ir.icmp_unsigned(">=", k.ir.bitcast(units, bytes_), threshold), bits)
        k.ir.store(kept, k.pointer(k.plus(out, k.times(number, DRAWN * BITS_BYTES)), bits), align=2)


@njit(nogil=True)
def keep_bits(out, block_bytes, rate, seed, member, layer, epoch, batch, samples, units):
    """Draw the bits of a batch.

    Args:
        out: address of uint16 [ceil(samples / 16)][units rounded up to a multiple of DRAWN], written; those past
            the last unit, and bits of samples that there are not, have no meaning.
        block_bytes: bytes from a block of 16 samples to the next.
        rate: probability of being dropped, in [0, 1).
        seed: the run's seed, uint64.
        member: member id.
        layer: index among the network's dropout layers.
        epoch: epoch, from 1.
        batch: index of the batch in the epoch, from 0.
        samples: samples of every batch of the epoch.
        units: units of the layer, in the order of ``keep_mask``.
    """
    blocks = (samples + SAMPLES_PER_BLOCK - 1) // SAMPLES_PER_BLOCK
    for block in range(blocks):
        _draw(
            out + block * block_bytes, (units + DRAWN - 1) // DRAWN, (batch * blocks + block) * units,
            np.int64(seed), epoch, member, _DROPOUT | (layer + 1) << 8, np.int64(rounded_level(rate)),
        )  # fmt: skip


@njit(nogil=True)
def rounded_level(rate):
    """``drop_level``: the byte values that mean "drop"."""
    return min(np.rint(rate * LEVELS), LEVELS - 1.0)


@njit(nogil=True)
def kept_factor(rate):
    """What kept values are multiplied by: 1 / ``keep_probability``, float32."""
    return np.float32(1 / (1 - rounded_level(rate) / LEVELS))

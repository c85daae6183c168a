"""Keyed permutations for Triton, bit for bit those of ``permute.py``; random words are Triton's own Philox.

``tl.philox(seed, position, epoch, member, stream)`` is the reference's ``philox4x32`` if all four words of the
counter are uint32. These functions are called from other kernels.

An *address* is a row of a pack's table, int64 [P, 4]: the run's seed (its bits as a signed number), the member's
id, the epoch, and the place that the batch's first image has in the epoch.
"""

from __future__ import annotations

import triton
import triton.language as tl

ADDRESS_COLUMNS = 4

_MINIMUM_BITS = tl.constexpr(6)


@triton.jit
def read_address(addresses_ptr, member):
    """(seed, member id, epoch, first place) of a row of the table: int64, then three uint32."""
    row = addresses_ptr + member * 4
    seed, identity, epoch, place = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    return seed, identity.to(tl.uint32), epoch.to(tl.uint32), place.to(tl.uint32)


@triton.jit
def permuted(values, sizes, seed, member, epoch, streams):
    """The images of ``values`` under the permutations of 0 .. size-1 that belong to the addresses.

    Args:
        values: uint32 [n], each below its size.
        sizes: uint32 [n], each at least 1.
        seed: int64.
        member: uint32, id of the member.
        epoch: uint32.
        streams: uint32 [n].
    """
    zero = values * 0
    k0, k1, k2, k3 = tl.philox(seed, zero, zero + epoch, zero + member, streams)
    k4, k5, k6, k7 = tl.philox(seed, zero + 1, zero + epoch, zero + member, streams)
    last = sizes - 1
    bits = zero + _MINIMUM_BITS
    for bit in tl.static_range(_MINIMUM_BITS, 32):
        bits += (last >> bit != 0).to(tl.uint32)
    values = _feistel(values, bits, k0, k1, k2, k3, k4, k5, k6, k7)
    outside = values >= sizes
    while tl.max(outside.to(tl.int32), 0) != 0:
        again = _feistel(values, bits, k0, k1, k2, k3, k4, k5, k6, k7)
        values = tl.where(outside, again, values)
        outside = values >= sizes
    return values


@triton.jit
def _feistel(values, bits, k0, k1, k2, k3, k4, k5, k6, k7):
    """One pass; the halves change places each round, so that two rounds leave widths as they were."""
    right_bits = bits // 2
    left_bits = bits - right_bits
    one = tl.full((), 1, tl.uint32)
    left_mask, right_mask = (one << left_bits) - 1, (one << right_bits) - 1
    left, right = values >> right_bits, values & right_mask
    left, right = right, left ^ (_mix(right ^ k0) & left_mask)
    left, right = right, left ^ (_mix(right ^ k1) & right_mask)
    left, right = right, left ^ (_mix(right ^ k2) & left_mask)
    left, right = right, left ^ (_mix(right ^ k3) & right_mask)
    left, right = right, left ^ (_mix(right ^ k4) & left_mask)
    left, right = right, left ^ (_mix(right ^ k5) & right_mask)
    left, right = right, left ^ (_mix(right ^ k6) & left_mask)
    left, right = right, left ^ (_mix(right ^ k7) & right_mask)
    return (left << right_bits) | right


@triton.jit
def _mix(values):
    values = (values ^ (values >> 16)) * 0x85EBCA6B
    values = (values ^ (values >> 13)) * 0xC2B2AE35
    return values ^ (values >> 16)

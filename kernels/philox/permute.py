"""A keyed permutation of 0 .. n-1 that is computed place by place, so shuffling stores nothing.

A Feistel network permutes the numbers of b bits, b the fewest that hold n; a value outside 0 .. n-1 is sent
through again until it lands inside ("cycle walking", Black and Rogaway 2002). The round function is the
finaliser of MurmurHash3, keyed by Philox words.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .reference import words

ROUNDS = 8
MINIMUM_BITS = 6  # fewer would leave the rounds too little to mix


def permute(
    positions: npt.NDArray[np.int64], size: int, *, seed: int, member: int, stream: int, epoch: int = 0
) -> npt.NDArray[np.int64]:
    """The images of ``positions`` under the permutation of 0 .. size-1 that belongs to the address.

    Args:
        positions: int64, any shape, each in [0, size).
        size: how many numbers are permuted, at least 1.
        seed: 64-bit key.
        member: member id of the address.
        stream: stream of the address.
        epoch: epoch of the address.

    Returns:
        int64, the shape of ``positions``, each in [0, size).
    """
    keys = words(seed, member=member, stream=stream, epoch=epoch, count=ROUNDS)
    bits = max((size - 1).bit_length(), MINIMUM_BITS)
    values = _feistel(positions.astype(np.uint32).reshape(-1), bits, keys)
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], bits, keys)
    return values.astype(np.int64).reshape(positions.shape)


def _feistel(values: npt.NDArray[np.uint32], bits: int, keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """One pass: the halves (the left one may be a bit wider) change places each round, so widths alternate."""
    right_bits, left_bits = bits // 2, bits - bits // 2
    left, right = values >> np.uint32(right_bits), values & np.uint32((1 << right_bits) - 1)
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & np.uint32((1 << left_bits) - 1))
        left_bits, right_bits = right_bits, left_bits
    return (left << np.uint32(right_bits)) | right


def _mix(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))

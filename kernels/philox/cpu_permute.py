"""The keyed permutation of ``permute.py``, compiled: bit for bit the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit, uint32

from .cpu import philox4x32
from .permute import MINIMUM_BITS, ROUNDS

Numbers = npt.NDArray[np.uint32]


@njit(nogil=True, error_model="numpy")
def permute_in_place(numbers: Numbers, size: int, seed: int, member: int, stream: int, epoch: int) -> None:
    """Replace numbers by their images under the permutation of 0 .. size - 1 that belongs to an address.

    Args:
        numbers: uint32 [n], each below ``size``.
        size: how many numbers are permuted, at least 1.
        seed: 64-bit key.
        member: member id of the address.
        stream: stream of the address.
        epoch: epoch of the address.
    """
    keys = np.empty(ROUNDS, np.uint32)
    for block in range(ROUNDS // 4):
        for place, word in enumerate(philox4x32(seed, block, epoch, member, stream)):
            keys[4 * block + place] = word
    bits = MINIMUM_BITS
    while 1 << bits < size:
        bits += 1
    _feistel(numbers, bits, keys)
    # Those outside are sent through again: gathered, so that the passes stay vector code.
    places = np.empty(len(numbers), np.int64)
    count = 0
    for place in range(len(numbers)):
        places[count] = place
        count += numbers[place] >= size
    again = np.empty(count, np.uint32)
    while count:
        for index in range(count):
            again[index] = numbers[places[index]]
        _feistel(again[:count], bits, keys)
        left = 0
        for index in range(count):
            place = places[index]
            numbers[place] = again[index]
            places[left] = place
            left += again[index] >= size
        count = left


@njit(nogil=True, error_model="numpy")
def _feistel(numbers: Numbers, bits: int, keys: Numbers) -> None:
    """One pass over all numbers; ``permute._feistel`` two rounds at a time, so that the halves change back."""
    narrow = uint32(bits // 2)
    narrow_mask, wide_mask = uint32((1 << narrow) - 1), uint32((1 << (bits - narrow)) - 1)
    for index in range(len(numbers)):
        left, right = numbers[index] >> narrow, numbers[index] & narrow_mask
        for pair in range(0, ROUNDS, 2):
            left = left ^ (_mix(right ^ keys[pair]) & wide_mask)
            right = right ^ (_mix(left ^ keys[pair + 1]) & narrow_mask)
        numbers[index] = (left << narrow) | right


@njit(nogil=True, inline="always", error_model="numpy")
def _mix(value: np.uint32) -> np.uint32:
    value = uint32(uint32(value ^ (value >> uint32(16))) * uint32(0x85EBCA6B))
    value = uint32(uint32(value ^ (value >> uint32(13))) * uint32(0xC2B2AE35))
    return value ^ (value >> uint32(16))

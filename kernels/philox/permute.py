"""A keyed permutation of 0 .. n-1 that is computed place by place, so shuffling stores nothing.

A Feistel network permutes the numbers of b bits, b the fewest that hold n; a value outside 0 .. n-1 is sent
through again until it lands inside ("cycle walking", Black and Rogaway 2002). The round function is the
finaliser of MurmurHash3, keyed by Philox words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .reference import philox4x32, words

ROUNDS = 8
_MINIMUM_BITS = 6  # fewer would leave the rounds too little to mix


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
    values = _walk(positions.reshape(-1), np.array([size]), keys[:, None])
    return values.reshape(positions.shape)


def permute_each(
    positions: npt.NDArray[np.int64],
    which: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    *,
    seed: int,
    member: int,
    streams: Sequence[int],
    epoch: int = 0,
) -> npt.NDArray[np.int64]:
    """As ``permute``, each position under one of several permutations.

    Args:
        positions: int64 [n], each in [0, size) of its permutation.
        which: int64 [n], the permutation of each.
        sizes: int64 [permutations], how many numbers each permutes.
        seed: 64-bit key.
        member: member id of the addresses.
        streams: the stream of each permutation's address.
        epoch: epoch of the addresses.

    Returns:
        int64 [n].
    """
    blocks = np.arange(ROUNDS // 4)
    keys = philox4x32(seed, (blocks, epoch, member, np.array(streams)[:, None])).reshape(len(streams), ROUNDS)
    return _walk(positions, sizes[which], keys.T[:, which])


def _walk(
    positions: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], keys: npt.NDArray[np.uint32]
) -> npt.NDArray[np.int64]:
    """Positions [n] through the network until all are below their sizes [n or 1]; keys are [ROUNDS, n or 1]."""
    bits = np.maximum(np.frexp(sizes - 1)[1], _MINIMUM_BITS)  # the bit length: sizes are exact in float64
    values = _feistel(positions.astype(np.uint32), bits, keys)
    while (outside := values >= sizes).any():
        here = outside if len(sizes) == len(values) else slice(None)
        values[outside] = _feistel(values[outside], bits[here], keys[:, here])
    return values.astype(np.int64)


def _feistel(
    values: npt.NDArray[np.uint32], bits: npt.NDArray[np.int32], keys: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    """One pass: the halves (the left one may be a bit wider) change places each round, so widths alternate."""
    right_bits = (bits // 2).astype(np.uint32)
    left_bits = bits.astype(np.uint32) - right_bits
    right_mask, left_mask = ((np.uint32(1) << half) - np.uint32(1) for half in (right_bits, left_bits))
    left, right = values >> right_bits, values & right_mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & left_mask)
        left_mask, right_mask = right_mask, left_mask
    return (left << right_bits) | right


def _mix(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))

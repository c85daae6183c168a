"""Philox4x32-10 in NumPy, and the numbers drawn from it.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A counter-based generator has no state:
the words at an address are a pure function of (seed, address), in whatever order and company they are asked for.

An address is (position, epoch, member, stream), the four 32-bit words of the counter; the 64-bit seed is the
key. A stream is what the numbers are for (``Stream``), with an index where one purpose needs several.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Words = npt.NDArray[np.uint32]
Integers = npt.ArrayLike

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


class Stream(IntEnum):
    """What random numbers are for. The values are part of every zoo's identity: never renumber them."""

    PROPERTY = 1
    WEIGHTS = 2
    SPLIT = 3
    TRAINING_SUBSET = 4
    EPOCH_CLASS = 5
    EPOCH_ORDER = 6
    AUGMENTATION = 7
    NOISE = 8
    DROPOUT = 9

    def indexed(self, index: int) -> int:
        """The stream's ``index``-th branch: a tensor, a class, a dropout layer (0 to 65,535)."""
        return int(self) | (index + 1) << 8


def philox4x32(seed: int, counter: tuple[Integers, Integers, Integers, Integers]) -> Words:
    """Four random words for every counter.

    Args:
        seed: 64-bit key, 0 <= seed < 2**64.
        counter: four words, each an integer or an array of integers in [0, 2**32); they broadcast.

    Returns:
        uint32 [..., 4], with the broadcast shape of the counter in front.
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(ROUNDS):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _MASK,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _MASK,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(seed: int, *, member: int, stream: int, count: int, epoch: int = 0, first: int = 0) -> Words:
    """``count`` consecutive random words of an address: uint32 [count].

    Word j of a stream is word j % 4 of the block at position j // 4; ``first`` is the first block's position.
    """
    blocks = np.arange(first, first + -(-count // 4), dtype=np.uint64)
    return philox4x32(seed, (blocks, epoch, member, stream)).reshape(-1)[:count]


def uniform(random_words: Words) -> npt.NDArray[np.float64]:
    """Words to float64 uniforms in the open interval (0, 1): (word + 1/2) / 2**32."""
    return (random_words.astype(np.float64) + 0.5) * 2.0**-32


def normal(random_words: Words) -> npt.NDArray[np.float64]:
    """Words to standard normals, float64, by the inverse distribution function; at most 6.34 from zero."""
    return np.asarray(ndtri(uniform(random_words)))


def truncated_normal(random_words: Words) -> npt.NDArray[np.float64]:
    """Words to normals truncated at two standard deviations, float64 (their standard deviation is 0.8796)."""
    low, high = 0.022750131948179195, 0.9772498680518208  # the normal distribution function at -2 and 2
    return np.asarray(ndtri(low + (high - low) * uniform(random_words)))


def normal_pairs(random_words: Words) -> npt.NDArray[np.float32]:
    """Words to twice as many normals, float32, for image noise: Box-Muller on the two halves of a word.

    Word w with halves h (high) and l (low) gives r cos(a), r sin(a) with r = sqrt(-2 ln((h + 1) / 65536)) and
    a = 2 pi l / 65536, in that order; at most 4.71 from zero.
    """
    radius = np.sqrt(np.float32(-2) * np.log(((random_words >> 16) + 1).astype(np.float32) * np.float32(2**-16)))
    angle = (random_words & 0xFFFF).astype(np.float32) * np.float32(2 * np.pi / 65536)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(
        *random_words.shape[:-1], -1
    )

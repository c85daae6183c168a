"""Philox4x32-10, compiled by numba for the CPU: called from other compiled code, bit for bit the reference's."""

from __future__ import annotations

import numpy as np
from numba import njit, uint32, uint64

from .reference import KEY_STEPS, MULTIPLIERS, ROUNDS

_WORD = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_KEY_STEPS = tuple(np.uint64(step) for step in KEY_STEPS)


@njit(nogil=True, inline="always", error_model="numpy")
def philox4x32(seed: int, c0: int, c1: int, c2: int, c3: int) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    """Four random words of one counter; a loop over positions vectorises.

    Words are kept in 64 bits, whose upper halves are whatever they happen to be: only a product reads its factors'
    lower halves and only a shift reads its upper half, so a round is six vector instructions.

    Args:
        seed: 64-bit key.
        c0: position.
        c1: epoch.
        c2: member.
        c3: stream.

    Returns:
        Four uint32.
    """
    k0, k1 = uint64(seed) & _WORD, uint64(seed) >> _SHIFT
    w0, w1, w2, w3 = uint64(c0), uint64(c1), uint64(c2), uint64(c3)
    for _ in range(ROUNDS):
        product0, product1 = (w0 & _WORD) * MULTIPLIERS[0], (w2 & _WORD) * MULTIPLIERS[1]
        w0, w1, w2, w3 = (product1 >> _SHIFT) ^ w1 ^ k0, product1, (product0 >> _SHIFT) ^ w3 ^ k1, product0
        k0, k1 = k0 + _KEY_STEPS[0], k1 + _KEY_STEPS[1]
    return uint32(w0), uint32(w1), uint32(w2), uint32(w3)

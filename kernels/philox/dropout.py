"""Which units a member drops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .reference import Stream, philox4x32

LEVELS = 256
SAMPLES_PER_BLOCK = 16


def drop_level(rate: float) -> int:
    """How many of 256 byte values mean "drop": the rate rounded to the nearest 1/256, and never all of them."""
    return min(round(rate * LEVELS), LEVELS - 1)


def keep_probability(rate: float) -> float:
    """The probability with which a unit stays, exactly: what kept values are divided by."""
    return 1 - drop_level(rate) / LEVELS


def keep_mask(
    rate: float,
    *,
    seed: int,
    member: int,
    layer: int,
    epoch: int,
    batch: int,
    samples: int,
    units: int,
) -> npt.NDArray[np.bool_]:
    """The units that stay, for one batch.

    A block of four words serves one unit in sixteen samples, a byte each: unit u of sample s of the batch uses
    byte s % 16 (the low byte of a word is its first) of the block at position
    (batch * ceil(samples / 16) + s // 16) * units + u, modulo 2**32, and is dropped where that byte is less than
    the drop level. A byte a unit makes masks cheap enough for nets that drop more values than they multiply, and
    an integer comparison makes them the same on every backend.

    Args:
        rate: probability of being dropped, in [0, 1); it is rounded to the nearest 1/256.
        seed: the run's seed.
        member: member id.
        layer: index among the network's dropout layers.
        epoch: epoch, from 1.
        batch: index of the batch in the epoch, from 0.
        samples: samples of every batch of the epoch.
        units: units of the layer; those of an image in [H, W, C] order.

    Returns:
        bool [samples, units].
    """
    groups = -(-samples // SAMPLES_PER_BLOCK)
    positions = np.arange(batch * groups * units, (batch + 1) * groups * units, dtype=np.uint64) & 0xFFFFFFFF
    words = philox4x32(seed, (positions, epoch, member, Stream.DROPOUT.indexed(layer)))
    draws = words.astype("<u4").view(np.uint8).reshape(groups, units, SAMPLES_PER_BLOCK)
    keep: npt.NDArray[np.bool_] = draws.transpose(0, 2, 1).reshape(-1, units)[:samples] >= drop_level(rate)
    return keep

"""The images of an epoch in order, compiled: what ``Split.epoch_indices`` gives, number by number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from wse.kernels.philox import Stream
from wse.kernels.philox.cpu_permute import permute_in_place
from wse.kernels.simd.cache import cached_njit

from ..space import Member
from .split import Indices, Split

SOURCES = [Path(__file__)]

_ORDER = int(Stream.EPOCH_ORDER)
_CLASS = int(Stream.EPOCH_CLASS)
_SUBSET = int(Stream.TRAINING_SUBSET)


def epoch_indices(split: Split, member: Member, epoch: int, *, limit: int | None) -> Indices:
    """The training images of one epoch, in order: see ``Split.epoch_indices``.

    Args:
        split: the image set.
        member: whose epoch.
        epoch: from 1; 0 is an order that is never trained on.
        limit: at most so many images.

    Returns:
        int64 [n], indices into the official training images.
    """
    out = np.empty(split.epoch_size(member, limit=limit), dtype=np.int64)
    _fill(out, split.table, split.class_sizes, split.shares(member), np.uint64(member.seed), member.id, epoch)
    return out


def _draw(
    out: Indices,
    table: Indices,
    sizes: Indices,
    shares: Indices,
    seed: np.uint64,
    member: int,
    epoch: int,
) -> None:
    """Place in the epoch -> class and rank in it -> rank among the member's images of the class -> image."""
    count, classes = len(out), len(sizes)
    per_class = -(-count // classes)
    places = np.arange(count).astype(np.uint32)
    permute_in_place(places, classes * per_class, seed, member, _ORDER, epoch)
    # Sorted by class; a class has at most ``per_class`` places.
    ranks: npt.NDArray[np.uint32] = np.empty((classes, per_class), np.uint32)
    here, found = np.empty((classes, per_class), np.int64), np.zeros(classes, np.int64)
    for place in range(count):
        label = places[place] // np.uint32(per_class)
        ranks[label, found[label]] = places[place] - label * np.uint32(per_class)
        here[label, found[label]] = place
        found[label] += 1
    start = 0
    for label in range(classes):
        of_class, share, size = ranks[label, : found[label]], shares[label], sizes[label]
        stream = (label + 1) << 8
        permute_in_place(of_class, share, seed, member, _CLASS | stream, epoch)
        if share != size:
            permute_in_place(of_class, size, seed, member, _SUBSET | stream, 0)
        for index in range(len(of_class)):
            out[here[label, index]] = table[start + of_class[index]]
        start += size


_fill = cached_njit(_draw, SOURCES)

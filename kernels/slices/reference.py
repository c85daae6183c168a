"""Slices in float64, one at a time: what the fast versions are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .runs import EPSILON, Normalize, Runs

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def gather(
    vectors: Sequence[NDArray[Any]],
    places: Int64,
    counts: Int64,
    length: int,
    runs: Runs,
    *,
    normalize: Normalize = "none",
    shift: Float32 | None = None,
    scale: Float32 | None = None,
    first: Int64 | None = None,
) -> Float32:
    """One slice of each vector.

    Args:
        vectors: for each slice the stored vector it is taken from, float32, float16, or uint16 with the bits of
            bfloat16 [D]; B of them.
        places: of the first value of each slice, int64 [B].
        counts: how many values each slice has, at most ``length`` and none beyond the runs of its kind, int64
            [B]; the rest of a slice is 0.
        length: of what is returned.
        runs: which stored values places stand for.
        normalize: see ``Normalize``.
        shift: for ``run`` and ``place``, what is subtracted, float32; for ``place`` of each place.
        scale: what the difference is multiplied by, as ``shift``.
        first: for ``run``, where the entries of run 0 would stand in ``shift`` for the vector of each slice
            (negative where a vector's kind begins with a later run), int64 [B].

    Returns:
        [B, length] float32.
    """
    values = np.zeros((len(vectors), length), np.float32)
    for row, vector in enumerate(vectors):
        place = places[row] + np.arange(counts[row])
        value = decoded(vector[runs.stored_at(place)])
        if normalize == "slice":
            value = (value - value.mean()) / np.sqrt(value.var() + EPSILON)
        elif normalize != "none":
            assert shift is not None and scale is not None  # noqa: S101, PT018 - only these two have them
            at = place
            if normalize == "run":
                assert first is not None  # noqa: S101
                at = first[row] + runs.run_of(place)
            value = (value - shift[at]) * scale[at]
        values[row, : counts[row]] = value
    return values


def moments(vector: NDArray[Any], runs: Runs, group: Int64) -> NDArray[np.float64]:
    """Mean and variance of the values of groups of runs.

    Args:
        vector: as above [D].
        runs: of the vector's kind alone.
        group: which group each run is in, int64 [R].

    Returns:
        [R, 2] float64: for each run the mean and the (biased) variance of its group.
    """
    found = np.empty((len(runs.source), 2))
    place = np.arange(runs.begin[-1])
    value, owner = decoded(vector[runs.stored_at(place)]), group[runs.run_of(place)]
    for run, its_group in enumerate(group):
        chosen = value[owner == its_group]
        found[run] = chosen.mean(), chosen.var()
    return found


def decoded(stored: NDArray[Any]) -> NDArray[np.float64]:
    """Stored values as float64."""
    if stored.dtype == np.uint16:
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)

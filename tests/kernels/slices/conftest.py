"""Slices of vectors of two kinds, at the ends of runs and across them; NaN lies between the runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wse.kernels.slices import Normalize, Runs, reference

DTYPES = ("float32", "float16", "bfloat16")
MODES = ("none", "slice", "run", "place")

SIZE = 12_000
RUNS = Runs(  # the first kind has 6,050 places, the second 5,100
    begin=np.array([0, 6000, 6001, 6050, 6053, 11_150]), source=np.array([7, 6010, 6012, 0, 6900])
)
KINDS = ((0, 6050, 3), (6050, 11_150, 2))  # first place, one past the last, runs


@dataclass(frozen=True, kw_only=True)
class Case:
    """Arguments of ``gather``."""

    vectors: list[NDArray[Any]]
    places: NDArray[np.int64]
    counts: NDArray[np.int64]
    length: int
    normalizing: dict[str, Any]

    def expected(self) -> NDArray[np.float32]:
        return reference.gather(self.vectors, self.places, self.counts, self.length, RUNS, **self.normalizing)


def make_case(dtype: str, mode: Normalize, *, length: int, count: int = 8) -> Case:
    """The first slices start at the ends of runs; others anywhere."""
    rng = np.random.default_rng(length)
    vectors, places, counts, first = [], [], [], []
    entries = 0
    for row in range(count):
        kind = row % 2
        begin, stop, runs = KINDS[kind]
        last = max(stop - length, begin)
        ends = [begin, last, *(edge - offset for edge in RUNS.begin for offset in (1, 0, length // 2))]
        inside = [place for place in ends if begin <= place <= last]
        place = inside[row // 2] if row // 2 < len(inside) else int(rng.integers(begin, last + 1))
        places.append(place)
        whole = min(length, stop - begin)
        counts.append(max(whole - 2, 1) if row == 3 else whole)  # one is padded
        first.append(entries - (0 if kind == 0 else KINDS[0][2]))
        entries += runs
        used = RUNS.stored_at(np.arange(begin, stop))
        vector = np.full(SIZE, np.nan, np.float32)
        vector[used] = 0.1 * rng.standard_normal(len(used))
        vectors.append(stored(vector, dtype))
    normalizing: dict[str, Any] = {"normalize": mode}
    if mode in ("run", "place"):
        entries = entries if mode == "run" else int(RUNS.begin[-1])
        normalizing["shift"] = rng.standard_normal(entries).astype(np.float32)
        normalizing["scale"] = rng.uniform(0.1, 2, entries).astype(np.float32)
    if mode == "run":
        normalizing["first"] = np.array(first)
    return Case(
        vectors=vectors, places=np.array(places), counts=np.array(counts), length=length, normalizing=normalizing
    )


def stored(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """As a zoo keeps them; bfloat16 without rounding."""
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)

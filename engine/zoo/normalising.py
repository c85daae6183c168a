"""Means and standard deviations that slices are normalised by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wse.kernels.slices import EPSILON
from wse.kernels.slices.reference import decoded, moments

from ..errors import UsageError
from .items import Items
from .places import Places
from .shards import Float32

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Positions:
    """What every position of a part holds on average over training items; ``fit_positions`` makes it.

    Attributes:
        part: as in ``Layout.part``.
        statistics: whether the part includes moving averages.
        mean: architecture of a training item -> the mean of each position, float32 [values of the part].
        std: likewise the (biased) standard deviation.
    """

    part: str
    statistics: bool
    mean: Mapping[str, Float32]
    std: Mapping[str, Float32]


Normalizing = Literal["none", "slice", "layer"] | Positions
"""How values are normalised: see ``SliceDataset``."""


def fit_positions(items: Items, part: str, *, statistics: bool = False) -> Positions:
    """The mean and standard deviation of each position over items; give it training items only.

    Every architecture has positions of its own, so there should be many items of each.

    Args:
        items: to fit to; all of them are read.
        part: as in ``Layout.part``.
        statistics: whether to include moving averages.

    Raises:
        UsageError: an architecture has no such part.
        WseError: a shard is missing or damaged.
    """
    layouts = {name: items.zoo.layout(name) for name in items.architectures}
    places = Places(layouts, part, None, statistics=statistics, pad=True)
    mean, std = {}, {}
    for code in np.unique(items.architecture).tolist():
        runs = places.runs_of(code)
        at = runs.stored_at(np.arange(runs.begin[-1]))
        middle, squares = np.zeros(len(at)), np.zeros(len(at))
        mine = np.flatnonzero(items.architecture == code).tolist()
        for seen, index in enumerate(mine, 1):
            # Welford, Technometrics 4 (1962): nothing cancels.
            value = decoded(items.stored(index)[at])
            difference = value - middle
            middle += difference / seen
            squares += difference * (value - middle)
        name = places.names[code]
        mean[name], std[name] = middle.astype(np.float32), np.sqrt(squares / len(mine)).astype(np.float32)
    return Positions(part=part, statistics=statistics, mean=mean, std=std)


def by_place(positions: Positions, places: Places) -> tuple[Float32, Float32]:
    """What to subtract at each place, and what to multiply by.

    Raises:
        UsageError: the positions are of another part, or lack an architecture.
    """
    if (positions.part, positions.statistics) != (places.part, places.statistics):
        raise UsageError(
            f"positions of {_of(positions)} cannot normalise slices of {_of(places)}: fit them to the same part"
        )
    for name in places.names:
        if name not in positions.mean:
            raise UsageError(f"positions were not fitted to architecture {name}: fit them to items that have it")
    shift = np.concatenate([positions.mean[name] for name in places.names])
    return shift, scale_of(np.concatenate([positions.std[name] for name in places.names]).astype(np.float64) ** 2)


class LayerMoments:
    """The mean and standard deviation of every layer of every item, found when an item is first seen.

    Args:
        places: of the part; a layer is what the part has of it.
        architecture: of each item [N].

    Attributes:
        shift: what to subtract, an entry for each run of each item, float32.
        scale: what to multiply by, likewise.
        first: where the entries of run 0 of all runs would be for each item [N].
    """

    def __init__(self, places: Places, architecture: NDArray[np.int64]) -> None:
        self._places, self._architecture = places, architecture
        counts = np.diff(places.first_run)[architecture]
        self.first: NDArray[np.int64] = np.cumsum(counts) - counts - places.first_run[architecture]
        self.shift: Float32 = np.full(int(counts.sum()), np.nan, np.float32)
        self.scale = self.shift.copy()

    def only(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> LayerMoments:
        """Those of some items; what is found for one is found for the other."""
        part = object.__new__(LayerMoments)
        part.__dict__.update(vars(self), first=self.first[chosen], _architecture=self._architecture[chosen])
        return part

    def see(self, index: int, vector: NDArray[np.float32]) -> None:
        """Find those of one item, from its stored vector."""
        code, places = int(self._architecture[index]), self._places
        start, stop = places.first_run[code], places.first_run[code + 1]
        found = moments(vector, places.runs_of(code), places.layer[start:stop])
        at = slice(self.first[index] + start, self.first[index] + stop)
        self.shift[at], self.scale[at] = found[:, 0], scale_of(found[:, 1])


def scale_of(variance: Float64) -> Float32:
    """One over the standard deviation."""
    scale: Float32 = (1 / np.sqrt(variance + EPSILON)).astype(np.float32)
    return scale


def _of(what: Positions | Places) -> str:
    return what.part + (" with moving averages" if what.statistics else "")

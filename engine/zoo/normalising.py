"""Means and standard deviations that slices are normalised by."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wse.kernels.slices import EPSILON, Normalize
from wse.kernels.slices.reference import decoded

from ..errors import UsageError
from .items import Items
from .places import Int64, Places
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


class Scaling:
    """What kernels need to normalise slices of items.

    Args:
        normalize: how.
        places: of the part.
        architecture: of each item [N].

    Attributes:
        mode: how, as kernels call it.
        shift: what to subtract, float32: by place, or an entry for each run of each item; else None.
        scale: what to multiply by, likewise.
        first: where in ``shift`` run 0 of all runs would be for each item [N]; None where that is no matter.

    Raises:
        UsageError: there is no such way, positions are of another part, or they lack an architecture.
    """

    def __init__(self, normalize: Normalizing, places: Places, architecture: Int64) -> None:
        self.mode: Normalize
        self.shift: Float32 | None = None
        self.scale: Float32 | None = None
        self.first: Int64 | None = None
        self._places, self._architecture = places, architecture
        if isinstance(normalize, Positions):
            self.mode = "place"
            self.shift, self.scale = _by_place(normalize, places, np.unique(architecture))
        elif normalize == "layer":
            # An item's entries are found when its weights are first seen.
            self.mode = "run"
            counts = np.diff(places.first_run)[architecture]
            self.first = np.cumsum(counts) - counts - places.first_run[architecture]
            self.shift = np.full(int(counts.sum()), np.nan, np.float32)
            self.scale = self.shift.copy()
        elif normalize in ("none", "slice"):
            self.mode = normalize
        else:
            raise UsageError(f"`normalize` (={normalize!r}) must be none, slice, layer or fitted positions")

    def see(self, index: int, vector: NDArray[Any]) -> None:
        """Find what is needed of one item, given its stored vector."""
        if self.first is None or self.shift is None or self.scale is None:
            return
        from wse.kernels.slices.cpu import moments  # numba need not be there to open a zoo

        code, places = int(self._architecture[index]), self._places
        start, stop = places.first_run[code], places.first_run[code + 1]
        found = moments(vector, places.runs_of(code), places.layer[start:stop])
        at = slice(self.first[index] + start, self.first[index] + stop)
        self.shift[at], self.scale[at] = found[:, 0], _scale_of(found[:, 1])

    def arguments(self, chosen: Int64) -> dict[str, Any]:
        """Those of ``gather``, for slices of these items [B]."""
        first = None if self.first is None else self.first[chosen]
        return {"normalize": self.mode, "shift": self.shift, "scale": self.scale, "first": first}

    def only(self, chosen: NDArray[Any]) -> Scaling:
        """That of some items; what is found for one is found for the other."""
        part = copy.copy(self)
        part._architecture = self._architecture[chosen]
        part.first = None if self.first is None else self.first[chosen]
        return part


def _by_place(positions: Positions, places: Places, architectures: Int64) -> tuple[Float32, Float32]:
    if (positions.part, positions.statistics) != (places.part, places.statistics):
        raise UsageError(
            f"positions of {_of(positions)} cannot normalise slices of {_of(places)}: fit them to the same part"
        )
    shift = np.full(int(places.runs.begin[-1]), np.nan, np.float32)
    scale = shift.copy()
    for code in architectures.tolist():
        name = places.names[code]
        if name not in positions.mean:
            raise UsageError(f"positions were not fitted to architecture {name}: fit them to items that have it")
        at = slice(places.first[code], places.first[code] + places.sizes[code])
        shift[at] = positions.mean[name]
        scale[at] = _scale_of(positions.std[name].astype(np.float64) ** 2)
    return shift, scale


def _scale_of(variance: Float64) -> Float32:
    """One over the standard deviation."""
    scale: Float32 = (1 / np.sqrt(variance + EPSILON)).astype(np.float32)
    return scale


def _of(what: Positions | Places) -> str:
    return what.part + (" with moving averages" if what.statistics else "")

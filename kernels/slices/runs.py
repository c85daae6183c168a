"""Which stored values slices are made of.

A vector (the weights of one network) is read as *runs* of consecutive stored values laid end to end, so that what
lies between runs is left out. Networks may be of several kinds, each with runs of its own. All kinds are laid end
to end too, so that a *place*, an index into that one long line, says both the kind and where in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Normalize = Literal["none", "slice", "run", "place"]
"""How values are normalised.

    none    not at all
    slice   by the mean and the standard deviation of the slice
    run     (value - shift) * scale, which each vector has for each of its runs
    place   (value - shift) * scale, which belong to the place whatever the vector
"""

EPSILON = 1e-12
"""Added to a variance before its root is taken: what does not vary becomes 0. Weights vary by 1e-4 and more."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Runs:
    """The runs of all kinds, R of them.

    Attributes:
        begin: place of the first value of each run, and one past the last place, ascending, int64 [R + 1].
        source: index of the first value of each run in the stored vector, int64 [R].

    Raises:
        ValueError: a run is empty, or the numbers of entries do not fit.
    """

    begin: NDArray[np.int64]
    source: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.begin) != len(self.source) + 1 or self.begin[0] != 0 or np.any(np.diff(self.begin) < 1):
            raise ValueError("`begin` must ascend from 0 and have one entry more than `source`")

    def run_of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The run that each place is in."""
        return np.searchsorted(self.begin, places, side="right") - 1

    def stored_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index in the stored vector that each place stands for."""
        run = self.run_of(places)
        return self.source[run] + places - self.begin[run]

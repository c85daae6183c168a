"""Where slices may start: which values of each architecture's vector they are made of."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wse.kernels.slices import Runs

from ..errors import UsageError
from ..nets import Layout

Int64 = NDArray[np.int64]


class Places:
    """The places of slices of one length inside a part, for several architectures.

    A place is an index into the values of the part, all architectures laid end to end: see ``Runs``.

    Args:
        layouts: of the architectures, by name.
        part: ``all``, ``conv3``, ``conv2.weight``, ...: see ``Layout.part``.
        length: of a slice, in values; None: as long as the part is.
        statistics: whether the moving averages of batch normalisation belong to the part. If not, a slice goes on
            behind them as if they were not there.
        pad: whether a part may be shorter than ``length``; its slice ends in zeros then.

    Attributes:
        part: see above.
        length: of a slice.
        statistics: see above.
        names: of the architectures, A of them.
        runs: runs of one layer each, all architectures.
        layer: a number for each run, the same for runs of one layer of one architecture [R].
        first: the first place of each architecture [A].
        sizes: the number of values that the part has in each architecture [A].
        first_run: the first run of each architecture, and their number [A + 1].

    Raises:
        UsageError: an architecture has no such part, only moving averages in it, or one shorter than ``length``;
            ``length`` is None but the part is not of one size.
    """

    def __init__(
        self, layouts: Mapping[str, Layout], part: str, length: int | None, *, statistics: bool, pad: bool
    ) -> None:
        self.part, self.statistics, self.names = part, statistics, tuple(layouts)
        begin, source, layer, counts = [0], [], [], []
        codes: dict[tuple[str, str], int] = {}
        for name, layout in layouts.items():
            runs = layout.runs(part, statistics=statistics)
            if not runs:
                raise UsageError(
                    f"part {part} of architecture {name} has nothing but moving averages: choose another part, "
                    "or ask for them with statistics=True (--statistics)"
                )
            counts.append(len(runs))
            for start, stop, owner in runs:
                begin.append(begin[-1] + stop - start)
                source.append(start)
                layer.append(codes.setdefault((name, owner), len(codes)))
        self.runs = Runs(begin=np.array(begin), source=np.array(source))
        self.layer: Int64 = np.array(layer)
        self.first_run: Int64 = np.concatenate(([0], np.cumsum(counts)))
        bounds = self.runs.begin[self.first_run]
        self.first: Int64 = bounds[:-1]
        self.sizes: Int64 = np.diff(bounds)
        self.length = self._checked(length, pad)

    def room(self, architecture: Int64) -> Int64:
        """How many places a slice may start at in each of these architectures, at least 1."""
        return np.maximum(self.sizes[architecture] - self.length, 0) + 1

    def counts(self, architecture: Int64) -> Int64:
        """How many values a slice of each of these architectures has before zeros fill it up."""
        return np.minimum(self.sizes[architecture], self.length)

    def evenly(self, architecture: Int64, count: int) -> Int64:
        """Places from the first to the last of each of these architectures; a single one is in the middle.

        Returns:
            [B, count], rounded down; places repeat where there are fewer of them.
        """
        last = self.room(architecture)[:, None] - 1
        offset = last * np.arange(count) // (count - 1) if count > 1 else last // 2
        return self.first[architecture][:, None] + offset

    def runs_of(self, code: int) -> Runs:
        """The runs of one architecture alone."""
        start, stop = self.first_run[code], self.first_run[code + 1]
        begin = self.runs.begin[start : stop + 1]
        return Runs(begin=begin - begin[0], source=self.runs.source[start:stop])

    def _checked(self, length: int | None, pad: bool) -> int:
        if length is None:
            if not pad and len(set(self.sizes)) > 1:
                found = ", ".join(f"{size:,}" for size in sorted({int(size) for size in self.sizes}))
                raise UsageError(
                    f"part {self.part} is not of one size ({found} values): give a length, as {self.part}:LENGTH"
                )
            return int(self.sizes.max())
        if operator.index(length) < 1:
            raise UsageError(f"`length` (={length}) must be at least 1")
        shortest = int(self.sizes.argmin())
        if not pad and self.sizes[shortest] < length:
            raise UsageError(
                f"part {self.part} of architecture {self.names[shortest]} has {self.sizes[shortest]:,} values, "
                f"fewer than the length {length:,}: choose a smaller length or other members"
            )
        return length

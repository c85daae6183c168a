"""The tables that the CPU backend's programs are made of: operations over tensors in scratch memory.

All places and strides are in bytes. Values lie in lane tiles, [group of V samples][channel][row][pixel][V]; the
zero border that a convolution's padding needs is part of its input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wse.kernels.linear.cpu import INPUTS
from wse.kernels.simd import VECTOR_BYTES

from .arrangement import round_up

CONVOLUTION, LINEAR, NORMALISATION, ACTIVATION, MAX_POOL, AVERAGE_POOL, DROPOUT = range(7)

NONE = -1
_LINE_BYTES = 64

ADDRESSES = (
    "start",
    "channel",
    "sums",
    "tile_sums",
    "flipped",
    "vectors",
    "turned",
    "scaled",
    "floor",
    "kept",
    "bits",
    "share",
)
PARAMETERS = ("weight", "bias", "beta", "gamma", "moving_mean", "moving_variance")


def record(*names: str) -> np.dtype[Any]:
    """A structured type of int64 fields."""
    return np.dtype([(name, np.int64) for name in names])


TENSOR = record("at", "group", "channel", "row", "channels", "height", "width", "features")
"""Values of a batch: address of the first pixel, border excluded; strides; sizes."""

PHASE = record(
    *("flipped", "rest_row", "rest_column", "rows", "columns", "d_row", "d_column"),
    *("row", "column", "out_rows", "out_columns"),
)
"""The input gradient at every ``stride``-th row and column is a convolution with part of the flipped filter.

Fields: where its weights begin (floats); the first filter row and column of every ``stride`` that it has, and
how many rows and columns; the first pixel of the output's gradient that it reads
(in the border if negative); the first pixel of the input's gradient that it makes, and how many.
"""

OPERATION = record(
    *("kind", "x", "y", "d_x", "d_y", "z", "pooled", "d_z"),  # tensors
    *PARAMETERS,  # in the packed weights; NONE where there is none
    *("norm", "active", "pool", "drop"),  # what a convolution has behind it
    *("size", "stride", "corner", "phase", "phases"),  # of a convolution; ``corner``: bytes of border before x
    *(
        "scatter",
        "before",
        "behind",
    ),  # whether ``scatter_row`` serves it; convolutions joined to it in ``_join_ends``
    *("inputs", "allotted", "outputs", "frozen"),  # of a linear layer
    *("layer", "block"),  # index of a dropout layer; bytes of its bits for 16 samples
    *ADDRESSES,
)

BATCH = record(
    *("weights", "gradient", "scratch", "masks", "shares", "totals", "ones", "zeros", "least", "all", "waste"),
    *("samples", "groups", "activation", "batch_statistics", "dropout", "first", "last"),
)
"""What an operation needs to know of the batch.

Fields: addresses of the packed weights, their gradient and the scratch memory; of float32 [groups, V] that are 1
where there is a sample, and 1 / samples; of room for 2 V floats; of ones, zeros, a floor that no value is below,
dropout bits that are all set, and room for sums that nobody wants; samples; groups of V; the activation's code;
whether normalisation uses the batch's statistics; whether units are dropped; whether these samples are the batch's
first and its last.
"""

Table = npt.NDArray[np.void]


@dataclass(kw_only=True)
class Value:
    """What flows between two operations."""

    channels: int
    height: int
    width: int
    border: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right


@dataclass(kw_only=True)
class Tables:
    """The tables while they are made; places are relative to the scratch memory.

    Attributes:
        groups: groups of V samples in a batch.
        end: bytes of scratch memory given out.
    """

    groups: int
    operations: list[dict[str, int]] = field(default_factory=list)
    tensors: list[dict[str, int]] = field(default_factory=list)
    phases: list[dict[str, int]] = field(default_factory=list)
    end: int = 0

    def room(self, size: int) -> int:
        """Bytes of scratch memory, on a cache line of their own."""
        at = self.end
        self.end += round_up(size, _LINE_BYTES)
        return at

    def tensor(self, value: Value, *, shared: bool = False) -> int:
        """A tensor for a value, or one that all groups share, one after the other; its index."""
        top, left, bottom, right = value.border
        row = (value.width + left + right) * VECTOR_BYTES
        channel = (value.height + top + bottom) * row
        features = value.channels * value.height * value.width
        group = max(round_up(value.channels, 4) * channel, round_up(features, INPUTS) * VECTOR_BYTES)
        at = self.room(group * (1 if shared else self.groups))
        self.tensors.append(
            {
                "at": at + top * row + left * VECTOR_BYTES,
                "group": 0 if shared else group,
                "channel": channel,
                "row": row,
                "channels": value.channels,
                "height": value.height,
                "width": value.width,
                "features": features,
            }
        )
        return len(self.tensors) - 1


def table(kind: np.dtype[Any], rows: list[dict[str, int]]) -> Table:
    """A structured array of rows; a field that a row does not name is 0."""
    return np.array([tuple(row.get(name, 0) for name in kind.names or ()) for row in rows], dtype=kind)

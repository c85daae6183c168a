"""What an operation leaves behind so that its output can be normalised without being read again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moments:
    """Count, mean and sum of squares about that mean of each column of each tile.

    Attributes:
        parts: float32 [T, 3, columns].
        first: the first tile of each member, and their number, int32 [P + 1].
        copies: how many times the channels lie side by side: column s * channels + c belongs to channel c.
    """

    parts: Tensor
    first: Tensor
    copies: int

"""How images or features are cut up to be normalised, activated and pooled.

A tile holds windows of ``pool`` x ``pool`` pixels, those included that the border cuts off: they are not pooled,
but have a gradient, because their pixels count in a batch's statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..triton_layout import margin_of, power_of_two

_ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Sizes of a launch.

    Args:
        height: of what is pooled, in pixels.
        width: of what is pooled, in pixels.
        channels: C, those that have a scale and a shift.
        stored: C' >= C, those of the tensors.
        pool: side of a window.
        margin: of what is pooled, left and right, for its gradient.
        out_margin: of what comes out, left and right.
    """

    height: int
    width: int
    channels: int
    stored: int
    pool: int = 1
    margin: int = 0
    out_margin: int = 0

    @classmethod
    def of(
        cls, y: Tensor, out: Tensor, *, channels: int, pool: int, images: int, gradient: Tensor | None = None
    ) -> Windows:
        """Those of images [R, H, W, C'] that become [R, H // pool, W // pool + 2 M, C'], or of features [R, C'].

        Raises:
            ValueError: the tensors do not fit together, or have gaps in memory.
        """
        inner, outer, back = (
            part[:, None, None] if part.ndim == 2 else part
            for part in (y, out, y if gradient is None else gradient)
        )
        if inner.ndim != 4 or pool < 1 or min(inner.shape[1:3]) < pool:
            raise ValueError(
                f"`y` ({list(y.shape)}) must be images or features, and no smaller than `pool` (={pool})"
            )
        height, width, stored = inner.shape[1:]
        if margin_of("y", inner, (height, width, stored)) or not 0 < channels <= stored:
            raise ValueError(f"`y` ({list(y.shape)}) must have at least the {channels} channels of `gamma`")
        if {y.dtype} != {out.dtype, back.dtype} or min(len(y), len(out), len(back)) < images:
            raise ValueError(f"all images must be of one dtype, with room for {images} of them")
        return cls(
            height=height,
            width=width,
            channels=channels,
            stored=stored,
            pool=pool,
            margin=margin_of("dy", back, (height, width, stored)),
            out_margin=margin_of("out", outer, (height // pool, width // pool, stored)),
        )

    @property
    def is_features(self) -> bool:
        """Whether an image is one pixel, as a vector of features is."""
        return self.height == self.width == 1

    @property
    def items(self) -> int:
        """Windows of an image."""
        return -(-self.height // self.pool) * -(-self.width // self.pool)

    @property
    def block(self) -> int:
        """Channels of a program."""
        return power_of_two(min(self.stored, 64))

    @property
    def blocks(self) -> int:
        """Programs side by side."""
        return -(-self.stored // self.block)

    @property
    def columns(self) -> int:
        """Channels of all programs."""
        return self.block * self.blocks

    @property
    def rows(self) -> int:
        """Windows that a program has at a time: 1,024 values of them, one whole load a thread."""
        return max(16, 1024 // self.block)

    @property
    def tile(self) -> int:
        """Windows of a program: several times as many, as it has parameters to load and sums to share first."""
        return _ROUNDS * self.rows

    def constants(self) -> dict[str, Any]:
        """The kernels' constants about sizes, margins aside."""
        return {
            "HEIGHT": self.height,
            "WIDTH": self.width,
            "CHANNELS": self.channels,
            "STORED": self.stored,
            "POOL": self.pool,
            "ROWS": self.rows,
            "BLOCK": self.block,
        }


WITH_GELU = (48, 128)
"""Channels of those that are compiled with GELU too, for a look at it: no preset has it."""


def known_windows() -> Iterator[tuple[str, Windows, bool]]:
    """All images and features that the presets can ask for: name, sizes and margins, whether units are dropped."""
    for width in (4, 8, 12):
        for size, channels, pools in ((32, width, (2,)), (16, 2 * width, (1, 2)), (8, 4 * width, (1, 2))):
            for pool in pools:
                last = size == 8 and pool == 2  # flattened, so without a margin
                for margin in (1, 2, 3):
                    windows = Windows(
                        height=size, width=size, channels=channels, stored=channels, pool=pool, margin=margin,
                        out_margin=0 if last else margin,
                    )  # fmt: skip
                    yield f"{size}x{size}-{channels}-pool{pool}-margin{margin}", windows, False
    for size in (15, 7, 3):
        yield f"{size}x{size}-16", Windows(height=size, width=size, channels=16, stored=16), True
    for features in known_features():
        yield f"features-{features}", Windows(height=1, width=1, channels=features, stored=features), True


def known_features() -> Iterator[int]:
    """Every width of a hidden layer that the presets can ask for."""
    yield from sorted({width >> hidden for width in (64, 128, 192) for hidden in range(4)})

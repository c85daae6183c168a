"""Convolutions as matrix products of windows and bands: their geometry, and the tiles that serve them.

Narrow layers would leave most of a matrix instruction empty. So S neighbouring output pixels are one item, a
*super-pixel*: the input pixels that they see of one filter row lie side by side in memory, and are one row of a
matrix. It is multiplied by the filter row written S times along a band, each time one stride further down:

    out[item, (s, o)] = sum over filter rows, window pixels q and channels c of
                        window[item, (q, c)] * band[filter row, (q, c), (s, o)]

The input gradient is such a product as well, of windows of the output's gradient with the band of the reversed
filter; with a stride, only filter rows of one parity see a row. The weight gradient is the transposed product,
summed along the band.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..triton_layout import power_of_two

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True, kw_only=True)
class ConvShape:
    """A convolution's sizes.

    Args:
        height: of the input, in pixels.
        width: of the input, in pixels.
        channels: of the input, as they are stored.
        outputs: channels of the output.
        kernel: side of the filter.
        stride: in both directions.
        padding: "same" or "valid", as in TensorFlow.
    """

    height: int
    width: int
    channels: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: Literal["same", "valid"] = "same"

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels", "outputs", "kernel", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` (={getattr(self, name)}) must be at least 1")
        if self.padding == "valid" and min(self.height, self.width) < self.kernel:
            raise ValueError(f"`kernel` (={self.kernel}) does not fit into {self.height} x {self.width} pixels")

    @property
    def out_height(self) -> int:
        """Of the output, in pixels."""
        return self._out(self.height)

    @property
    def out_width(self) -> int:
        """Of the output, in pixels."""
        return self._out(self.width)

    @property
    def top(self) -> int:
        """Zero rows above the input."""
        return self._before(self.height)

    @property
    def left(self) -> int:
        """Zero columns before the input."""
        return self._before(self.width)

    def _out(self, size: int) -> int:
        return -(-size // self.stride) if self.padding == "same" else (size - self.kernel) // self.stride + 1

    def _before(self, size: int) -> int:
        if self.padding == "valid":
            return 0
        return max((self._out(size) - 1) * self.stride + self.kernel - size, 0) // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """What a launch is cut into.

    Attributes:
        pixels: S, neighbouring pixels of a super-pixel.
        chunk: window values multiplied at a time; in weight gradients, super-pixels at a time.
        rows: super-pixels of a program; in weight gradients, window values.
        num_warps: warps of a program.
        num_stages: depth of the pipeline of loads.
    """

    pixels: int
    chunk: int
    rows: int = 128
    num_warps: int = 4
    num_stages: int = 3


@dataclass(frozen=True, kw_only=True)
class Product:
    """A convolution, or its input gradient, as the product of windows of one tensor that makes another.

    Attributes:
        kernel: filter rows.
        source: (height, width, channels) of what windows are taken from.
        target: (height, width, channels) of what is made.
        down: source pixels from one target pixel to the next; above 1 in a strided convolution.
        up: target pixels from one source pixel to the next; above 1 in its input gradient.
        top: source rows, in steps of 1 / up, before the first that target row 0 sees.
        left: source columns before the first target column's.
        window: source pixels that a super-pixel sees of a row.
        shift: filter column that window pixel 0 has for target pixel 0 of a super-pixel.
        tiling: what it is cut into.
    """

    kernel: int
    source: tuple[int, int, int]
    target: tuple[int, int, int]
    down: int
    up: int
    top: int
    left: int
    window: int
    shift: int
    tiling: Tiling

    @property
    def items(self) -> int:
        """Super-pixels of an image."""
        return self.target[0] * -(-self.target[1] // self.tiling.pixels)

    @property
    def window_values(self) -> int:
        """Values of a window, one filter row."""
        return self.window * self.source[2]

    @property
    def padded_window(self) -> int:
        """Those, rounded up to whole chunks."""
        return -(-self.window_values // self.tiling.chunk) * self.tiling.chunk

    @property
    def columns(self) -> int:
        """Values of a super-pixel, rounded up to what a matrix instruction takes."""
        return power_of_two(self.tiling.pixels * self.target[2], at_least=16)

    def within(self, margin: int) -> bool:
        """Whether all windows lie inside rows with that margin, so that columns need no mask."""
        across = -(-self.target[1] // self.tiling.pixels)
        last = (across - 1) * self.tiling.pixels * self.down // self.up - self.left + self.window
        return self.left <= margin and last <= self.source[1] + margin


def forward_product(shape: ConvShape, tiling: Tiling) -> Product:
    """The convolution itself."""
    return Product(
        kernel=shape.kernel,
        source=(shape.height, shape.width, shape.channels),
        target=(shape.out_height, shape.out_width, shape.outputs),
        down=shape.stride,
        up=1,
        top=shape.top,
        left=shape.left,
        window=(tiling.pixels - 1) * shape.stride + shape.kernel,
        shift=0,
        tiling=tiling,
    )


def gradient_product(shape: ConvShape, tiling: Tiling) -> Product:
    """The gradient of its input, from that of its output.

    Raises:
        ValueError: super-pixels are no whole number of strides.
    """
    if tiling.pixels % shape.stride:
        raise ValueError(f"`pixels` (={tiling.pixels}) must be a multiple of the stride {shape.stride}")
    # Output pixel p has input pixel p * stride + tap - left: which p have a tap for one of pixels 0 to S - 1?
    left = (shape.kernel - 1 - shape.left) // shape.stride
    right = (tiling.pixels - 1 + shape.left) // shape.stride
    return Product(
        kernel=shape.kernel,
        source=(shape.out_height, shape.out_width, shape.outputs),
        target=(shape.height, shape.width, shape.channels),
        down=1,
        up=shape.stride,
        top=shape.kernel - 1 - shape.top,
        left=left,
        window=left + right + 1,
        shift=shape.left + shape.stride * left,
        tiling=tiling,
    )


# (source channels, target channels) -> (S, chunk) for filters 3, 5 and 7, where it is not what follows from sizes.
_CHOSEN: dict[tuple[int, int], dict[int, tuple[int, int]]] = {
    (4, 4): {3: (8, 16), 5: (8, 16), 7: (8, 64)},
    (4, 8): {3: (8, 16), 5: (8, 16), 7: (8, 32)},
    (8, 4): {3: (8, 16), 5: (8, 32), 7: (8, 16)},
    (8, 8): {3: (8, 16), 5: (8, 32), 7: (8, 16)},
    (8, 16): {3: (4, 16), 5: (4, 64), 7: (4, 16)},
    (16, 8): {3: (4, 32), 5: (8, 64), 7: (8, 32)},
    (16, 16): {3: (4, 32), 5: (4, 64), 7: (4, 32)},
    (16, 32): {3: (2, 64), 5: (4, 64), 7: (4, 32)},
    (32, 16): {3: (4, 64), 5: (4, 64), 7: (4, 64)},
    (32, 32): {3: (2, 32), 5: (4, 64), 7: (4, 64)},
    (4, 12): {3: (4, 16), 5: (4, 32), 7: (4, 16)},
    (12, 12): {3: (4, 16), 5: (4, 32), 7: (4, 64)},
    (12, 24): {3: (2, 16), 5: (4, 32), 7: (4, 64)},
    (24, 12): {3: (4, 16), 5: (4, 64), 7: (4, 16)},
    (24, 24): {3: (2, 32), 5: (4, 64), 7: (4, 16)},
    (24, 48): {3: (2, 32), 5: (2, 16), 7: (2, 64)},
    (48, 24): {3: (2, 64), 5: (4, 64), 7: (4, 32)},
    (48, 48): {3: (2, 64), 5: (2, 32), 7: (2, 64)},
}


def product_tiling(kernel: int, source: int, target: int, width: int, stride: int, precision: Precision) -> Tiling:
    """What ``forward_product`` and ``gradient_product`` are cut into.

    Args:
        kernel: side of the filter.
        source: channels of what windows are taken from.
        target: channels of what is made.
        width: of what is made, in pixels.
        stride: of the convolution.
        precision: of the factors.
    """
    pixels, chunk = _CHOSEN.get((source, target), {}).get(kernel, (0, 0))
    fits = power_of_two(max(width, stride))
    if precision == "fp32" or stride > 1 or not 0 < pixels <= fits:
        pixels = max(min(8, fits, 64 // power_of_two(target)), 1)
        pixels = -(-pixels // stride) * stride
        values = (pixels - 1 + kernel) * source
        chunk = min((64, 32, 16), key=lambda size: (-(-values // size) * size, -size))
    if precision == "fp32":  # three products each, of twice the bytes
        return Tiling(pixels=pixels, chunk=min(chunk, 32), rows=64, num_stages=2)
    return Tiling(pixels=pixels, chunk=chunk)


def forward_tiling(shape: ConvShape, precision: Precision) -> Tiling:
    """What the convolution is cut into."""
    return product_tiling(shape.kernel, shape.channels, shape.outputs, shape.out_width, shape.stride, precision)


def gradient_tiling(shape: ConvShape, precision: Precision) -> Tiling:
    """What the gradient of its input is cut into."""
    return product_tiling(shape.kernel, shape.outputs, shape.channels, shape.width, shape.stride, precision)


def weight_tiling(shape: ConvShape, precision: Precision) -> Tiling:
    """What the weight gradient is cut into."""
    pixels = max(min(8, power_of_two(shape.out_width), 64 // power_of_two(shape.outputs)), 1)
    values = shape.kernel * ((pixels - 1) * shape.stride + shape.kernel) * shape.channels
    if precision == "fp32":
        return Tiling(pixels=pixels, chunk=32, rows=64, num_stages=2)
    # 256 rows would read less, but leave no room for a second program, and spill on sm_80; so would a third stage
    # in images of 8 x 8.
    rows = min(power_of_two(values, at_least=64), 128)
    return Tiling(pixels=pixels, chunk=64, rows=rows, num_stages=3 if shape.out_width > 8 else 2)


def known_shapes() -> Iterator[ConvShape]:
    """Every convolution that the presets can ask for."""
    for kernel in (3, 5, 7):
        for width in (4, 8, 12):
            pairs = [(4, width, 32), (width, 2 * width, 16), (2 * width, 2 * width, 16)]
            pairs += [(2 * width, 4 * width, 8), (4 * width, 4 * width, 8)]
            for channels, outputs, size in pairs:
                yield ConvShape(height=size, width=size, channels=channels, outputs=outputs, kernel=kernel)
    for channels, size in ((4, 32), (16, 15), (16, 7)):
        yield ConvShape(
            height=size, width=size, channels=channels, outputs=16, kernel=3, stride=2, padding="valid"
        )

"""The mean over all pixels of a pack's images on the GPU, and its gradient.

Images are alike whoever they belong to, so a program takes them as they come. Letters of shapes: R images, H W
pixels, M the margin left and right of every row of pixels, C channels, C' >= C of them stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..triton_layout import margin_of, power_of_two
from ..triton_variant import Variant

_ROWS = 32


@triton.jit(do_not_specialize=["images"])
def average_kernel(
    x_ptr, y_ptr, images,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, STORED: tl.constexpr,
    MARGIN: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The means of ROWS images."""
    image = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    PITCH: tl.constexpr = (WIDTH + 2 * MARGIN) * CHANNELS
    at = x_ptr + image.to(tl.int64) * (HEIGHT * PITCH) + MARGIN * CHANNELS + channel
    mask = (image < images) & (channel < CHANNELS)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for pixel in range(HEIGHT * WIDTH):
        offset = pixel // WIDTH * PITCH + pixel % WIDTH * CHANNELS
        total += tl.load(at + offset, mask=mask, other=0.0).to(tl.float32)
    made = (total / (HEIGHT * WIDTH)).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + image.to(tl.int64) * STORED + channel, made, mask=(image < images) & (channel < STORED))


@triton.jit(do_not_specialize=["images"])
def average_gradient_kernel(
    dy_ptr, dx_ptr, images,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, STORED: tl.constexpr,
    MARGIN: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of ROWS images, the same at each pixel."""
    image = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    PITCH: tl.constexpr = (WIDTH + 2 * MARGIN) * CHANNELS
    mask = (image < images) & (channel < CHANNELS)
    gradient = tl.load(dy_ptr + image.to(tl.int64) * STORED + channel, mask=mask, other=0.0).to(tl.float32)
    made = (gradient / (HEIGHT * WIDTH)).to(dx_ptr.dtype.element_ty)
    at = dx_ptr + image.to(tl.int64) * (HEIGHT * PITCH) + MARGIN * CHANNELS + channel
    for pixel in range(HEIGHT * WIDTH):
        tl.store(at + (pixel // WIDTH * PITCH + pixel % WIDTH * CHANNELS), made, mask=mask)


def average(x: Tensor, y: Tensor, *, width: int) -> None:
    """The mean over all pixels.

    Args:
        x: bfloat16 or float32 [R, H, W + 2 M, C].
        y: what is made, as ``x`` [R, C']; channels that are only stored become 0.
        width: W.

    Raises:
        ValueError: a tensor has another shape, dtype or memory layout.
    """
    constants = _checked_constants(x, y, width)
    average_kernel[_grid(constants, len(x))](x, y, len(x), **constants)


def average_gradient(dy: Tensor, dx: Tensor, *, width: int) -> None:
    """The gradient of ``average``.

    Args:
        dy: the gradient of the means, bfloat16 or float32 [R, C'].
        dx: what is made, as ``dy`` [R, H, W + 2 M, C]; its margins are left as they are.
        width: W.

    Raises:
        ValueError: a tensor has another shape, dtype or memory layout.
    """
    constants = _checked_constants(dx, dy, width)
    average_gradient_kernel[_grid(constants, len(dx))](dy, dx, len(dx), **constants)


def _grid(constants: dict[str, Any], images: int) -> tuple[int, int]:
    return max(triton.cdiv(images, _ROWS), 1), triton.cdiv(constants["STORED"], constants["BLOCK"])


def _checked_constants(x: Tensor, y: Tensor, width: int) -> dict[str, Any]:
    if x.ndim != 4 or y.ndim != 2 or y.dtype != x.dtype or len(y) != len(x) or y.shape[1] < x.shape[3]:
        raise ValueError(f"{list(y.shape)} must be rows of a dtype with the images {list(x.shape)}, one for each")
    margin = margin_of("x", x, (x.shape[1], width, x.shape[3]))
    if not y.is_contiguous():
        raise ValueError("rows of means must be contiguous")
    return _constants(x.shape[1], width, x.shape[3], y.shape[1], margin)


def _constants(height: int, width: int, channels: int, stored: int, margin: int) -> dict[str, Any]:
    return {
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "STORED": stored,
        "MARGIN": margin,
        "ROWS": _ROWS,
        "BLOCK": power_of_two(min(stored, 64)),
    }


def variants() -> Iterator[Variant]:
    """Every form that the presets can ask for: the small CNN zoo ends in 3 x 3 pixels of 16 channels."""
    for precision, pointer in (("bf16", "*bf16"), ("fp32", "*fp32")):
        for kernel, name, first, second in (
            (average_kernel, "average", "x_ptr", "y_ptr"),
            (average_gradient_kernel, "average-gradient", "dy_ptr", "dx_ptr"),
        ):
            yield Variant(
                kernel=kernel,
                name=f"{name}-3x3-16-{precision}",
                signature={first: pointer, second: pointer, "images": "i32"},
                constexprs=_constants(3, 3, 16, 16, 0),
            )

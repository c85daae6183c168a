"""Every image becomes 32x32 with three channels, byte for byte the same on every machine.

The filter is the one of ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False,
antialias=True)``: bilinear with half-pixel centres when an axis grows, the same triangle stretched by
the scale when it shrinks, weights renormalised at the border. Those weights are rational, so each row
of the weight matrix is kept as integers over one common denominator. Sums of such integers are exact in
float64 in whatever order a BLAS adds them, and the one division, rounding half up, is done in integers.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import lcm

import numpy as np
from numpy.typing import NDArray

SIZE = 32
"""Height and width of every converted image, in pixels."""

MAX_SIDE = 8192
"""Of larger images, sums may go beyond 2**53, where float64 is exact no longer."""


def to_rgb32(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize images to 32x32 and repeat a grey channel three times.

    The work space is about 50 bytes per value read or written: call it on some hundreds of images.

    Args:
        images: uint8 [n, height, width, channels], channels 1 (grey) or 3 (RGB); height and width up to
            `MAX_SIDE`.

    Returns:
        uint8 [n, 32, 32, 3], contiguous.

    Raises:
        ValueError: `images` is not uint8 or has another shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"`images` ({images.dtype} {list(images.shape)}) must be uint8 [n, height, width, 1 or 3]"
        )
    n, height, width, channels = images.shape
    if (height, width) != (SIZE, SIZE):
        x_NCHW = images.transpose(0, 3, 1, 2).astype(np.float64)
        rows, row_divisors = integer_weights(height, SIZE)
        columns, column_divisors = integer_weights(width, SIZE)
        x_NCHW = (rows @ x_NCHW).reshape(-1, width) @ columns.T
        sums = x_NCHW.reshape(n, channels, SIZE, SIZE).astype(np.int64)
        divisors = row_divisors[:, None] * column_divisors[None, :]
        rounded = (2 * sums + divisors) // (2 * divisors)
        images = rounded.astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(np.broadcast_to(images, (n, SIZE, SIZE, 3)))


@cache
def integer_weights(n_in: int, n_out: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The weights that resample one axis, as integers over a common denominator per output.

    Args:
        n_in: Length of the axis before, in pixels.
        n_out: Length after.

    Returns:
        Integers as float64 [n_out, n_in], and int64 [n_out]: the sum of each row, which divides it.
    """
    scale = Fraction(n_in, n_out)
    support = max(scale, Fraction(1))  # half the width of the triangle, in input pixels
    matrix = np.zeros((n_out, n_in), np.float64)
    half = Fraction(1, 2)
    for i in range(n_out):
        centre = (i + half) * scale
        weights = [max(Fraction(0), 1 - abs(j + half - centre) / support) for j in range(n_in)]
        denominator = lcm(*(weight.denominator for weight in weights))
        matrix[i] = [int(weight * denominator) for weight in weights]
    divisors = matrix.sum(axis=1).astype(np.int64)
    # Both arrays are cached and shared.
    matrix.setflags(write=False)
    divisors.setflags(write=False)
    return matrix, divisors

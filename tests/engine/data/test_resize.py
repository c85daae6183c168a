from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch

from wse.engine.data.resize import MAX_SIDE, SIZE, integer_weights, to_rgb32


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (96, 96), (31, 45), (1, 7), (32, 40)])
def test_matches_torch_within_one_level(height: int, width: int, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, height, width, channels), np.uint8)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64))
    y = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", align_corners=False, antialias=True)
    expected = np.broadcast_to(y.numpy().transpose(0, 2, 3, 1), (5, 32, 32, 3))
    result = to_rgb32(images)
    assert result.dtype == np.uint8
    assert result.shape == (5, 32, 32, 3)
    # Rounding is off by at most a half; 1e-6 covers torch's own float64 error.
    assert np.abs(result - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("size", [8, 28, 96])
def test_equals_exact_rational_arithmetic(size: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, size, size, 1), np.uint8)
    weights, divisors = integer_weights(size, 32)
    result = to_rgb32(image)
    for i, j in product((0, 1, 15, 31), repeat=2):
        total = Fraction(0)
        for y, x in product(np.flatnonzero(weights[i]), np.flatnonzero(weights[j])):
            weight = Fraction(int(weights[i, y]), int(divisors[i])) * Fraction(
                int(weights[j, x]), int(divisors[j])
            )
            total += weight * int(image[0, y, x, 0])
        assert result[0, i, j, 0] == int(total + Fraction(1, 2))


def test_sums_are_exact_up_to_the_largest_side() -> None:
    _, divisors = integer_weights(MAX_SIDE - 1, SIZE)  # of a prime the denominators are the largest
    assert 255 * int(divisors.max()) ** 2 < 2**53


def test_half_rounds_up() -> None:
    # Halving columns of 0, 1, 0, 1, ...: every output but those at the border is exactly one half.
    image = np.tile(np.array([0, 1], np.uint8), 32)[None, None, :, None]
    inner = to_rgb32(np.repeat(image, 64, axis=1))[0, 1:-1, 1:-1]
    assert np.all(inner == 1)


@pytest.mark.parametrize("size", [8, 28, 96])
@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_keeps_constant_images(size: int, level: int) -> None:
    assert np.all(to_rgb32(np.full((2, size, size, 1), level, np.uint8)) == level)


def test_keeps_32x32_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert np.array_equal(to_rgb32(image), image)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 8, 8, 1)), np.zeros((1, 8, 8), np.uint8), np.zeros((1, 8, 8, 2), np.uint8)]
)
def test_refuses_other_arrays(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        to_rgb32(images)

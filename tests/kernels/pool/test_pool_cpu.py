"""Compiled pooling of one channel against PyTorch: ties, odd sizes, memory full of NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from wse.kernels.pool.cpu import average, max_pool, max_unpool, spread
from wse.kernels.simd import V
from wse.kernels.simd.cache import cached_njit

# (window, rows and pixels of the result)
WINDOWS = {"one pixel": (1, 3, 2), "2 x 2": (2, 4, 3), "3 x 3": (3, 1, 5), "5 x 5": (5, 2, 1)}
FRAME = 2  # pixels behind each row that nobody may read or write


def _max(x, y, d, g, rows, pixels, size):
    max_pool(x.ctypes.data, x[0].nbytes, y.ctypes.data, y[0].nbytes, rows, pixels, size)
    max_unpool(
        d.ctypes.data, d[0].nbytes, x.ctypes.data, x[0].nbytes, y.ctypes.data, y[0].nbytes,
        g.ctypes.data, g[0].nbytes, rows, pixels, size,
    )  # fmt: skip


def _average(x, y, d, g, rows, pixels, share):
    average(x.ctypes.data, x[0].nbytes, rows, pixels, share.ctypes.data, y.ctypes.data)
    spread(d.ctypes.data, g.ctypes.data, g[0].nbytes, rows, pixels, share.ctypes.data)


pool_by_max, pool_by_average = (cached_njit(function, [Path(__file__)]) for function in (_max, _average))


def tile(images: torch.Tensor) -> np.ndarray:
    """[V, H, W] -> [H, W + FRAME, V] float32, NaN in the frame."""
    made = frame(*images.shape[1:])
    made[:, :-FRAME] = images.permute(1, 2, 0).numpy()
    return made


def frame(height: int, width: int) -> np.ndarray:
    return np.full((height, width + FRAME, V), np.nan, np.float32)


def images(tile: np.ndarray) -> torch.Tensor:
    assert np.isnan(tile[:, -FRAME:]).all()
    return torch.from_numpy(tile[:, :-FRAME].transpose(2, 0, 1).copy())


@pytest.mark.parametrize("values", ["normal", "ties", "equal"])
@pytest.mark.parametrize(("size", "rows", "pixels"), WINDOWS.values(), ids=WINDOWS.keys())
def test_max_pooling_is_pytorchs_to_the_bit(size, rows, pixels, values) -> None:
    torch.manual_seed(0)
    x = torch.randn(V, rows * size, pixels * size)
    if values != "normal":
        x = x.sign() if values == "ties" else torch.full_like(x, -2.0)
    x.requires_grad_()
    d = torch.randn(V, rows, pixels)
    expected = functional.max_pool2d(x[:, None], size)[:, 0]
    expected.backward(d)
    y, g = frame(rows, pixels), frame(rows * size, pixels * size)
    pool_by_max(tile(x.detach()), y, tile(d), g, rows, pixels, size)
    assert torch.equal(images(y), expected.detach())
    assert torch.equal(images(g), x.grad)


@pytest.mark.parametrize("place", range(9))
def test_a_nan_anywhere_in_a_window_is_kept(place) -> None:
    x = torch.randn(V, 3, 3)
    x[1, place // 3, place % 3] = torch.nan
    y, g = frame(1, 1), frame(3, 3)
    pool_by_max(tile(x), y, tile(torch.ones(V, 1, 1)), g, 1, 1, 3)
    assert torch.equal(images(y).isnan().flatten(), torch.arange(V) == 1)


@pytest.mark.parametrize(("rows", "pixels"), [(1, 1), (2, 3), (7, 5), (16, 16)])
def test_averages_and_their_gradient(rows, pixels) -> None:
    torch.manual_seed(0)
    x = torch.randn(V, rows, pixels) + 1
    d = torch.randn(V)
    y, g = np.full((2, V), np.nan, np.float32), frame(rows, pixels)
    share = np.array([1 / (rows * pixels), np.nan], np.float32)
    pool_by_average(tile(x), y, d.numpy(), g, rows, pixels, share)
    exact = x.double().mean((1, 2))
    allowed = 4 * (x.mean((1, 2)) - exact).abs().max().item() + 1e-6
    assert np.abs(y[0] - exact.numpy()).max() <= allowed
    assert np.isnan(y[1]).all()
    # A product of two roundings.
    slopes = (d.double() / (rows * pixels))[:, None, None].expand(-1, rows, pixels)
    np.testing.assert_allclose(images(g).numpy(), slopes.numpy(), rtol=3e-7)

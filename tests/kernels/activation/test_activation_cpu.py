"""Compiled activations and their derivatives against float64 PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wse.kernels.activation import ACTIVATION_CODES
from wse.kernels.activation.cpu import activate, derive
from wse.kernels.simd import VECTOR_BYTES, V
from wse.kernels.simd.cache import cached_njit

FUNCTIONS = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "elu": torch.nn.functional.elu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": torch.nn.functional.leaky_relu,
    "gelu": torch.nn.functional.gelu,
}


MEAN = 0.5


def _both(code, x, y, d, g, channel, sums, kept, bits, bits_row, bits_pixel, shift):
    rows, pixels = x.shape[0], x.shape[1]
    row = pixels * VECTOR_BYTES
    drop = (kept.ctypes.data, bits.ctypes.data, bits_row, bits_pixel, shift)
    activate(code, x.ctypes.data, row, y.ctypes.data, row, rows, pixels, channel.ctypes.data, *drop)
    derive(
        code, d.ctypes.data, row, x.ctypes.data, row, y.ctypes.data, row, g.ctypes.data, row, rows, pixels,
        channel.ctypes.data, sums.ctypes.data, *drop,
    )  # fmt: skip


both = cached_njit(_both, [Path(__file__)])


def run(name: str, values: np.ndarray, kept: float = 1.0):
    """(x, y, g, sums, expected y, expected g); with a factor some values are dropped, by bits of their own."""
    x = np.resize(values.astype(np.float32), (3, -(-len(values) // (3 * V)), V))
    y, g = np.full_like(x, np.nan), np.full_like(x, np.nan)
    d = np.linspace(-1, 2, x.size, dtype=np.float32).reshape(x.shape)
    channel = np.zeros(8, np.float32)
    channel[0], channel[1], channel[2] = 1.5, -0.25, MEAN  # scale, shift, mean
    sums, shift = np.zeros((2, V)), 16 - V  # the last group of a block of 16
    bits, strides = np.full(x.shape[:2], 0xFFFF, np.uint16), (0, 0)
    if kept != 1:
        bits = np.random.default_rng(1).integers(0, 2**16, x.shape[:2], np.uint16)
        strides = bits.strides
    both(ACTIVATION_CODES[name], x, y, d, g, channel, sums, np.array([kept], np.float32), bits, *strides, shift)
    stays = (bits[..., None] >> (shift + np.arange(V)) & 1).astype(bool)
    exact = torch.from_numpy(x).double().requires_grad_()
    scaled = exact * 1.5 - 0.25
    scaled.retain_grad()
    expected = FUNCTIONS[name](scaled) * torch.from_numpy(stays) * kept
    expected.backward(torch.from_numpy(d).double())
    assert (y[~stays] == 0).all()
    assert (g[~stays] == 0).all()
    return x, y, g, sums, expected.detach(), scaled.grad


@pytest.mark.parametrize("kept", [1.0, 1 / 0.6875])
@pytest.mark.parametrize("name", ACTIVATION_CODES)
def test_values_derivatives_and_sums(name, kept) -> None:
    x, y, g, sums, expected, slope = run(name, np.random.default_rng(0).normal(size=3000) * 3, kept)
    # The erf form of gelu cancels far below zero, in PyTorch too.
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(g, slope, rtol=2e-6, atol=1e-6)
    exact = slope.numpy()
    np.testing.assert_allclose(sums[0], exact.sum((0, 1)), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sums[1], (exact * (x - MEAN)).sum((0, 1)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ACTIVATION_CODES)
def test_extremes_stay_finite_and_nan_stays_nan(name) -> None:
    _, y, g, _, expected, _ = run(name, np.array([1e30, -1e30, 100, -100, 0.0, -0.0, 1e-30, -1e-30] * 48))
    assert np.isfinite(y).all()
    assert np.isfinite(g).all()
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-30 if name == "identity" else 1e-6)
    assert np.isnan(run(name, np.full(48 * V, np.nan))[1]).all()

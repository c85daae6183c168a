"""Compiled convolutions of one group against float64 PyTorch, on odd shapes, in memory full of NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from wse.kernels.conv.cpu import convolve_pooled, convolve_rows, weight_gradient
from wse.kernels.conv.strided import MOST_PIXELS, scatter_row
from wse.kernels.conv.tiles import reduce_vectors
from wse.kernels.simd import VECTOR_BYTES, V
from wse.kernels.simd.cache import cached_njit

# (in, out, filter, stride, height, width of the input with its border)
SHAPES = {
    "k3": (3, 4, 3, 1, 8, 9),
    "k3 stride 2": (5, 8, 3, 2, 15, 15),
    "k5": (2, 6, 5, 1, 20, 21),
    "k7 one pixel": (1, 3, 7, 1, 7, 7),
    "k7": (3, 5, 7, 1, 12, 17),
    "k1 stride 2": (4, 4, 1, 2, 9, 5),
    "k2": (3, 2, 2, 1, 4, 3),
    "k9 stride 3": (2, 4, 9, 3, 15, 30),
}


def _forward(
    x, w, start, out, channels, size, stride, x_width, x_channel, rows, pixels, floor, bits, bits_row, bits_pixel,
    bits_channel, shift,
):  # fmt: skip
    for first in range(0, out.shape[0], 4):
        convolve_rows(
            x.ctypes.data, out.ctypes.data + first * rows * pixels * VECTOR_BYTES, rows, pixels,
            x_channel, x_width * VECTOR_BYTES, stride * VECTOR_BYTES, stride * x_width * VECTOR_BYTES,
            w.ctypes.data + first * channels * size * size * 4, channels, size, size,
            start.ctypes.data + 4 * first, rows * pixels * VECTOR_BYTES, pixels * VECTOR_BYTES, VECTOR_BYTES,
            floor.ctypes.data, bits.ctypes.data + first * bits_channel, bits_row, bits_pixel, shift,
        )  # fmt: skip


def _pool(x, w, start, signs, z, pooled, sums, channels, size, x_width, x_channel, rows, pixels):
    for row in range(rows):
        for first in range(0, z.shape[0], 4):
            convolve_pooled(
                size, x.ctypes.data + 2 * row * x_width * VECTOR_BYTES, x_channel, x_width * VECTOR_BYTES,
                w.ctypes.data + first * channels * size * size * 4, channels,
                start.ctypes.data + 4 * first, signs.ctypes.data + 4 * first,
                z.ctypes.data + first * z.strides[0] + 2 * row * z.strides[1], z.strides[0], z.strides[1],
                pooled.ctypes.data + first * pooled.strides[0] + row * pooled.strides[1], pooled.strides[0],
                sums.ctypes.data + first * sums.strides[0], pixels,
            )  # fmt: skip


def _scatter(d, w, y, out, channels, rows, pixels, floor, sums):
    for row in range(out.shape[1]):
        scatter_row(
            row, d.ctypes.data, rows * pixels * VECTOR_BYTES, pixels * VECTOR_BYTES, rows, pixels,
            w.ctypes.data, channels * 9 * 4 * 4, d.shape[0] // 4, channels,
            y.ctypes.data + row * y.strides[1], y.strides[0],
            out.ctypes.data + row * out.strides[1], out.strides[0],
            floor.ctypes.data, sums.ctypes.data, sums.strides[0],
        )  # fmt: skip


def _gradient(d, x, target, reduce, outs, channels, size, stride, x_width, x_channel, rows, pixels):
    weight_gradient(
        d.ctypes.data, x.ctypes.data, target.ctypes.data, reduce, outs, channels, size,
        rows * pixels * VECTOR_BYTES, pixels * VECTOR_BYTES, x_channel, x_width * VECTOR_BYTES,
        stride * VECTOR_BYTES, stride * x_width * VECTOR_BYTES, rows, pixels,
    )  # fmt: skip


forward = cached_njit(_forward, [Path(__file__)])
pool = cached_njit(_pool, [Path(__file__)])
scatter = cached_njit(_scatter, [Path(__file__)])
gradient = cached_njit(_gradient, [Path(__file__)])


def tiles(images: torch.Tensor) -> np.ndarray:
    """[V, C, H, W] -> [C, H, W, V] float32."""
    return np.ascontiguousarray(images.permute(1, 2, 3, 0).numpy().astype(np.float32))


def packed(w: torch.Tensor, outs: int) -> np.ndarray:
    """[O, I, k, k] -> [outs/4, I, k, k, 4] float32, zeros where there is no output."""
    full = torch.zeros(outs, *w.shape[1:], dtype=w.dtype)
    full[: len(w)] = w
    blocks = full.reshape(outs // 4, 4, *w.shape[1:]).permute(0, 2, 3, 4, 1)
    return np.ascontiguousarray(blocks.numpy().astype(np.float32))


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def case(request):
    """Inputs, weights and the gradient of the output, float64 but exact in float32, and sizes."""
    channels, out, size, stride, height, width = request.param
    torch.manual_seed(0)
    rows, pixels = (height - size) // stride + 1, (width - size) // stride + 1
    x, w, d = (
        torch.randn(*shape).double()
        for shape in ((V, channels, height, width), (out, channels, size, size), (V, out, rows, pixels))
    )
    return x, w, d, (channels, size, stride, width, height * width * VECTOR_BYTES, rows, pixels)


LEAST, ZERO = np.full(1, -np.inf, np.float32), np.zeros(1, np.float32)
SHIFT = 16 - V  # the last group of a block of 16 samples


def dropout(rows: int, pixels: int, channels: int) -> tuple[np.ndarray, torch.Tensor]:
    """Random bits, uint16 [rows, pixels, channels], and which values they keep, [V, channels, rows, pixels]."""
    bits = np.random.default_rng(2).integers(0, 2**16, (rows, pixels, channels), np.uint16)
    return bits, torch.from_numpy(bits[..., None] >> (SHIFT + np.arange(V)) & 1).permute(3, 2, 0, 1)


@pytest.mark.parametrize("ends", [False, True], ids=["as it is", "relu and dropout"])
def test_forward(case, ends) -> None:
    x, w, _, sizes = case
    outs, rows, pixels = -(-len(w) // 4) * 4, *sizes[-2:]
    start = np.zeros(outs, np.float32)
    start[: len(w)] = np.linspace(-1, 1, len(w))
    made = np.full((outs, *sizes[-2:], V), np.nan, np.float32)
    floor, bits, strides = LEAST, np.full(outs, 0xFFFF, np.uint16), (0, 0, 2)
    if ends:
        bits, stays = dropout(rows, pixels, outs)
        floor, strides = ZERO, bits.strides
    forward(tiles(x), packed(w, outs), start, made, *sizes, floor, bits, *strides, SHIFT)
    bias = torch.from_numpy(start[: len(w)]).double()

    def expected(kind: torch.dtype) -> np.ndarray:
        z = functional.conv2d(x.to(kind), w.to(kind), bias.to(kind), sizes[2])
        if ends:
            z = torch.relu(z) * stays[:, : len(w)]
        return z.permute(1, 2, 3, 0).numpy()

    exact, single = expected(torch.float64), expected(torch.float32)
    allowed = 4 * np.abs(single - exact).max() + 1e-6 * np.abs(exact).max()
    assert np.abs(made[: len(w)] - exact).max() <= allowed
    assert (made[len(w) :] == 0).all()


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize(("channels", "outs", "rows", "pixels"), [(3, 4, 2, 3), (5, 8, 1, 4)], ids=str)
def test_pooled(channels, outs, rows, pixels, size) -> None:
    torch.manual_seed(0)
    height, width = 2 * rows + size - 1, 2 * pixels + size - 1
    x, w = torch.randn(V, channels, height, width).double(), torch.randn(outs, channels, size, size).double()
    start, signs = np.linspace(-1, 1, outs, dtype=np.float32), np.resize(np.float32([1, -0.5, 0, 2]), outs)
    z, pooled = (np.full((outs, n * rows, n * pixels, V), np.nan, np.float32) for n in (2, 1))
    sums = np.ones((outs, 2, V), np.float32)
    sizes = (channels, size, width, height * width * VECTOR_BYTES, rows, pixels)
    pool(tiles(x), packed(w, outs), start, signs, z, pooled, sums, *sizes)
    exact = functional.conv2d(x, w, torch.from_numpy(start).double())
    scale = exact.abs().max().item()
    np.testing.assert_allclose(z, exact.permute(1, 2, 3, 0).numpy(), rtol=0, atol=3e-6 * scale)
    made = torch.from_numpy(z).permute(3, 0, 1, 2)
    sign = torch.from_numpy(np.where(signs < 0, -1, 1).astype(np.float32))[:, None, None]
    expected = functional.max_pool2d(made * sign, 2) * sign
    np.testing.assert_array_equal(pooled, expected.permute(1, 2, 3, 0).numpy())
    np.testing.assert_allclose(sums[:, 0] - 1, z.sum((1, 2)), rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(sums[:, 1] - 1, (z * z).sum((1, 2)), rtol=1e-4, atol=1e-5 * scale)
    for place in range(4):  # a NaN anywhere in a window is kept
        broken = x.clone()
        broken[1, 0, place // 2, place % 2] = torch.nan
        pool(tiles(broken), packed(w, outs), start, signs, z, pooled, sums, *sizes)
        lost = torch.from_numpy(z).permute(3, 0, 1, 2).isnan()
        seen = torch.from_numpy(pooled).permute(3, 0, 1, 2).isnan()
        assert torch.equal(seen, functional.max_pool2d(lost.float(), 2).bool())


@pytest.mark.parametrize("ends", [False, True], ids=["as it is", "relu and dropout"])
@pytest.mark.parametrize("pixels", range(1, MOST_PIXELS + 1))
@pytest.mark.parametrize(("channels", "outs", "rows"), [(1, 4, 1), (5, 8, 4), (4, 4, 3)], ids=str)
def test_input_gradient_row_by_row(channels, outs, rows, pixels, ends) -> None:
    torch.manual_seed(0)
    height, width = 2 * rows + 2, 2 * pixels + 2  # an even size: its last row and column meet no output
    shapes = ((V, outs, rows, pixels), (outs, channels, 3, 3), (V, channels, height, width))
    d, w, y = (torch.randn(*shape).double() for shape in shapes)
    out, sums = np.full((channels, height, width, V), np.nan, np.float32), np.zeros((channels, 2, V))
    floor, stays = LEAST, torch.ones(1)
    if ends:
        _, stays = dropout(height, width, channels)
        floor = ZERO
    y *= stays
    scatter(tiles(d), packed(w, outs), tiles(y), out, channels, rows, pixels, floor, sums)
    assert np.isnan(out[:, :, -1]).all()
    expected = torch.nn.grad.conv2d_input(y.shape, w, d, stride=2)
    if ends:
        expected *= y > 0
    expected = expected.permute(1, 2, 3, 0).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(out[:, :, :-1], expected[:, :, :-1], rtol=0, atol=2e-6 * scale)
    np.testing.assert_allclose(sums[:, 0], expected.sum((1, 2)), rtol=0, atol=1e-5 * scale)
    assert (sums[:, 1] == 0).all()


@pytest.mark.parametrize("reduce", [True, False])
def test_weight_gradient(case, reduce) -> None:
    x, w, d, sizes = case
    outs = -(-len(w) // 4) * 4
    slopes = np.zeros((outs, *sizes[-2:], V), np.float32)
    slopes[: len(w)] = tiles(d)
    shape = packed(w, outs).shape
    size = int(np.prod(shape))
    room = np.zeros(size + 2 * V, np.float32)
    room[size:] = 7.0  # what lies behind is rewritten as it is
    blocks = -(-size // V)
    if reduce:
        gradient(slopes, tiles(x), room, True, outs, *sizes)
    else:
        vectors = np.zeros(blocks * V * V, np.float32)
        gradient(slopes, tiles(x), vectors, False, outs, *sizes)
        reduce_vectors(vectors.ctypes.data, room.ctypes.data, blocks)
    expected = torch.nn.grad.conv2d_weight(x, w.shape, d, stride=sizes[2])
    scale = expected.abs().max().item()
    np.testing.assert_allclose(room[:size].reshape(shape), packed(expected, outs), rtol=0, atol=3e-6 * scale)
    assert (room[size:] == 7.0).all()

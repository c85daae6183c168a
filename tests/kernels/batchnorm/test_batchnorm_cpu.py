"""Compiled batch normalisation of one channel against float64 PyTorch, with dead lanes, in memory full of NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from wse.kernels.activation.cpu import CHANNEL_BYTES, SCALE, SHIFT
from wse.kernels.batchnorm.cpu import (
    EPSILON,
    add_lane_sums,
    batch_statistics,
    group_moments,
    is_centred_well,
    leave_as_is,
    move_average,
    normal_gradient,
    normal_unpool,
    normalise_by,
    prepare_gradient,
)
from wse.kernels.simd import VECTOR_BYTES, V
from wse.kernels.simd.cache import cached_njit

# (samples, height, width)
SHAPES = {
    "one pixel": (V, 1, 1),
    "a group": (V, 4, 6),
    "dead lanes": (V - 1, 2, 8),
    "two groups": (2 * V, 6, 4),
    "two and a bit": (2 * V + 1, 10, 2),
}
FRAME = 3  # pixels behind each row that nobody may read or write


def _statistics(x, rows, pixels, centre, masks, sums, count):
    step = x[0, 0].nbytes
    group_moments(
        x.ctypes.data, x[0].nbytes, step, x.shape[0], rows, pixels, centre.ctypes.data, masks.ctypes.data,
        sums.ctypes.data,
    )  # fmt: skip
    well = is_centred_well(sums.ctypes.data, count)
    mean, variance = batch_statistics(sums.ctypes.data, count, centre[0])
    return mean, variance, well


def _gradient(x, d, g, rows, pixels, channel, masks, sums, count, gamma, d_gamma, d_beta, pooled):
    row = x[0, 0].nbytes
    prepare_gradient(channel.ctypes.data, sums.ctypes.data, count, gamma, d_gamma.ctypes.data, d_beta.ctypes.data)
    for group in range(x.shape[0]):
        alive = masks.ctypes.data + group * VECTOR_BYTES
        if pooled.size:
            normal_unpool(
                x[group].ctypes.data, row, pooled[group].ctypes.data, pooled[0, 0].nbytes,
                d[group].ctypes.data, d[0, 0].nbytes, g[group].ctypes.data, g[0, 0].nbytes,
                rows // 2, pixels // 2, channel.ctypes.data, alive,
            )  # fmt: skip
        else:
            normal_gradient(
                x[group].ctypes.data, row, d[group].ctypes.data, d[0, 0].nbytes,
                g[group].ctypes.data, g[0, 0].nbytes, rows, pixels, channel.ctypes.data, alive,
            )  # fmt: skip


def _channel(channel, mean, variance, gamma, beta, identity):
    if identity:
        leave_as_is(channel.ctypes.data)
    else:
        normalise_by(channel.ctypes.data, mean, variance, gamma, beta)


def _sums(source, mask, sums, average, batch):
    add_lane_sums(source.ctypes.data, mask.ctypes.data, sums.ctypes.data)
    move_average(average.ctypes.data, batch)


statistics, gradient, channel_map, little = (
    cached_njit(function, [Path(__file__)]) for function in (_statistics, _gradient, _channel, _sums)
)


def tiles(images: torch.Tensor, dead: float) -> np.ndarray:
    """[N, H, W] -> [groups, H, W + FRAME, V] float32: NaN in the frame, ``dead`` in lanes without a sample."""
    samples, height, width = images.shape
    groups = -(-samples // V)
    full = np.full((groups * V, height, width), dead, np.float32)
    full[:samples] = images.numpy()
    framed = np.full((groups, height, width + FRAME, V), np.nan, np.float32)
    framed[:, :, :width] = full.reshape(groups, V, height, width).transpose(0, 2, 3, 1)
    return framed


def images(framed: np.ndarray, samples: int) -> np.ndarray:
    """The inverse of ``tiles``; checks that the frame is as it was and that dead lanes hold 0."""
    assert np.isnan(framed[:, :, -FRAME:]).all()
    full = framed[:, :, :-FRAME].transpose(0, 3, 1, 2).reshape(-1, framed.shape[1], framed.shape[2] - FRAME)
    assert (full[samples:] == 0).all()
    return full[:samples].astype(np.float64)


def lane_masks(samples: int) -> np.ndarray:
    return (np.arange(-(-samples // V) * V) < samples).astype(np.float32)


def float_error(single: torch.Tensor, exact: torch.Tensor) -> float:
    """Four times the largest error of PyTorch in float32, and a few roundings of the largest value."""
    largest = exact.abs().max().item()
    return 4 * (single.double() - exact).abs().max().item() + 1e-6 * largest


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def x(request) -> torch.Tensor:
    """Values around 3, float64 but exact in float32, few enough that pooling windows have ties."""
    torch.manual_seed(1)
    return (torch.randn(*request.param) * 4).round().double() / 4 + 3


@pytest.mark.parametrize("centre", [0.0, 2.75])
def test_statistics(x, centre) -> None:
    count = x.numel()
    sums = np.full((2, V), np.nan)
    mean, variance, _ = statistics(
        tiles(x, 1000.0), *x.shape[1:], np.array([centre], np.float32), lane_masks(len(x)), sums, count
    )
    assert mean == pytest.approx(x.mean().item(), rel=1e-6)
    assert variance == pytest.approx(x.var(correction=0).item(), rel=2e-6)


def test_a_centre_far_away_is_seen_and_another_one_repairs_it() -> None:
    torch.manual_seed(2)
    x = (torch.randn(V, 4, 4) + 500).float().double()
    count, masks = x.numel(), lane_masks(V)

    def run(centre):
        return statistics(tiles(x, 0.0), 4, 4, np.array([centre], np.float32), masks, np.zeros((2, V)), count)

    mean, _, well = run(0.0)
    assert not well
    _, variance, well = run(mean)
    assert well
    assert variance == pytest.approx(x.var(correction=0).item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.7, -1.3])
@pytest.mark.parametrize("in_place", [False, True], ids=["apart", "in place"])
def test_forward_and_gradients(x, gamma, in_place) -> None:
    compare(x, gamma, in_place=in_place, pool=False)


@pytest.mark.parametrize("gamma", [0.7, -1.3])
def test_gradients_through_a_pooling(x, gamma) -> None:
    rows, columns = (2 if size == 1 else 1 for size in x.shape[1:])
    compare(x.repeat(1, rows, columns), gamma, in_place=False, pool=True)


def compare(x: torch.Tensor, gamma: float, *, in_place: bool, pool: bool) -> None:
    """Forward map, and the gradients of x, gamma and beta, with the sums that lead to them made here."""
    samples, rows, pixels = x.shape
    torch.manual_seed(3)
    d = torch.randn(samples, rows // 2, pixels // 2) if pool else torch.randn(*x.shape)
    found = {}
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype, copy=True).requires_grad_()
        scale, shift = (torch.tensor([value], dtype=dtype, requires_grad=True) for value in (gamma, 0.25))
        normed = functional.batch_norm(leaf[:, None], None, None, scale, shift, training=True, eps=EPSILON)
        normed.retain_grad()
        out = functional.max_pool2d(normed, 2) if pool else normed
        out.backward(d[:, None].to(dtype))
        found[dtype] = normed.detach()[:, 0], leaf.grad, scale.grad, shift.grad, normed.grad[:, 0]
    (single, single_dx, single_dgamma, single_dbeta, _), (exact, dx, dgamma, dbeta, slopes) = found.values()

    numbers = np.full(CHANNEL_BYTES // 4, np.nan, np.float32)
    mean, variance = x.mean().item(), x.var(correction=0).item()
    channel_map(numbers, mean, variance, gamma, 0.25, False)
    mapped = x.numpy() * numbers[SCALE // 4] + numbers[SHIFT // 4]
    assert np.abs(mapped - exact.numpy()).max() <= float_error(single, exact) + 1e-6

    framed = tiles(x, 1000.0)
    # What the activation's derivative leaves behind: sums over samples of dy and dy * (x - mean), lane by lane.
    terms = (slopes, slopes * (x - mean))
    sums = np.stack([tiles(t, 0.0)[:, :, :-FRAME].sum((0, 1, 2), dtype=np.float64) for t in terms])
    d_gamma, d_beta = np.zeros(1, np.float32), np.zeros(1, np.float32)
    slope_tiles = tiles(d.double(), 1000.0)
    made = slope_tiles if in_place else np.full_like(framed, np.nan)
    pooled = np.zeros((0, 1, 1, 1), np.float32)
    if pool:  # the raw extremes: normalisation with a negative gamma turns the largest into the smallest
        sign = np.sign(gamma)
        pooled = tiles(functional.max_pool2d(x[:, None] * sign, 2)[:, 0] * sign, 1000.0)
    gradient(
        framed, slope_tiles, made, rows, pixels, numbers, lane_masks(samples), sums, x.numel(), gamma,
        d_gamma, d_beta, pooled,
    )  # fmt: skip
    assert np.abs(images(made, samples) - dx.numpy()).max() <= float_error(single_dx, dx) + 1e-6 * d.abs().max()
    assert abs(d_gamma[0] - dgamma.item()) <= float_error(single_dgamma, dgamma) + 1e-6
    assert abs(d_beta[0] - dbeta.item()) <= float_error(single_dbeta, dbeta) + 1e-6


def test_the_identity_passes_values_and_gradients(x) -> None:
    numbers = np.full(CHANNEL_BYTES // 4, np.nan, np.float32)
    channel_map(numbers, 0.0, 0.0, 0.0, 0.0, True)
    assert numbers[:7].tolist() == [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]


def test_lane_sums_are_added_where_alive_and_averages_move() -> None:
    source = np.arange(2 * V, dtype=np.float32).reshape(2, V) + 1
    mask = (np.arange(V) % 3 != 1).astype(np.float32)
    sums = np.full((2, V), 0.5)
    average = np.array([2.0, np.nan], np.float32)
    little(source, mask, sums, average, 12.0)
    np.testing.assert_array_equal(sums, source * mask + 0.5)
    assert average[0] == pytest.approx(0.9 * 2 + 0.1 * 12)
    assert np.isnan(average[1])

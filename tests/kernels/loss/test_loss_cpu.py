"""Compiled cross-entropy and winners against float64 PyTorch: dead lanes, extreme logits, ties and NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from wse.kernels.loss.cpu import cross_entropy, winners
from wse.kernels.simd import V
from wse.kernels.simd.cache import cached_njit


def _loss(logits, outputs, labels, weight, d, totals):
    return cross_entropy(
        logits.ctypes.data, outputs, labels, weight.ctypes.data, d.ctypes.data, totals.ctypes.data
    )


def _winners(logits, outputs, found):
    winners(logits.ctypes.data, outputs, found)


loss_of, winners_of = (cached_njit(function, [Path(__file__)]) for function in (_loss, _winners))


def run(logits: np.ndarray, labels: np.ndarray, share: float) -> tuple[float, np.ndarray]:
    """Summed loss and gradient [n, outputs] of at most V samples, a row each; dead lanes hold numbers too."""
    samples, outputs = logits.shape
    tile = np.full((outputs + 1, V), np.nan, np.float32)
    tile[:outputs] = 50.0
    tile[:outputs, :samples] = logits.T
    weight = np.zeros(V, np.float32)
    weight[:samples] = share
    d, totals = np.full((outputs + 1, V), np.nan, np.float32), np.full((3, V), np.nan, np.float32)
    loss = loss_of(tile, outputs, labels.astype(np.int64), weight, d, totals)
    assert np.isnan(d[outputs:]).all()
    assert np.isnan(totals[2:]).all()
    assert (d[:outputs, samples:] == 0).all()
    return loss, d[:outputs, :samples].T


def expected(logits: np.ndarray, labels: np.ndarray, share: float, dtype=torch.float64):
    leaf = torch.from_numpy(logits).to(dtype).requires_grad_()
    loss = functional.cross_entropy(leaf, torch.from_numpy(labels), reduction="sum")
    (loss * share).backward()
    return loss.item(), leaf.grad.double().numpy()


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 80.0])
@pytest.mark.parametrize("outputs", [1, 2, 10, 37])
@pytest.mark.parametrize("samples", [1, V - 1, V])
def test_loss_and_gradient(samples, outputs, scale) -> None:
    rng = np.random.default_rng(outputs)
    logits = (rng.normal(size=(samples, outputs)) * scale).astype(np.float32)
    labels = rng.integers(outputs, size=samples)
    share = 1 / 24  # of a batch's mean
    loss, d = run(logits, labels, share)
    exact_loss, exact = expected(logits, labels, share)
    single_loss, single = expected(logits, labels, share, torch.float32)
    # Four times PyTorch's error in float32, or a few roundings of what is subtracted.
    assert abs(loss - exact_loss) <= 4 * abs(single_loss - exact_loss) + 1e-6 * samples
    assert np.abs(d - exact).max() <= 4 * np.abs(single - exact).max() + 4e-7 * share


def test_extreme_logits_neither_overflow_nor_vanish() -> None:
    logits = np.array(
        [[3e38, -3e38, 0], [-3e38, -3e38, -3e38], [1e4, 1e4 - 1, -1e4], [0, 90, -90], [1e-30, -1e-30, 0]],
        np.float32,
    )[: V - 1]
    labels = np.array([1, 2, 1, 0, 1])[: V - 1]
    for label_of in (labels, (labels + 1) % 3):
        # One sample at a time: beside 6e38 nothing else would be seen.
        for row, label in zip(logits, label_of, strict=True):
            loss, d = run(row[None], np.array([label]), 1.0)
            exact_loss, exact = expected(row[None], np.array([label]), 1.0)
            assert loss == pytest.approx(exact_loss, rel=1e-6, abs=1e-6)
            np.testing.assert_allclose(d, exact, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_makes_the_loss_so(bad) -> None:
    rng = np.random.default_rng(0)
    for output in range(4):
        logits = rng.normal(size=(2, 4)).astype(np.float32)
        logits[1, output] = bad
        loss, d = run(logits, np.array([0, output]), 1.0)
        assert not np.isfinite(loss)
        assert not np.isfinite(d[1]).all()
        assert np.isfinite(d[0]).all()


def test_winners_are_the_first_of_equals_and_nan_is_above_all() -> None:
    outputs = 7
    rng = np.random.default_rng(1)
    tile = np.full((outputs + 1, V), np.nan, np.float32)
    for draw in range(20):
        tile[:outputs] = rng.integers(0, 3, size=(outputs, V))  # ties
        if draw % 2:
            for value in (np.nan, np.nan, np.inf):
                tile[rng.integers(outputs, size=V), np.arange(V)] = value
        found = np.full(V - 1, -1, np.int64)
        winners_of(tile, outputs, found)
        # NumPy's rule is PyTorch's, and it promises the first of equals.
        assert found.tolist() == tile[:outputs].argmax(0)[: V - 1].tolist()
        assert found.tolist() == torch.from_numpy(tile[:outputs]).argmax(0)[: V - 1].tolist()

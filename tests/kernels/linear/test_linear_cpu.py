"""Compiled linear layers against float64 PyTorch: odd sizes, dead lanes, memory full of NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wse.kernels.linear.cpu import INPUTS, forward, input_gradient, parameter_gradient
from wse.kernels.simd import V
from wse.kernels.simd.cache import cached_njit

# (samples, inputs, outputs)
SHAPES = {
    "one of all": (1, 1, 1),
    "a group": (V, 16, 8),
    "dead lanes": (V - 3, 17, 10),
    "two groups": (2 * V, 40, 21),
    "three and a bit": (3 * V - 1, 5, V + 1),
    "more than the tiles": (4 * V, 33, 2 * V),
}
GAP = 2  # vectors behind a group that nobody may read or write


def _all(x, w, bias, y, d, g, turned, gradient, d_bias, inputs, allotted, outputs):
    groups = x.shape[0]
    forward(
        x.ctypes.data, x[0].nbytes, w.ctypes.data, bias.ctypes.data, y.ctypes.data, y[0].nbytes,
        groups, inputs, allotted, outputs,
    )  # fmt: skip
    input_gradient(
        d.ctypes.data, d[0].nbytes, w.ctypes.data, g.ctypes.data, g[0].nbytes, groups, inputs, allotted, outputs
    )
    parameter_gradient(
        x.ctypes.data, x[0].nbytes, d.ctypes.data, d[0].nbytes, groups, inputs, allotted, outputs,
        turned.ctypes.data, gradient.ctypes.data, d_bias.ctypes.data if d_bias.size else 0,
    )  # fmt: skip


run = cached_njit(_all, [Path(__file__)])


def up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def tiles(values: torch.Tensor, room: int, dead: float) -> np.ndarray:
    """[N, F] -> [groups, room + GAP, V] float32: zeros up to ``room`` features, then NaN; ``dead`` lanes."""
    samples, features = values.shape
    groups = up(samples, V) // V
    full = np.full((groups * V, features), dead, np.float32)
    full[:samples] = values.numpy()
    made = np.full((groups, room + GAP, V), np.nan, np.float32)
    made[:, :room] = 0
    made[:, :features] = full.reshape(groups, V, features).transpose(0, 2, 1)
    return made


def samples_of(tiled: np.ndarray, features: int, samples: int) -> np.ndarray:
    return tiled[:, :features].transpose(0, 2, 1).reshape(-1, features)[:samples]


def packed(w: torch.Tensor) -> np.ndarray:
    """[O, I] -> [O/V, allotted, V] float32, zeros where there is nothing."""
    outputs, inputs = w.shape
    full = np.zeros((up(outputs, V), up(inputs, INPUTS)), np.float32)
    full[:outputs, :inputs] = w.numpy()
    return np.ascontiguousarray(full.reshape(-1, V, full.shape[1]).transpose(0, 2, 1))


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias gradient"])
@pytest.mark.parametrize(("samples", "inputs", "outputs"), SHAPES.values(), ids=SHAPES.keys())
def test_forward_and_gradients(samples, inputs, outputs, with_bias) -> None:
    torch.manual_seed(0)
    x, w, d = (torch.randn(*s) for s in ((samples, inputs), (outputs, inputs), (samples, outputs)))
    bias = torch.randn(outputs)
    (y, g, gradient, d_bias), single = (
        (x @ w.T + bias, d @ w, d.T @ x, d.sum(0))
        for x, w, d, bias in ((t.double() for t in (x, w, d, bias)), (x, w, d, bias))
    )
    room_in, room_out = up(inputs, INPUTS), up(outputs, V)
    starts = np.zeros(room_out, np.float32)
    starts[:outputs] = bias
    groups = up(samples, V) // V
    made_y = np.full((groups, room_out + GAP, V), np.nan, np.float32)
    made_g = np.full((groups, room_in + GAP, V), np.nan, np.float32)
    turned = np.full(groups * V * room_out + V, np.nan, np.float32)
    begun = 0.5 * packed(torch.ones_like(w))  # gradients are added to what is there
    made_w = np.concatenate([begun.ravel(), np.full(V, np.nan, np.float32)])
    made_bias = np.full(room_out if with_bias else 0, -0.0, np.float32)  # adding 0 to -0 would be seen
    made_bias[:outputs] = 0.5
    run(
        tiles(x, room_in, 100.0), packed(w), starts, made_y, tiles(d, room_out, 0.0), made_g, turned, made_w,
        made_bias, inputs, room_in, outputs,
    )  # fmt: skip

    # At most four times PyTorch's error in float32, or a few roundings where that happens to be tiny.
    made = (
        samples_of(made_y, outputs, samples),
        samples_of(made_g, inputs, samples),
        (made_w[:-V].reshape(begun.shape) - begun).transpose(0, 2, 1).reshape(room_out, room_in),
        made_bias - 0.5,
    )
    assert (made[2][outputs:] == 0).all()  # what is padding stays 0, so the optimizer does not move it
    assert (made[2][:, inputs:] == 0).all()
    names = ("y", "g", "w", "bias") if with_bias else ("y", "g", "w")
    exact = (y, g, gradient, d_bias)
    for name, got, expected, other in zip(names, made, exact, single, strict=False):
        expected = expected.numpy()
        got = got[tuple(slice(size) for size in expected.shape)]
        largest = np.abs(expected).max()
        allowed = 4 * np.abs(other.numpy() - expected).max() + 1e-6 * max(largest, 1.0)
        assert np.abs(got - expected).max() <= allowed, name
    if with_bias:
        assert np.signbit(made_bias[outputs:]).all()
    for array, room in ((made_y, room_out), (made_g, room_in)):
        assert np.isnan(array[:, room:]).all()
    assert np.isnan(made_w[-V:]).all()
    assert np.isnan(turned[-V:]).all()

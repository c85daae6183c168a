"""Statistics of neurons: against plain loops, and under changes that leave the network's function alone."""

from __future__ import annotations

import numpy as np
import pytest

from wse.engine.meta.neurons import OF_NEURONS, neuron_statistics, of_networks
from wse.engine.nets import Layout, permute_neurons
from wse.engine.nets.wiring import connections


@pytest.fixture(params=["nws-main", "small-cnn"])
def layout(request, tiny_space) -> Layout:
    return Layout(tiny_space(request.param).members(0, [0])[0].architecture)


def some(layout: Layout, count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, layout.size)).astype(np.float32)


def test_they_are_what_loops_say(layout: Layout) -> None:
    (weights,) = some(layout, 1)
    found = of_networks(weights[None], layout)[0].reshape(-1, len(OF_NEURONS))
    wired = connections(layout)
    assert len(found) == len(wired) - 1
    for row, one, after in zip(found, wired, wired[1:], strict=False):
        to, away = one.pairs(weights.astype(np.float64)), after.pairs(weights.astype(np.float64))
        norms = [(np.linalg.norm(to[unit]), np.linalg.norm(away[:, unit])) for unit in range(one.outputs)]
        sums = [(to[unit].sum(), away[:, unit].sum()) for unit in range(one.outputs)]
        statistics = dict(zip(OF_NEURONS, row, strict=True))
        into, out = np.array(norms).T
        assert statistics["log_ratio.p50"] == pytest.approx(np.median(np.log(into / out)))
        assert statistics["balance.mean"] == pytest.approx((into**2 - out**2).mean())
        assert statistics["out.p100"] == pytest.approx(out.max() / np.median(out))
        if one.outputs == 1:  # one neuron varies in nothing
            assert statistics["log_in~log_out"] == 0
            continue
        assert statistics["log_in~log_out"] == pytest.approx(np.corrcoef(np.log(into), np.log(out))[0, 1])
        assert statistics["sum_in~sum_out"] == pytest.approx(np.corrcoef(np.array(sums).T)[0, 1])
        bias = weights[one.vectors[0].offset : one.vectors[0].stop]
        assert statistics["bias~in"] == pytest.approx(np.corrcoef(bias, into)[0, 1], abs=1e-6)


def test_the_order_of_neurons_changes_nothing(layout: Layout) -> None:
    weights = some(layout, 3)
    permuted = permute_neurons(layout, weights, np.random.default_rng(2))
    assert not np.array_equal(weights, permuted)
    np.testing.assert_allclose(of_networks(permuted, layout), of_networks(weights, layout), rtol=1e-9, atol=1e-9)


def test_constant_weights_give_numbers(layout: Layout) -> None:
    for value in (0.0, 0.1):
        found = of_networks(np.full((1, layout.size), value, np.float32), layout)
        assert np.isfinite(found).all()
        assert abs(found[0, OF_NEURONS.index("log_in~log_out")]) < 1e-6


def test_architectures_without_a_layer_have_no_number(make_zoo) -> None:
    items = make_zoo(models=6).items(snapshots="all")
    found = neuron_statistics(items)
    assert found.values.shape == (len(items), len(found.names))
    for row in range(len(items)):
        layers = [one.layer for one in connections(items.layout(row))[:-1]]
        there = np.array([name.split(".")[0] in layers for name in found.names])
        assert np.array_equal(np.isfinite(found.values[row]), there)

"""Statistics of neurons: how what leads to a hidden neuron goes with what leads away from it.

A neuron is a channel of a convolution or a unit of a linear layer (``wse.engine.nets.wiring``). Gradients tie both
sides together: without weight decay a ReLU neuron keeps the difference of its squared norms as it learns (Du, Hu
and Lee, "Algorithmic regularization in learning deep homogeneous models", 2018), so that difference tells of
initialisation, activation, decay and dropout. No order of the neurons changes these statistics.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..nets import Layout
from ..nets.wiring import Connection, connections
from ..zoo import Items
from .statistics import Statistics

Float64 = NDArray[np.float64]

QUANTILES = (0, 25, 50, 75, 100)
SPREAD = (0, 25, 75, 100)
# For each hidden layer; in and out are the norms of what leads to and from a neuron, log their logarithms, sum the
# sum of what leads there, bias the neuron's. ``a~b`` is the correlation of a and b over the neurons; quantiles of
# out are fractions of its median.
OF_NEURONS = (
    "log_in~log_out",
    "sum_in~sum_out",
    "bias~in",
    "bias~sum_in",
    "bias~log_out",
    "abs_bias~log_in",
    "log_ratio.mean",
    "log_ratio.deviation",
    *(f"log_ratio.p{quantile}" for quantile in QUANTILES),
    "balance.mean",
    "balance.deviation",
    "direction.mean",
    "direction.deviation",
    *(f"out.p{quantile}" for quantile in SPREAD),
)
_TINY = 1e-30
# Networks that are worked on at a time.
_BLOCK = 64


def neuron_statistics(items: Items) -> Statistics:
    """Statistics of the neurons of every hidden layer of whole networks, ``OF_NEURONS``.

    Args:
        items: N networks, of any architectures.

    Returns:
        A table [N, columns]; NaN where a network has no such layer.

    Raises:
        WseError: a shard is missing or damaged.
    """
    hidden = {
        name: [one.layer for one in connections(items.zoo.layout(name))[:-1]] for name in items.architectures
    }
    layers = dict.fromkeys(layer for names in hidden.values() for layer in names)
    names = tuple(f"{layer}.neurons.{statistic}" for layer in layers for statistic in OF_NEURONS)
    place = {layer: index * len(OF_NEURONS) for index, layer in enumerate(layers)}
    values = np.full((len(items), len(names)), np.nan)
    for code, architecture in enumerate(items.architectures):
        columns = np.concatenate([place[layer] + np.arange(len(OF_NEURONS)) for layer in hidden[architecture]])
        rows = np.flatnonzero(items.architecture == code)
        for block in np.array_split(rows, -(-len(rows) // _BLOCK)):
            weights = np.stack([items.weights(row) for row in block.tolist()])
            values[np.ix_(block, columns)] = of_networks(weights, items.zoo.layout(architecture))
    return Statistics(names=names, values=values)


def of_networks(weights: NDArray[np.float32], layout: Layout) -> Float64:
    """[n, D] float32 -> [n, hidden layers x OF_NEURONS], one layer after the other."""
    exact = weights.astype(np.float64)
    return np.hstack([_of_layer(exact, one, after) for one, after in pairwise(connections(layout))])


def _of_layer(weights: Float64, one: Connection, after: Connection) -> Float64:
    to, away = one.pairs(weights), after.pairs(weights)  # [n, outputs, inputs, taps]
    norm_in, norm_out = np.sqrt((to * to).sum(axis=(2, 3))), np.sqrt((away * away).sum(axis=(1, 3)))
    sum_in, sum_out = to.sum(axis=(2, 3)), away.sum(axis=(1, 3))
    bias = one.own(one.vectors[0], weights)[:, :, 0]
    log_in, log_out = np.log(norm_in + _TINY), np.log(norm_out + _TINY)
    ratio, balance = log_in - log_out, norm_in**2 - norm_out**2
    direction = sum_in / np.maximum(norm_in, _TINY)
    return np.column_stack(
        [
            _correlation(log_in, log_out),
            _correlation(sum_in, sum_out),
            _correlation(bias, norm_in),
            _correlation(bias, sum_in),
            _correlation(bias, log_out),
            _correlation(np.abs(bias), log_in),
            ratio.mean(axis=1),
            ratio.std(axis=1),
            *np.percentile(ratio, QUANTILES, axis=1),
            balance.mean(axis=1),
            balance.std(axis=1),
            direction.mean(axis=1),
            direction.std(axis=1),
            *(np.percentile(norm_out, SPREAD, axis=1) / np.maximum(np.median(norm_out, axis=1), _TINY)),
        ]
    )


def _correlation(one: Float64, other: Float64) -> Float64:
    """Of each two rows [n, neurons] -> [n]; 0 where one of them does not vary."""
    one, other = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    found: Float64 = (one * other).sum(axis=1) / np.sqrt(
        (one * one).sum(axis=1) * (other * other).sum(axis=1) + _TINY
    )
    return found

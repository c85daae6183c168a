"""Permuted neurons: other weights, the same function."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layout import Layout
from .wiring import connections

Weights = NDArray[np.floating[Any]]


def permute_neurons(layout: Layout, weights: Weights, rng: np.random.Generator) -> Weights:
    """Put the hidden neurons of networks into a random order, layer by layer, each network in one of its own.

    A channel or unit moves with its weights, its bias, its batch normalisation, and what the next layer multiplies
    it by, so the network's outputs stay what they were up to rounding (sums are taken in another order).

    Args:
        layout: of the networks.
        weights: one network [D], or several [n, D].
        rng: draws the orders.

    Returns:
        The networks with their neurons permuted, an array of its own of the same shape and dtype.
    """
    if weights.ndim == 1:
        return weights[permutation(layout, rng)]
    return np.stack([row[permutation(layout, rng)] for row in weights])


def permutation(layout: Layout, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order of neurons, as the place that each value of the flat vector is taken from: [D] int64."""
    places = np.arange(layout.size)
    wired = connections(layout)
    before = np.arange(wired[0].inputs)
    for connection in wired:
        last = connection is wired[-1]  # logits have their order, as channels of the input have
        after = np.arange(connection.outputs) if last else rng.permutation(connection.outputs)
        pairs = connection.pairs(places)
        pairs[:] = pairs[after][:, before]
        for vector in connection.vectors:
            own = connection.own(vector, places)
            own[:] = own[after]
        before = after
    return places

"""Whole networks as the input of deep models, grouped by architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...nets import Layout
from ...zoo import Items
from .fitting import Build, deep_estimator
from .source import Indices
from .spec import Making

# Networks of a batch: for each architecture in it the weights [b, D] of its networks, one architecture after the
# other, and where each network of the batch stands in that order [B].
Networks = tuple[Tensor, dict[Layout, Tensor]]


class NetworkSource:
    """The weights of whole networks, moving averages included.

    Nothing is kept: shards are mapped into memory, so what was read once is in the system's cache while it fits.

    Args:
        items: whose weights.
    """

    random = False

    def __init__(self, items: Items) -> None:
        self.items = items

    @property
    def layouts(self) -> list[Layout]:
        """The layouts of all architectures among the items."""
        return [
            self.items.zoo.layout(self.items.architectures[code]) for code in np.unique(self.items.architecture)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int) -> None:
        """Nothing is random."""

    def inputs(self, indices: Indices) -> Networks:
        """The networks, grouped by architecture."""
        codes = self.items.architecture[indices]
        order = np.argsort(codes, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        groups = {}
        for code in np.unique(codes):
            layout = self.items.zoo.layout(self.items.architectures[code])
            weights = np.empty((int((codes == code).sum()), layout.size), np.float32)
            for row, index in zip(weights, indices[codes == code].tolist(), strict=True):
                row[:] = self.items.weights(index)
            groups[layout] = torch.from_numpy(weights)
        return torch.from_numpy(place), groups

    def only(self, chosen: NDArray[Any]) -> NetworkSource:
        """Some of the items."""
        return NetworkSource(self.items.only(chosen))


def by_architecture(networks: Networks, read: Callable[[Layout, Tensor], Tensor]) -> Tensor:
    """What `read` makes of the weights [b, D] of each architecture, in the order of the batch: [B, ...]."""
    place, groups = networks
    return torch.cat([read(layout, weights) for layout, weights in groups.items()])[place]


def network_estimator(making: Making, net: Build) -> Any:
    """An estimator whose net reads whole networks, trained as suits a few hundred of them."""
    return deep_estimator(
        making,
        net,
        source=NetworkSource,
        epochs=80,
        batch_size=16,
        patience=80,
        learning_rate=2e-3,
        weight_decay=1e-2,
    )


def head(features: int, outputs: int, hidden: int = 128, dropout: float = 0.2) -> nn.Module:
    """What reads the features of networks [B, features]: a perceptron.

    Each feature is standardised over the networks of a batch, because small differences between networks matter,
    in whatever feature they are.
    """
    return nn.Sequential(
        nn.BatchNorm1d(features),
        nn.Dropout(dropout),
        nn.Linear(features, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )

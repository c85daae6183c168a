"""A graph network for networks of any architecture.

After Kofinas et al.: "Graph Neural Networks for Learning Equivariant Representations of Neural Networks" (2024).
Neurons are nodes, with bias and batch normalisation as their features; each pair of neurons of consecutive layers
is an edge, with the values between them. Messages run along edges in both directions. All edges between two layers
are there, so they are kept as a dense array and a step is a few matrix products.

What is learned is the same for all layers; where a layer stands is told by an encoding. A value of a filter, or of
the weights behind a flattened image, is weighted by a function of its place, so filters of any size can be read.

Shapes: b networks, o and i neurons after and before a connection, n neurons of a layer, c features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import UsageError
from ...nets import Connection, Layout, TensorSpec, connections
from .networks import Networks, NetworkSource, by_architecture, head, network_estimator
from .scaling import Picked, Scaling, pick
from .spec import Making, ModelSpec

WIDTH = 16
DEPTH = 3
# Depths at which convolutions are seen, and at which linear layers are.
SLOTS = 4
# Of a layer, in training.
NEURONS = 32
VECTORS = ("bias", "beta", "gamma", "moving_mean", "moving_variance")

# Features of the pairs of each connection [b, o, i, c], and of the neurons of each layer [b, n, c].
Graph = tuple[list[Tensor], list[Tensor]]


class Encoder(nn.Module):
    """Weights as the features of a graph.

    Args:
        scaling: of values.
        inputs: channels that images have.
        outputs: logits that networks have.
        width: features.
    """

    def __init__(self, scaling: Scaling, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.scaling = scaling
        self.taps = _perceptron(4, 32, scaling.channels * width)
        self.vectors = nn.ModuleDict({kind: nn.Linear(scaling.channels, width) for kind in VECTORS})
        self.position_of_pairs = _perceptron(6, 32, width)
        self.position_of_neurons = _perceptron(6, 32, width)
        self.inputs = nn.Parameter(torch.randn(inputs, width))
        self.outputs = nn.Parameter(torch.randn(outputs, width))

    def forward(self, wired: Sequence[Connection], weights: Tensor, most: int | None) -> Graph:
        """The graph of networks [b, D] of one architecture, with so many neurons a layer at most."""
        positions = self.inputs.new_tensor(_positions(wired))
        of_pairs, of_neurons = self.position_of_pairs(positions), self.position_of_neurons(positions)
        pairs, neurons = [], [self.inputs.expand(len(weights), -1, -1)]
        for index, picked in enumerate(pick(wired, most)):
            pairs.append((self._pairs(picked, weights) + of_pairs[index]).relu_())
            neurons.append((self._neurons(picked, weights) + of_neurons[index]).relu())
        neurons[-1] = neurons[-1] + self.outputs
        return pairs, neurons

    def _pairs(self, picked: Picked, weights: Tensor) -> Tensor:
        places = self.inputs.new_tensor(_places(picked.connection))
        factors = self.taps(places).unflatten(1, (self.scaling.channels, -1)) / math.sqrt(len(places))
        values = self.scaling(picked.connection.weight, picked.pairs, weights)
        made: Tensor = values.flatten(-2) @ factors.flatten(0, 1)
        return made

    def _neurons(self, picked: Picked, weights: Tensor) -> Tensor:
        told = [
            self.vectors[vector.kind](self.scaling(vector, places, weights).mean(dim=2))
            for vector, places in zip(picked.connection.vectors, picked.own, strict=True)
        ]
        return torch.stack(told).sum(dim=0)


class Messages(nn.Module):
    """One step: edges hear from both their ends, then nodes from the mean of their edges before and after them.

    Args:
        width: features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.edge = nn.Linear(width, width)
        self.ends = nn.Linear(width, 2 * width)
        self.norm_heard = nn.LayerNorm(3 * width)
        self.node = nn.Linear(3 * width, width)

    def forward(self, graph: Graph) -> Graph:
        """Features in, features out."""
        ends = [self.ends(self.norm(features)).chunk(2, dim=-1) for features in graph[1]]
        pairs = []
        for features, (before, _), (_, after) in zip(graph[0], ends, ends[1:], strict=False):
            # In place: memory is what binds here.
            pairs.append(self.edge(features).add_(after[:, :, None]).add_(before[:, None]).relu_())
        neurons = []
        incoming = [torch.zeros_like(graph[1][0]), *(features.mean(dim=2) for features in pairs)]
        outgoing = [*(features.mean(dim=1) for features in pairs), torch.zeros_like(graph[1][-1])]
        for own, before, after in zip(graph[1], incoming, outgoing, strict=True):
            heard = self.norm_heard(torch.cat([own, before, after], dim=-1))
            neurons.append(own + self.node(heard).relu())
        return pairs, neurons


class GraphNet(nn.Module):
    """Messages, then what is seen of every layer, put together.

    Args:
        source: the training items.
        outputs: numbers that come out.

    Raises:
        UsageError: the items' networks differ in the channels of their images or in the number of logits.
    """

    def __init__(self, source: NetworkSource, outputs: int) -> None:
        super().__init__()
        ends = {_ends(connections(layout)) for layout in source.layouts}
        if len(ends) > 1:
            raise UsageError(
                "the model `graph` reads networks with the same images and classes, and these differ: "
                "choose members of fewer architectures"
            )
        (self._ends,) = ends
        self.encoder = Encoder(Scaling(source, _role), *self._ends, WIDTH)
        self.steps = nn.ModuleList(Messages(WIDTH) for _ in range(DEPTH))
        self.head = head(2 * SLOTS * (DEPTH + 1) * 2 * WIDTH, outputs)

    def forward(self, networks: Networks) -> Tensor:
        """Outputs [B, outputs].

        Raises:
            UsageError: a network has other images or another number of logits than those of the training.
        """
        outputs: Tensor = self.head(by_architecture(networks, self._read))
        return outputs

    def _read(self, layout: Layout, weights: Tensor) -> Tensor:
        wired = connections(layout)
        if _ends(wired) != self._ends:
            raise UsageError(
                f"the model `graph` was trained on networks of {self._ends[0]} input channels and {self._ends[1]} "
                f"logits and cannot read {layout.architecture.name}"
            )
        graph = self.encoder(wired, weights, NEURONS if self.training else None)
        seen = [_seen(graph)]
        for step in self.steps:
            graph = step(graph)
            seen.append(_seen(graph))
        layers = torch.cat(seen, dim=-1)
        convolutions = sum(not connection.linear for connection in wired)
        return torch.cat([_resampled(layers[:, :convolutions]), _resampled(layers[:, convolutions:])], dim=1)


def _resampled(layers: Tensor) -> Tensor:
    """Features [b, L, c] of layers at evenly spaced depths from the first to the last, whatever L: [b, SLOTS * c].

    Of no layers they are 0.
    """
    if not layers.shape[1]:
        return layers.new_zeros(len(layers), SLOTS * layers.shape[2])
    return functional.interpolate(layers.mT, size=SLOTS, mode="linear", align_corners=True).flatten(1)


def _seen(graph: Graph) -> Tensor:
    """What no order of neurons changes: for each connection means over its pairs and neurons [b, L, 2 c]."""
    pairs = torch.stack([features.mean(dim=(1, 2)) for features in graph[0]], dim=1)
    neurons = torch.stack([features.mean(dim=1) for features in graph[1][1:]], dim=1)
    return torch.cat([pairs, neurons], dim=-1)


def _ends(wired: Sequence[Connection]) -> tuple[int, int]:
    return wired[0].inputs, wired[-1].outputs


def _positions(wired: Sequence[Connection]) -> list[list[float]]:
    """Where each connection stands: counted from both ends, its kind and its sizes."""
    last = len(wired) - 1
    return [
        [
            index / 8,
            (last - index) / 8,
            float(index == last),
            float(connection.linear),
            math.log(connection.inputs * math.prod(connection.taps)) / 8,
            math.log(connection.outputs) / 8,
        ]
        for index, connection in enumerate(wired)
    ]


def _places(connection: Connection) -> list[list[float]]:
    """Where each tap stands, rows and columns from -1 to 1, with the kind of layer and the number of taps."""
    rows, columns = ([(2 * k + 1) / count - 1 for k in range(count)] for count in connection.taps)
    shared = [float(connection.linear), math.log(math.prod(connection.taps)) / 4]
    return [[row, column, *shared] for row in rows for column in columns]


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def _role(spec: TensorSpec) -> str:
    """Tensors that have their scales in common: ``conv.weight``, ``fc.gamma``, ..."""
    return f"{spec.layer.rstrip('0123456789')}.{spec.kind}"


def _make(making: Making) -> Any:
    return network_estimator(making, GraphNet)


SPECS = (
    ModelSpec(
        name="graph",
        title="a graph network over neurons, for any architecture; moving averages included",
        reads="networks",
        make=_make,
        deep=True,
    ),
)

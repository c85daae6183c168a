"""A network that does not see the order of neurons, for networks of one architecture.

After Zhou et al.: "Permutation Equivariant Neural Functionals" (2023), the layers called NP there, extended from
single values to vectors of features: a convolution's filter, or the pixels behind a flattened input, are the first
features of a pair of neurons; bias and batch normalisation are those of a neuron. Channels of the input and logits
have an order, which learned features tell.

Shapes: b networks, o and i neurons after and before a connection, n neurons of a layer, c features.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UsageError
from ...nets import Connection, Layout, TensorSpec, connections
from .networks import Networks, NetworkSource, by_architecture, head, network_estimator
from .scaling import Scaling, pick
from .spec import Making, ModelSpec

WIDTH = 16
DEPTH = 2
# Of a layer, in training.
NEURONS = 32


class State:
    """Features of a batch of networks.

    Attributes:
        pairs: of each pair of neurons [b, o, i, c], connection by connection.
        neurons: of each neuron [b, n, c], layer by layer, the input's channels first.
        around: for each neuron its own features, the mean of those of its pairs with neurons before it, and after
            it [b, n, 3 c].
        means: over the pairs of each connection and the neurons of each layer [b, (2 L + 1) c].
    """

    def __init__(self, pairs: list[Tensor], neurons: list[Tensor]) -> None:
        self.pairs = pairs
        self.neurons = neurons
        nothing = [torch.zeros_like(neurons[0])], [torch.zeros_like(neurons[-1])]
        incoming = [features.mean(dim=2) for features in pairs]
        outgoing = [features.mean(dim=1) for features in pairs]
        around = zip(neurons, nothing[0] + incoming, outgoing + nothing[1], strict=True)
        self.around = [torch.cat(parts, dim=-1) for parts in around]
        self.means = torch.cat([features.mean(dim=1) for features in incoming + neurons], dim=-1)


class Encoder(nn.Module):
    """What weights become before the first layer.

    Args:
        wired: the connections.
        scaling: of values.
        width: features.
    """

    def __init__(self, wired: tuple[Connection, ...], scaling: Scaling, width: int) -> None:
        super().__init__()
        self.scaling = scaling
        channels = scaling.channels
        self._wired = wired
        self.pairs = nn.ModuleList(nn.Linear(c.taps[0] * c.taps[1] * channels, width) for c in wired)
        self.neurons = nn.ModuleList(
            nn.Linear(sum(vector.size for vector in c.vectors) // c.outputs * channels, width) for c in wired
        )
        self.inputs = nn.Parameter(torch.randn(wired[0].inputs, width))
        self.logits = nn.Parameter(torch.randn(wired[-1].outputs, width))

    def forward(self, weights: Tensor, most: int | None = None) -> State:
        """Features of networks [b, D], of so many neurons a layer at most."""
        pairs, neurons = [], [self.inputs.expand(len(weights), -1, -1)]
        for picked, pair, neuron in zip(pick(self._wired, most), self.pairs, self.neurons, strict=True):
            connection = picked.connection
            pairs.append(pair(self.scaling(connection.weight, picked.pairs, weights).flatten(-2)).relu_())
            own = [
                self.scaling(vector, places, weights).flatten(-2)
                for vector, places in zip(connection.vectors, picked.own, strict=True)
            ]
            neurons.append(neuron(torch.cat(own, dim=-1)).relu())
        neurons[-1] = neurons[-1] + self.logits
        return State(pairs, neurons)


class Exchange(nn.Module):
    """An equivariant layer.

    A pair of neurons learns from itself, from its row, its column, the rows and columns of the connections beside
    it that run through its two neurons, from those neurons, and from the mean of every connection and layer; a
    neuron from the same but for pairs. Those are the linear maps that commute with every order of neurons.

    Args:
        layers: neurons of each layer, the input's channels first.
        width: features.
    """

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        every = (2 * layers - 1) * width
        self.norm_around = nn.ModuleList(nn.LayerNorm(3 * width) for _ in range(layers))
        self.norm_means = nn.LayerNorm(every)
        self.pairs = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.after = nn.ModuleList(nn.Linear(3 * width, width) for _ in range(layers - 1))
        self.before = nn.ModuleList(nn.Linear(3 * width, width) for _ in range(layers - 1))
        self.neurons = nn.ModuleList(nn.Linear(3 * width, width) for _ in range(layers))
        self.means_to_pairs = nn.ModuleList(nn.Linear(every, width) for _ in range(layers - 1))
        self.means_to_neurons = nn.ModuleList(nn.Linear(every, width) for _ in range(layers))

    def forward(self, state: State) -> State:
        """Features in, features out."""
        around = [norm(features) for norm, features in zip(self.norm_around, state.around, strict=True)]
        means = self.norm_means(state.means)
        pairs, neurons = [], []
        for index, (before, after) in enumerate(pairwise(around)):
            told = self.after[index](after) + self.means_to_pairs[index](means)[:, None]
            # In place: memory is what binds here.
            heard = self.pairs[index](state.pairs[index])
            heard.add_(told[:, :, None]).add_(self.before[index](before)[:, None])
            pairs.append(heard.relu_())
        for index, own in enumerate(around):
            heard = self.neurons[index](own) + self.means_to_neurons[index](means)[:, None]
            neurons.append(state.neurons[index] + heard.relu())
        return State(pairs, neurons)


class EquivariantNet(nn.Module):
    """Equivariant layers, and a head that sees only what no order of neurons changes.

    Args:
        source: the training items.
        outputs: numbers that come out.

    Raises:
        UsageError: the items are of several architectures.
    """

    def __init__(self, source: NetworkSource, outputs: int) -> None:
        super().__init__()
        layouts = source.layouts
        if len(layouts) > 1:
            raise UsageError(
                f"the model `equivariant` reads networks of one architecture, and these have {len(layouts)}: "
                "choose members of one, or the model `graph`"
            )
        self._architecture = layouts[0].architecture
        wired = connections(layouts[0])
        self.encoder = Encoder(wired, Scaling(source, _name), WIDTH)
        self.layers = nn.ModuleList(Exchange(len(wired) + 1, WIDTH) for _ in range(DEPTH))
        self.head = head((DEPTH + 1) * (2 * len(wired) + 1) * WIDTH, outputs)

    def forward(self, networks: Networks) -> Tensor:
        """Outputs [B, outputs].

        Raises:
            UsageError: a network has another architecture than those of the training.
        """
        outputs: Tensor = self.head(by_architecture(networks, self._read))
        return outputs

    def states(self, weights: Tensor) -> list[State]:
        """Features of networks [b, D] before and after each layer; in training, of some of the neurons."""
        states = [self.encoder(weights, NEURONS if self.training else None)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states

    def _read(self, layout: Layout, weights: Tensor) -> Tensor:
        if layout.architecture != self._architecture:
            raise UsageError(
                f"the model `equivariant` was trained on networks of architecture {self._architecture.name} "
                f"and cannot read {layout.architecture.name}"
            )
        return torch.cat([state.means for state in self.states(weights)], dim=-1)


def _name(spec: TensorSpec) -> str:
    return spec.name


def _make(making: Making) -> Any:
    return network_estimator(making, EquivariantNet)


SPECS = (
    ModelSpec(
        name="equivariant",
        title="a network that no order of neurons changes (NFN-NP); moving averages included",
        reads="networks",
        make=_make,
        deep=True,
    ),
)

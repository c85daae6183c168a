"""Probing: networks are shown images that were learned for it, and told apart by what they answer.

After Kahana et al.: "Deep Linear Probe Generators for Weight Space Learning" (2024): the images are learned
together with the reader of the answers, and are made from a few learned numbers each by linear upsampling layers,
which keeps them smooth.

A network's own activation function is part of how it was trained, and a zoo can be asked for it. So it is not
used: every network is run with each of `FUNCTIONS`, the same for all. What is read is a property of the weights
alone, and the answers of a network trained with another function are not those it would give.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ...errors import UsageError
from ...nets import Layout
from ...nets.module import build
from .fitting import deep_estimator
from .networks import Networks, NetworkSource, by_architecture, head
from .spec import Making, ModelSpec

FUNCTIONS = ("relu", "tanh")
PROBES = 8
# Learned numbers of a probe, and channels of the first, 4 x 4, stage of its image.
CODE, CHANNELS = 32, 16
# Weights beyond it come from networks that diverged; answers would not be finite.
LARGEST = 1e4
# Many layers of large weights answer more still; beyond this a square would not be finite.
LARGEST_ANSWER = 1e15
TINY = 1e-12


class Probes(nn.Module):
    """Learned images [probes, 3, size, size] in [0, 1].

    Args:
        probes: how many.
        size: rows and columns.
    """

    def __init__(self, probes: int, size: int) -> None:
        super().__init__()
        self._size = size
        self.codes = nn.Parameter(torch.randn(probes, CODE))
        stages: list[nn.Module] = [nn.Linear(CODE, CHANNELS * 16), nn.Unflatten(1, (CHANNELS, 4, 4))]
        while (side := 4 << (len(stages) - 2)) < size:
            last = 2 * side >= size
            stages.append(nn.ConvTranspose2d(CHANNELS, 3 if last else CHANNELS, 4, stride=2, padding=1))
        self.generator = nn.Sequential(*stages)

    def forward(self) -> Tensor:
        """The images."""
        images: Tensor = self.generator(self.codes)[:, :3, : self._size, : self._size]
        return (4 * images).sigmoid()


class ProbingNet(nn.Module):
    """Probes, the networks run on them, and a reader of their logits.

    Args:
        source: the training items.
        outputs: numbers that come out.

    Raises:
        UsageError: the items' networks differ in the size of their images or in the number of logits.
    """

    def __init__(self, source: NetworkSource, outputs: int) -> None:
        super().__init__()
        ends = {_ends(layout) for layout in source.layouts}
        if len(ends) > 1:
            raise UsageError(
                "the model `probing` reads networks with the same images and classes, and these differ: "
                "choose members of fewer architectures"
            )
        (self._ends,) = ends
        size, logits = self._ends
        self.probes = Probes(PROBES, size)
        # Of each function; see `_read`.
        seen = len(FUNCTIONS) * (2 * PROBES * logits + logits + PROBES + 3 * 3 * PROBES)
        self.head = head(seen, outputs)

    def forward(self, networks: Networks) -> Tensor:
        """Outputs [B, outputs].

        Raises:
            UsageError: a network has other images or another number of logits than those of the training.
        """
        images = self.probes()
        answers = by_architecture(networks, lambda layout, weights: self._ask(layout, weights, images))
        outputs: Tensor = self.head(answers)
        return outputs

    def _ask(self, layout: Layout, weights: Tensor, images: Tensor) -> Tensor:
        """What is seen of networks [b, D]."""
        if _ends(layout) != self._ends:
            raise UsageError(
                f"the model `probing` was trained on networks of {self._ends[0]} x {self._ends[0]} pixels and "
                f"{self._ends[1]} logits and cannot read {layout.architecture.name}"
            )
        weights = weights.clamp(-LARGEST, LARGEST)
        return torch.cat([_read(run_together(layout, weights, name, images)) for name in FUNCTIONS], dim=1)


def _read(layers: list[Tensor]) -> Tensor:
    """What is seen of networks in what their layers made of the probes.

    Args:
        layers: see `run_together`.

    Returns:
        [b, seen]: the logits in units of their own size, and the probabilities, of each probe and class; by how
        much the probes make a class's logit vary; how unsure each probe leaves the network; and of each probe
        three statistics of the layers' units, of the first layer, the last, and the mean of all.
    """
    layers = [made.nan_to_num().clamp(-LARGEST_ANSWER, LARGEST_ANSWER) for made in layers]
    logits = layers[-1]
    size = logits.square().mean(dim=(1, 2), keepdim=True).add(TINY).sqrt()
    probabilities = logits.softmax(dim=-1)
    unsure = -(probabilities * probabilities.clamp(min=TINY).log()).sum(dim=-1)
    varied = (logits / size).var(dim=1).add(TINY).log()
    statistics = torch.stack([_statistics(made.flatten(2)) for made in layers])
    seen = [logits / size, probabilities, varied, unsure, statistics[0], statistics[-1], statistics.mean(dim=0)]
    return torch.cat([part.flatten(1) for part in seen], dim=1)


def _statistics(units: Tensor) -> Tensor:
    """Of units [b, p, u] the logarithm of their size, and in units of it their mean and mean size: [b, p, 3]."""
    size = units.square().mean(dim=2).add(TINY).sqrt()
    return torch.stack([size.log(), units.mean(dim=2) / size, units.abs().mean(dim=2) / size], dim=-1)


def run_together(layout: Layout, weights: Tensor, activation: str, images: Tensor) -> list[Tensor]:
    """Run networks of one architecture on the same images, with the same activation function.

    Args:
        layout: of the networks.
        weights: their flat vectors [b, D].
        activation: a key of ``ACTIVATION_FUNCTIONS``.
        images: [p, 3, size, size] in [0, 1].

    Returns:
        What comes out of each layer with weights, before normalisation and activation: [b, p, channels, rows,
        columns] or [b, p, units]; the last are the logits.
    """
    network = build(layout.architecture, activation)
    tensors = {
        name: weights[:, spec.offset : spec.stop].view(-1, *spec.shape) for name, spec in layout.tensors.items()
    }

    def run(of_one: dict[str, Tensor]) -> list[Tensor]:
        made: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _layer, _inputs, outputs: made.append(outputs))
            for layer in network.children()
        ]
        functional_call(network, of_one, (images,))
        for hook in hooks:
            hook.remove()
        return made

    together: list[Tensor] = vmap(run)(tensors)
    return together


def _ends(layout: Layout) -> tuple[int, int]:
    return layout.architecture.input.size, layout.architecture.outputs


def _make(making: Making) -> Any:
    return deep_estimator(
        making, ProbingNet, source=NetworkSource, epochs=40, batch_size=16, patience=40, weight_decay=1e-2
    )


SPECS = (
    ModelSpec(
        name="probing",
        title="learned images that the networks are run on, all with the same activation functions",
        reads="networks",
        make=_make,
        deep=True,
    ),
)

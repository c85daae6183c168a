"""A light 1-d convolutional network for processors: thousands of slices a second on one thread.

Weights of different networks and layers differ in scale by orders of magnitude. So values are read at their own
scale (each in units of the slice's mean size, squashed) and at all scales (as logarithms). Every layer is pooled
over all places, not the last alone: the first ones see the distribution of the values, the last ones their
arrangement. Slices may be of any length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .fitting import deep_estimator
from .spec import Making, ModelSpec

# (channels, kernel, stride) of each convolution.
LAYERS = ((16, 5, 5), (32, 4, 4), (32, 4, 2))
HIDDEN = 64
# Shorter slices are filled up with zeros, so that each layer has a place.
SHORTEST = 32
# Smaller values count as this much; it is about the rounding noise of a weight in float32.
TINY = 1e-8


class LightCNN(nn.Module):
    """Slices [B, length] -> [B, outputs].

    Args:
        outputs: classes, or 1 for a number.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        channels = 3
        features = 2 * channels
        for width, kernel, stride in LAYERS:
            convolution = nn.Conv1d(channels, width, kernel, stride, padding=(kernel - 1) // 2, bias=False)
            self.layers.append(nn.Sequential(convolution, nn.BatchNorm1d(width), nn.ReLU()))
            channels = width
            features += 2 * channels
        features += channels
        self.head = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
        )

    def forward(self, values: Tensor) -> Tensor:
        """The outputs."""
        x = encode(values)
        if x.shape[2] < SHORTEST:
            x = functional.pad(x, (0, SHORTEST - x.shape[2]))
        pooled = [*_moments(x)]
        for layer in self.layers:
            x = layer(x)
            pooled += _moments(x)
        result: Tensor = self.head(torch.cat([*pooled, x.amax(dim=2)], dim=1))
        return result


def encode(values: Tensor) -> Tensor:
    """Slices [B, length] at all scales [B, 3, length].

    Values squashed in units of their slice's mean size; logarithms of sizes; the logarithm of that mean size.
    """
    size = values.abs()
    scale = (size.mean(dim=1, keepdim=True) + TINY).clamp(max=torch.finfo(size.dtype).max)
    return torch.stack([values / (scale + size), _log(size), _log(scale).expand_as(size)], dim=1)


def _log(size: Tensor) -> Tensor:
    """Logarithms, centred on the usual size of weights."""
    return (size + TINY).log() / 3 + 1.5


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all places: [B, channels] each."""
    mean = x.mean(dim=2)
    variance = x.square().mean(dim=2) - mean.square()  # torch.var_mean is ten times slower on processors
    return mean, (variance.clamp(min=0) + TINY).sqrt()


def _build(source: Any, outputs: int) -> LightCNN:
    return LightCNN(outputs)


def _make(making: Making) -> Any:
    epochs = 300
    return deep_estimator(making, _build, epochs=epochs, patience=epochs, learning_rate=3e-3, weight_decay=1e-2)


SPECS = (
    ModelSpec(
        name="light-cnn",
        title="a light convolutional network on slices at all scales",
        reads="slices",
        make=_make,
        deep=True,
        any_length=True,
    ),
)

"""The study's deep meta-classifier (DMC): a 1-d convolutional network over raw consecutive weights.

Eilertsen et al.: "Classifying the classifier: dissecting the weight space of neural networks", ECAI 2020. Layers,
initialisation and training are the study's. Its input is not normalised, and all slices have one length.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ...errors import UsageError
from ...nets.initial import TRUNCATED_STD
from .fitting import deep_estimator
from .spec import Making, ModelSpec

# Slices up to this many values are read by the local form, longer ones by the global.
LOCAL_VALUES = 40_000
KERNEL = 5
HEAD = (1024, 1024, 1024, 1024, 64)
DROPOUT = 0.5
# Moving averages of batch normalisation decay by 0.9.
EPSILON, MOMENTUM = 1e-5, 0.1
# The last six convolutions of the local form halve their input first while it is longer than this.
LONG = 50

# A convolution by its channels; a pool that halves the length.
POOL = 0


def body(length: int) -> list[int]:
    """The layers before the head for slices of some length: channels of convolutions, and pools."""
    if length > LOCAL_VALUES:
        pooled = [8, 16, 32, 64, *[128] * 5]
        pairs = [(128, 256), (256, 256), (256, 256)]
        return [
            *(layer for channels in pooled for layer in (channels, POOL)),
            *(layer for pair in pairs for layer in (*pair, POOL)),
        ]
    layers = [8, POOL, 16, POOL, 32, 64, POOL, 128, 256]
    length //= 2 ** layers.count(POOL)
    for _ in range(6):
        if length > LONG:
            layers.append(POOL)
            length //= 2
        layers.append(256)
    return [*layers, POOL]


class DMC(nn.Module):
    """Slices [B, length] -> [B, outputs].

    Args:
        length: of all slices, in values.
        outputs: classes, or 1 for a number.

    Raises:
        UsageError: slices are too short for its pools.
    """

    def __init__(self, length: int, outputs: int) -> None:
        super().__init__()
        self.length = length
        layers: list[nn.Module] = []
        channels = 1
        for layer in body(length):
            if layer == POOL:
                layers.append(nn.MaxPool1d(2))
                length //= 2
            else:
                layers += [nn.Conv1d(channels, layer, KERNEL, padding="same"), nn.ReLU(), _norm(layer)]
                channels = layer
        if not length:
            raise UsageError(
                f"slices of {self.length} values are too short for the model dmc: it needs 16 at least"
            )
        self.body = nn.Sequential(*layers)
        layers, features = [], channels * length
        for width in HEAD:
            layers += [nn.Linear(features, width), nn.ReLU(), _norm(width), nn.Dropout(DROPOUT)]
            features = width
        self.head = nn.Sequential(*layers, nn.Linear(features, outputs))
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Linear)):
                _glorot_normal(module)

    def forward(self, values: Tensor) -> Tensor:
        """The outputs."""
        if values.shape[1] != self.length:
            raise ValueError(
                f"the model dmc was fitted to slices of {self.length:,} values, not {values.shape[1]:,}"
            )
        result: Tensor = self.head(self.body(values[:, None]).flatten(1))
        return result


def _norm(features: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(features, eps=EPSILON, momentum=MOMENTUM)


def _glorot_normal(layer: nn.Conv1d | nn.Linear) -> None:
    """TensorFlow's: a normal truncated at two standard deviations, of variance 2 / (fan in + fan out)."""
    field = KERNEL if isinstance(layer, nn.Conv1d) else 1
    fans = field * (layer.weight.shape[0] + layer.weight.shape[1])
    std = math.sqrt(2 / fans) / TRUNCATED_STD
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _build(source: Any, outputs: int) -> DMC:
    return DMC(source.length, outputs)


def _make(making: Making) -> Any:
    """With the study's recipe: Adam at 1e-3, 64 slices a batch, 50 epochs at a constant rate."""
    epochs = 50
    return deep_estimator(making, _build, epochs=epochs, patience=epochs, schedule="constant")


SPECS = (
    ModelSpec(
        name="dmc",
        title="the study's convolutional network on raw slices",
        reads="slices",
        make=_make,
        deep=True,
    ),
)

"""The architecture families a space can choose from: set-up values in, layer list out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import UsageError
from .architecture import (
    Activate,
    Architecture,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Input,
    Layer,
    Linear,
    MaxPool,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A family of architectures.

    Attributes:
        build: makes the architecture from the values of ``properties``.
        properties: the names of the properties that choose the architecture.
    """

    build: Callable[..., Architecture]
    properties: tuple[str, ...]


def nws(
    *, filter_size: int, depth_conv: int, width_conv: int, depth_fc: int, width_fc: int, batch_norm: bool
) -> Architecture:
    """The networks of "Classifying the classifier" (2020): three pooled blocks, then fully connected layers.

    Args:
        filter_size: side of all filters.
        depth_conv: 3, 4 or 5 convolutions: 1, 1, 1 or 1, 1, 2 or 1, 2, 2 a block.
        width_conv: channels of the first block; twice and four times as many in the next two.
        depth_fc: hidden fully connected layers, one output layer of 20 units comes on top.
        width_fc: units of the first hidden layer, halved at each further one.
        batch_norm: whether convolutions and hidden layers are batch-normalised.

    Raises:
        UsageError: ``depth_conv`` is not 3, 4 or 5, or the hidden layers would shrink to nothing.
    """
    blocks = {3: (1, 1, 1), 4: (1, 1, 2), 5: (1, 2, 2)}.get(depth_conv)
    if blocks is None:
        raise UsageError(f"`depth_conv` (={depth_conv}) must be 3, 4 or 5 in the nws family")
    if width_fc >> max(depth_fc - 1, 0) < 1:
        raise UsageError(f"`width_fc` (={width_fc}) is too small to be halved over {depth_fc} hidden layers")
    norm: list[Layer] = [BatchNorm()] if batch_norm else []
    layers: list[Layer] = []
    for block, convs in enumerate(blocks):
        for _ in range(convs):
            layers += [Conv(channels=width_conv << block, kernel=filter_size), *norm, Activate()]
        layers.append(MaxPool(size=2))
    layers.append(Flatten())
    for hidden in range(depth_fc):
        layers += [Linear(features=width_fc >> hidden), Activate(), *norm, Dropout()]
    layers.append(Linear(features=20))
    hidden_layers = f"f{depth_fc}x{width_fc}" if depth_fc else "f0"
    plain = "" if batch_norm else "-plain"
    name = f"nws-k{filter_size}-c{depth_conv}x{width_conv}-{hidden_layers}{plain}"
    return Architecture(name=name, input=Input(), layers=tuple(layers))


def small_cnn(*, filter_size: int, depth_conv: int, width_conv: int, batch_norm: bool) -> Architecture:
    """The networks of the small CNN zoo (Unterthiner et al., 2020): strided convolutions, then averaged.

    Args:
        filter_size: side of all filters.
        depth_conv: number of convolutions, each with stride 2 and no padding.
        width_conv: channels of each.
        batch_norm: whether convolutions are batch-normalised (in the original they are not).

    Raises:
        UsageError: the image becomes smaller than the filter, or there are more than 32 convolutions.
    """
    if depth_conv > 32:  # 1 x 1 filters never run out of image, and a list must not run out of memory
        raise UsageError(f"`depth_conv` (={depth_conv}) must be at most 32 in the small-cnn family")
    norm: list[Layer] = [BatchNorm()] if batch_norm else []
    layers: list[Layer] = []
    for _ in range(depth_conv):
        conv = Conv(channels=width_conv, kernel=filter_size, stride=2, padding="valid")
        layers += [conv, *norm, Activate(), Dropout()]
    layers += [GlobalAveragePool(), Linear(features=10)]
    name = f"small-cnn-k{filter_size}-c{depth_conv}x{width_conv}{'-bn' if batch_norm else ''}"
    return Architecture(name=name, input=Input(color="grey", low=-1.0, high=1.0), layers=tuple(layers))


FAMILIES: Mapping[str, Family] = {
    "nws": Family(
        build=nws,
        properties=("filter_size", "depth_conv", "width_conv", "depth_fc", "width_fc", "batch_norm"),
    ),
    "small-cnn": Family(build=small_cnn, properties=("filter_size", "depth_conv", "width_conv", "batch_norm")),
}

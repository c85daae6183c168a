"""An architecture is a list of layers; every size in a network follows from the list and the input.

Two things a layer list does *not* hold are the kind of activation and the dropout rate: they belong to the
member, so members that differ in them still share an architecture and can train side by side.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..errors import UsageError

Activation = Literal["relu", "elu", "sigmoid", "tanh", "leaky_relu", "gelu"]
ACTIVATIONS: tuple[str, ...] = ("relu", "elu", "sigmoid", "tanh", "leaky_relu", "gelu")


class _Layer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="layer"):
    """What all layers share: they are plain records, written to ``zoo.json`` and read back."""


class Conv(_Layer, frozen=True, kw_only=True, tag="conv"):
    """A 2-d convolution with a bias, square filter; ``padding`` as in TensorFlow: "same" or "valid"."""

    channels: int
    kernel: int
    stride: int = 1
    padding: Literal["same", "valid"] = "same"


class Linear(_Layer, frozen=True, kw_only=True, tag="linear"):
    """A fully connected layer with a bias."""

    features: int


class BatchNorm(_Layer, frozen=True, kw_only=True, tag="batch_norm"):
    """Batch normalisation over the channels or features that come in; it belongs to the layer before it."""


class Activate(_Layer, frozen=True, kw_only=True, tag="activate"):
    """The member's activation function."""


class Dropout(_Layer, frozen=True, kw_only=True, tag="dropout"):
    """The member's dropout: in training, units are kept with probability p = 1 - rate and scaled by 1 / p."""


class MaxPool(_Layer, frozen=True, kw_only=True, tag="max_pool"):
    """Max-pooling over ``size`` x ``size`` windows with that stride; incomplete windows are dropped."""

    size: int = 2


class GlobalAveragePool(_Layer, frozen=True, kw_only=True, tag="global_average_pool"):
    """The mean over all pixels: [H, W, C] becomes [C]."""


class Flatten(_Layer, frozen=True, kw_only=True, tag="flatten"):
    """[H, W, C] becomes one vector, in that order: index (h * W + w) * C + c."""


Layer = Conv | Linear | BatchNorm | Activate | Dropout | MaxPool | GlobalAveragePool | Flatten

Shape = tuple[int, int, int] | tuple[int]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a network sees of an image, which is always stored as 32 x 32 x 3.

    ``color`` "rgb" keeps the channels, "grey" mixes them into one (ITU-R 601 luma, as TensorFlow does).
    ``low`` and ``high`` are what black and white become.
    """

    size: int = 32
    color: Literal["rgb", "grey"] = "rgb"
    low: float = 0.0
    high: float = 1.0

    @property
    def shape(self) -> Shape:
        """[H, W, C] of one image."""
        return (self.size, self.size, 3 if self.color == "rgb" else 1)


class Architecture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named list of layers over an input; the last layer gives the logits.

    Raises:
        UsageError: a layer cannot follow what comes before it (an image that has become too small,
            a linear layer on an unflattened image, a batch normalisation without a layer to belong to).
    """

    name: str
    input: Input
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        shapes = self.shapes()
        if not self.layers or not isinstance(self.layers[-1], Linear) or len(shapes[-1]) != 1:
            raise UsageError(f"architecture {self.name}: the last layer must be linear (the logits)")
        owner_has_norm = True
        for index, layer in enumerate(self.layers):
            if isinstance(layer, (Conv, Linear)):
                owner_has_norm = False
            elif isinstance(layer, BatchNorm):
                if owner_has_norm:
                    raise UsageError(
                        f"architecture {self.name}, layer {index + 1}: a batch normalisation needs "
                        "a convolution or linear layer of its own before it"
                    )
                owner_has_norm = True

    @property
    def outputs(self) -> int:
        """How many logits the network has."""
        return self.shapes()[-1][0]

    def shapes(self) -> list[Shape]:
        """The shape of one sample after the input and after each layer: [H, W, C] or [features]."""
        shapes = [self.input.shape]
        for index, layer in enumerate(self.layers):
            try:
                shapes.append(_shape_after(layer, shapes[-1]))
            except ValueError as error:
                raise UsageError(f"architecture {self.name}, layer {index + 1}: {error}") from None
        return shapes

    def owners(self) -> tuple[str, ...]:
        """For each layer, the name of the last one with weights, itself if it has any: conv1, conv1, ..., fc1.

        Convolutions are numbered by themselves, and so are linear layers. Before the first of them it is empty.
        """
        counts = {"conv": 0, "fc": 0}
        names, name = [], ""
        for layer in self.layers:
            if isinstance(layer, (Conv, Linear)):
                kind = "conv" if isinstance(layer, Conv) else "fc"
                counts[kind] += 1
                name = f"{kind}{counts[kind]}"
            names.append(name)
        return tuple(names)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis for TensorFlow's "same": the output has ceil(size / stride) places."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _shape_after(layer: Layer, shape: Shape) -> Shape:
    match layer:
        case Conv():
            height, width, _ = _image(shape, "a convolution")
            if layer.kernel < 1 or layer.stride < 1 or layer.channels < 1:
                raise ValueError("kernel, stride and channels of a convolution must be at least 1")
            return (_conv_size(height, layer), _conv_size(width, layer), layer.channels)
        case MaxPool():
            height, width, channels = _image(shape, "max-pooling")
            if layer.size < 1 or min(height, width) < layer.size:
                raise ValueError(f"cannot pool {height} x {width} pixels by {layer.size}")
            return (height // layer.size, width // layer.size, channels)
        case GlobalAveragePool():
            return (_image(shape, "global average pooling")[2],)
        case Flatten():
            height, width, channels = _image(shape, "flattening")
            return (height * width * channels,)
        case Linear():
            if len(shape) != 1:
                raise ValueError("a linear layer needs a vector: flatten or pool the image first")
            if layer.features < 1:
                raise ValueError("a linear layer needs at least 1 feature")
            return (layer.features,)
        case _:
            return shape


def _image(shape: Shape, what: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{what} needs an image, but a vector of {shape[0]} values comes in")
    return shape


def _conv_size(size: int, layer: Conv) -> int:
    if layer.padding == "same":
        return -(-size // layer.stride)
    if size < layer.kernel:
        raise ValueError(f"a {layer.kernel} x {layer.kernel} filter does not fit into {size} pixels")
    return (size - layer.kernel) // layer.stride + 1

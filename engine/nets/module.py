"""A network as a plain ``torch.nn.Module``, named like its layout.

Images go in as PyTorch has them, float [n, 3, 32, 32] in [0, 1]; what the architecture makes of them (grey,
another range) is part of the module. Logits [n, classes] come out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from wse.kernels.activation.reference import ACTIVATION_FUNCTIONS
from wse.kernels.batchnorm.constants import DECAY, EPSILON

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
    same_padding,
)

# A dropout layer's index among the dropout layers and what comes in -> what goes out, with units dropped.
DropoutFunction = Callable[[int, Tensor], Tensor]


class Network(nn.Module):
    """A runnable network.

    In training mode batch normalisation uses and accumulates batch statistics, and dropout is left to
    ``dropout_function`` (without one, as in evaluation mode, nothing is dropped): which units a member drops is
    addressed by its id and step, which a module does not know.

    Args:
        architecture: the layers.
        activation: the member's activation function, a key of ``ACTIVATION_FUNCTIONS``.
    """

    def __init__(self, architecture: Architecture, activation: str) -> None:
        super().__init__()
        self.architecture = architecture
        self.activation = activation
        self.dropout_function: DropoutFunction | None = None
        # No lambdas: a network can be copied and pickled, and the copy's steps are its own.
        self._steps: list[Callable[[Tensor], Tensor]] = []
        self._add(architecture.input, partial(_see, wanted=architecture.input))
        self._build()

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, 32, 32] in [0, 1]."""
        values = images
        for step in self._steps:
            values = step(values)
        return values

    def _build(self) -> None:
        layers, shapes, owners = self.architecture.layers, self.architecture.shapes(), self.architecture.owners()
        drops = 0
        owner: nn.Module = self
        for layer, shape, name in zip(layers, shapes, owners, strict=False):
            match layer:
                case Conv() | Linear():
                    owner = _Convolution(layer, shape) if isinstance(layer, Conv) else _linear(layer, shape)
                    self.add_module(name, owner)
                    self._add(layer, owner)
                case BatchNorm():
                    norm = _BatchNorm(shape[-1])
                    owner.add_module("bn", norm)
                    self._add(layer, norm)
                case Dropout():
                    self._add(layer, partial(self._drop, drops))
                    drops += 1
                case _:
                    self._add(layer, self._function(layer))

    def _add(self, layer: Layer | Input, step: Callable[[Tensor], Tensor]) -> None:
        """What the layer does comes next."""
        self._steps.append(step)

    def _function(self, layer: Layer) -> Callable[[Tensor], Tensor]:
        match layer:
            case Activate():
                return ACTIVATION_FUNCTIONS[self.activation]
            case MaxPool():
                return partial(_max_pool, size=layer.size)
            case GlobalAveragePool():
                return _average_pixels
            case Flatten():
                return _flatten
            case _:
                raise AssertionError(f"no function for {layer!r}")

    def _drop(self, index: int, values: Tensor) -> Tensor:
        if self.training and self.dropout_function is not None:
            return self.dropout_function(index, values)
        return values


def build(architecture: Architecture, activation: str) -> Network:
    """A network with zero weights, in evaluation mode; ``load_state_dict`` takes tensors named by the layout."""
    return Network(architecture, activation).eval()


class _Convolution(nn.Module):
    def __init__(self, layer: Conv, shape: tuple[int, ...]) -> None:
        super().__init__()
        height, width, channels = shape
        self.weight = nn.Parameter(torch.zeros(layer.channels, channels, layer.kernel, layer.kernel))
        self.bias = nn.Parameter(torch.zeros(layer.channels))
        self.stride = layer.stride
        self.border = (0, 0, 0, 0)
        if layer.padding == "same":
            pad = [same_padding(size, layer.kernel, layer.stride) for size in (width, height)]
            self.border = (*pad[0], *pad[1])

    def forward(self, values: Tensor) -> Tensor:
        left, right, top, bottom = self.border
        if left == right and top == bottom:
            padding = (top, left)
        else:  # TensorFlow's "same" pads one more at the end when the filter does not sit evenly
            values, padding = functional.pad(values, self.border), (0, 0)
        return functional.conv2d(values, self.weight, self.bias, self.stride, padding)


def _max_pool(values: Tensor, size: int) -> Tensor:
    return functional.max_pool2d(values, size)


def _average_pixels(values: Tensor) -> Tensor:
    return values.mean(dim=(2, 3))


def _flatten(values: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1).flatten(1)


def _linear(layer: Linear, shape: tuple[int, ...]) -> nn.Module:
    linear = nn.Linear(shape[0], layer.features, device="meta").to_empty(device="cpu")
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    return linear


class _BatchNorm(nn.Module):
    """Batch normalisation as TensorFlow has it: the moving variance averages the *biased* batch variance."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(features))
        self.gamma = nn.Parameter(torch.ones(features))
        self.register_buffer("moving_mean", torch.zeros(features))
        self.register_buffer("moving_variance", torch.ones(features))
        self.moving_mean: Tensor
        self.moving_variance: Tensor

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return functional.batch_norm(
                values, self.moving_mean, self.moving_variance, self.gamma, self.beta, eps=EPSILON
            )
        # Unlike functional.batch_norm, this also returns the statistics, so they need no second pass.
        normalised, mean, inverse_std = torch.native_batch_norm(
            values, self.gamma, self.beta, None, None, True, 0.0, EPSILON
        )
        with torch.no_grad():
            variance = (inverse_std.pow(-2) - EPSILON).clamp_(min=0)
            self.moving_mean.lerp_(mean, 1 - DECAY)
            self.moving_variance.lerp_(variance, 1 - DECAY)
        return normalised


def _see(images: Tensor, wanted: Input) -> Tensor:
    """What the architecture's input makes of images [n, 3, 32, 32] in [0, 1]."""
    if wanted.color == "grey":
        luma = images.new_tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
        images = (images * luma).sum(dim=1, keepdim=True)
    if (wanted.low, wanted.high) != (0.0, 1.0):
        images = images * (wanted.high - wanted.low) + wanted.low
    return images

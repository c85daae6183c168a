"""A network as a user would write it: stock layers in a row, and the way from our flat vector and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..nets import (
    Activate,
    Architecture,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layout,
    Linear,
    MaxPool,
)
from ..space import Setup
from ..train.backend import Weights

_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
}
# What PyTorch calls the tensors of a batch normalisation.
_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class WrittenNetwork(nn.Sequential):
    """Stock layers in a row.

    Args:
        layers: the modules.
        names: layout's name of a tensor -> name of the parameter or buffer.
        pixels: height times width of what is flattened; our layout has pixels first, PyTorch's channels.
    """

    def __init__(self, layers: list[nn.Module], names: Mapping[str, str], pixels: int) -> None:
        super().__init__(*layers)
        there = self.state_dict()
        self.names = {ours: theirs for ours, theirs in names.items() if theirs in there}
        self.pixels = pixels


def write_module(architecture: Architecture, setup: Setup, *, running_statistics: bool = True) -> WrittenNetwork:
    """The network in training mode, untrained.

    Args:
        architecture: the layers.
        setup: activation and dropout rate.
        running_statistics: whether batch normalisation keeps them.
    """
    layout, shapes = Layout(architecture), architecture.shapes()
    modules: list[nn.Module] = []
    names: dict[str, str] = {}
    owners = iter(layout.layers)
    owner, flattened_pixels = "", 1
    for layer, shape in zip(architecture.layers, shapes, strict=False):
        place = len(modules)
        match layer:
            case Conv():
                owner = next(owners)
                bias = not layout.tensors[f"{owner}.bias"].frozen
                padding = layer.kernel // 2 if layer.padding == "same" else 0
                modules.append(
                    nn.Conv2d(shape[-1], layer.channels, layer.kernel, layer.stride, padding, bias=bias)
                )
            case Linear():
                owner = next(owners)
                bias = not layout.tensors[f"{owner}.bias"].frozen
                modules.append(nn.Linear(shape[0], layer.features, bias=bias))
            case BatchNorm():
                kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
                modules.append(kind(shape[-1], track_running_stats=running_statistics))
                names |= {f"{owner}.bn.{ours}": f"{place}.{theirs}" for ours, theirs in _NORM_NAMES.items()}
            case Activate():
                modules.append(_ACTIVATIONS[setup.activation]())
            case Dropout():
                modules.append(nn.Dropout(setup.dropout))
            case MaxPool():
                modules.append(nn.MaxPool2d(layer.size))
            case GlobalAveragePool():
                modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            case Flatten():
                modules.append(nn.Flatten())
                flattened_pixels = shape[0] * shape[1] if len(shape) == 3 else 1
        if isinstance(layer, (Conv, Linear)):
            names |= {f"{owner}.{kind}": f"{place}.{kind}" for kind in ("weight", "bias")}
    return WrittenNetwork(modules, names, flattened_pixels).train()


def written(module: WrittenNetwork, layout: Layout, weights: Weights) -> dict[str, Tensor]:
    """A flat vector [D] as the module's tensors, by the module's names."""
    tensors = {}
    for ours, theirs in module.names.items():
        spec = layout.tensors[ours]
        tensor = torch.from_numpy(weights[spec.offset : spec.stop].copy()).view(spec.shape)
        if ours == "fc1.weight":
            tensor = tensor.view(len(tensor), module.pixels, -1).transpose(1, 2).reshape(spec.shape)
        tensors[theirs] = tensor
    return tensors


def stored(module: WrittenNetwork, layout: Layout, tensors: Mapping[str, Tensor], initial: Weights) -> Weights:
    """A module's tensors as a flat vector [D]; what the module does not have stays as in ``initial``."""
    weights = initial.copy()
    for ours, theirs in module.names.items():
        spec = layout.tensors[ours]
        tensor = tensors[theirs].detach()
        if ours == "fc1.weight":
            tensor = tensor.reshape(len(tensor), -1, module.pixels).transpose(1, 2)
        weights[spec.offset : spec.stop] = tensor.reshape(-1).cpu().numpy()
    return weights

"""Architecture (a list of layers), layout (its flat vector), cost, initial weights and runnable module."""

from .architecture import (
    ACTIVATIONS,
    Activate,
    Activation,
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
from .cost import forward_macs, training_flops
from .families import FAMILIES, Family
from .initial import Initialization, initial_weights
from .layout import Layout, TensorSpec
from .permute import permute_neurons
from .wiring import Connection, connections

__all__ = [
    "ACTIVATIONS",
    "FAMILIES",
    "Activate",
    "Activation",
    "Architecture",
    "BatchNorm",
    "Connection",
    "Conv",
    "Dropout",
    "Family",
    "Flatten",
    "GlobalAveragePool",
    "Initialization",
    "Input",
    "Layer",
    "Layout",
    "Linear",
    "MaxPool",
    "TensorSpec",
    "connections",
    "forward_macs",
    "initial_weights",
    "permute_neurons",
    "training_flops",
]

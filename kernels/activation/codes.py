"""Activations by number, so that one compiled set serves them all."""

from __future__ import annotations

ACTIVATION_CODES: dict[str, int] = {
    "identity": 0,
    "relu": 1,
    "elu": 2,
    "sigmoid": 3,
    "tanh": 4,
    "leaky_relu": 5,
    "gelu": 6,
}

IDENTITY, RELU = ACTIVATION_CODES["identity"], ACTIVATION_CODES["relu"]

LEAKY_SLOPE = 0.01

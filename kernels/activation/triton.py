"""Activation functions inside Triton kernels, chosen at run time by a member's code.

A program sees one member, so the code is one number and the branches are uniform. Where no member has GELU, whose
error functions take as much code as all others together, it is left out when a kernel is compiled.
NaN stays NaN, so that a diverged network is seen to be one. exp(z) - 1 is off by a rounding of 1, as sums with
numbers near 1 are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .codes import ACTIVATION_CODES
from .codes import LEAKY_SLOPE as _LEAKY_SLOPE

RELU = tl.constexpr(ACTIVATION_CODES["relu"])
ELU = tl.constexpr(ACTIVATION_CODES["elu"])
SIGMOID = tl.constexpr(ACTIVATION_CODES["sigmoid"])
TANH = tl.constexpr(ACTIVATION_CODES["tanh"])
LEAKY_RELU = tl.constexpr(ACTIVATION_CODES["leaky_relu"])
GELU = tl.constexpr(ACTIVATION_CODES["gelu"])
LEAKY_SLOPE = tl.constexpr(_LEAKY_SLOPE)

_ROOT_HALF = tl.constexpr(0.5**0.5)
_DENSITY_AT_0 = tl.constexpr(0.3989422804014327)  # of the normal distribution


@triton.jit
def _sigmoid(z):
    return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def _normal_distribution(z):
    return 0.5 + 0.5 * tl.erf(z * _ROOT_HALF)


@triton.jit
def gelu(z):
    """The only one that is not monotone."""
    return z * _normal_distribution(z)


@triton.jit
def _activate_others(z, code):
    if code == RELU:
        value = tl.where(z <= 0.0, 0.0, z)
    elif code == ELU:
        value = tl.where(z > 0.0, z, tl.exp(z) - 1.0)
    elif code == SIGMOID:
        value = _sigmoid(z)
    elif code == TANH:
        value = 2.0 * _sigmoid(2.0 * z) - 1.0
    elif code == LEAKY_RELU:
        value = tl.where(z > 0.0, z, LEAKY_SLOPE * z)
    else:
        value = z
    return value


@triton.jit
def activate(z, code, WITH_GELU: tl.constexpr):
    """f(z), float32."""
    if WITH_GELU:
        if code == GELU:
            value = gelu(z)
        else:
            value = _activate_others(z, code)
    else:
        value = _activate_others(z, code)
    return value


@triton.jit
def _slope_of_others(z, code):
    if code == RELU:
        value = tl.where(z > 0.0, 1.0, 0.0)
    elif code == ELU:
        value = tl.where(z > 0.0, 1.0, tl.exp(z))
    elif code == SIGMOID:
        gate = _sigmoid(z)
        value = gate * (1.0 - gate)
    elif code == TANH:
        height = 2.0 * _sigmoid(2.0 * z) - 1.0
        value = 1.0 - height * height
    elif code == LEAKY_RELU:
        value = tl.where(z > 0.0, 1.0, LEAKY_SLOPE)
    else:
        value = tl.full(z.shape, 1.0, tl.float32)
    return value


@triton.jit
def slope(z, code, WITH_GELU: tl.constexpr):
    """f'(z), float32."""
    if WITH_GELU:
        if code == GELU:
            value = _normal_distribution(z) + z * _DENSITY_AT_0 * tl.exp(-0.5 * z * z)
        else:
            value = _slope_of_others(z, code)
    else:
        value = _slope_of_others(z, code)
    return value

"""A network whose values are bfloat16 wherever the CUDA backend stores them; sums stay in the network's own dtype.

Stored are the images as the network sees them, what a product makes, what comes out of normalisation, activation,
pooling and dropout together, and the mean over pixels; of each also its gradient. Products are of weights that are
rounded too, but for biases; what is learnt is not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .architecture import Conv, Dropout, GlobalAveragePool, Input, Layer, Linear
from .module import Network


class RoundedNetwork(Network):
    """A runnable network that rounds to bfloat16 on the way; otherwise as ``Network``."""

    def _add(self, layer: Layer | Input, step: Callable[[Tensor], Tensor]) -> None:
        match layer:
            case Conv() | Linear():
                super()._add(layer, partial(_stored, step=partial(_multiplied, layer=step)))
            case GlobalAveragePool():
                super()._add(layer, partial(_stored, step=step))
            case Dropout():
                super()._add(layer, partial(_kept, step=step))
            case Input():
                super()._add(layer, partial(_seen, step=step))
            case _:
                super()._add(layer, step)


def _seen(images: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    return _round(step(images))


def _kept(values: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    """The end of what is computed together."""
    made: Tensor = _Stored.apply(step(values))  # type: ignore[no-untyped-call]
    return made


def _stored(values: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    """What goes in is what the layers before it leave; rounding twice changes nothing."""
    made: Tensor = _Stored.apply(step(_Stored.apply(values)))  # type: ignore[no-untyped-call]
    return made


def _multiplied(values: Tensor, layer: Any) -> Tensor:
    weight: Tensor = _Rounded.apply(layer.weight)  # type: ignore[no-untyped-call]
    made: Tensor = torch.func.functional_call(layer, {"weight": weight}, (values,))
    return made


def _round(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16).to(values.dtype)


class _Rounded(torch.autograd.Function):
    """Rounds on the way forward; the gradient passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _round(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Stored(_Rounded):
    """Rounds the gradient as well."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _round(gradient)

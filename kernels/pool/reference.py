"""The mean over all pixels, in plain PyTorch."""

from __future__ import annotations

from torch import Tensor


def average(x_RHWC: Tensor) -> Tensor:
    """The mean over all pixels, [R, C], of the argument's dtype; autograd gives the gradient."""
    return x_RHWC.mean(dim=(1, 2))

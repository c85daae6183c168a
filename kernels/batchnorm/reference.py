"""Batch normalisation, activation and pooling of a pack, one member after the other, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from ..activation.reference import ACTIVATION_FUNCTIONS
from .constants import EPSILON


def normalise(
    y_RHWC: Tensor, row_offsets: Sequence[int], activations: Sequence[str], *, gamma_PC: Tensor | None = None,
    beta_PC: Tensor | None = None, moving_PC: tuple[Tensor, Tensor] | None = None, pool: int = 1,
    activation_first: bool = False,
) -> Tensor:  # fmt: skip
    """Normalise, activate and pool; autograd gives the gradients.

    Args:
        y_RHWC: images of all members, without margins.
        row_offsets: the first image of each member, and the number of images.
        activations: name of each member's function.
        gamma_PC: scales; None leaves the normalisation out.
        beta_PC: shifts.
        moving_PC: moving mean and variance to normalise by; the batch's own if None.
        pool: side of the windows whose largest value is kept.
        activation_first: whether the activation comes before the normalisation.

    Returns:
        [R, H // pool, W // pool, C], of the arguments' dtype.
    """
    made = []
    for member, (first, end) in enumerate(pairwise(row_offsets)):
        if first == end:  # PyTorch does not take the mean of nothing
            continue
        values = y_RHWC[first:end].permute(0, 3, 1, 2)
        activate = ACTIVATION_FUNCTIONS[activations[member]]
        if activation_first:
            values = activate(values)
        if gamma_PC is not None and beta_PC is not None:
            if moving_PC is not None:
                mean, variance = moving_PC[0][member], moving_PC[1][member]
            else:
                mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3), unbiased=False)
            scale = gamma_PC[member] / (variance + EPSILON).sqrt()
            values = (values - mean[:, None, None]) * scale[:, None, None] + beta_PC[member][:, None, None]
        if not activation_first:
            values = activate(values)
        made.append(functional.max_pool2d(values, pool).permute(0, 2, 3, 1))
    return torch.cat(made)

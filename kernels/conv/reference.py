"""Convolutions of a pack, one member after the other, in plain PyTorch: the judge of faster ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from .shapes import ConvShape


def convolve(
    x_RHWC: Tensor, w_PKKCO: Tensor, bias_PO: Tensor | None, row_offsets: Sequence[int], shape: ConvShape
) -> Tensor:
    """Convolve every member's images with its own filters; autograd gives the gradients.

    Args:
        x_RHWC: images of all members, without margins.
        w_PKKCO: filters.
        bias_PO: biases, or None.
        row_offsets: the first image of each member, and the number of images.
        shape: sizes.

    Returns:
        [R, H', W', O], of the arguments' dtype.
    """
    made = []
    for member, (first, end) in enumerate(pairwise(row_offsets)):
        x_RCHW = x_RHWC[first:end].permute(0, 3, 1, 2)
        if shape.padding == "same":
            rows, columns = (_zeros(size, shape) for size in (shape.height, shape.width))
            x_RCHW = functional.pad(x_RCHW, (*columns, *rows))
        bias_O = None if bias_PO is None else bias_PO[member]
        y = functional.conv2d(x_RCHW, w_PKKCO[member].permute(3, 2, 0, 1), bias_O, shape.stride)
        made.append(y.permute(0, 2, 3, 1))
    return torch.cat(made)


def _zeros(size: int, shape: ConvShape) -> tuple[int, int]:
    """Zeros before and after an axis, as TensorFlow has them: one more after it if they do not sit evenly."""
    places = -(-size // shape.stride)
    needed = max((places - 1) * shape.stride + shape.kernel - size, 0)
    return needed // 2, needed - needed // 2

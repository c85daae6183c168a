"""Linear layers of a pack, one member after the other, in plain PyTorch: the judge of faster ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def linear(x_RK: Tensor, w_PKN: Tensor, bias_PN: Tensor, row_offsets: Sequence[int]) -> Tensor:
    """Every member's rows times its own weights, plus its bias; autograd gives the gradients.

    Args:
        x_RK: rows of all members.
        w_PKN: weights.
        bias_PN: biases.
        row_offsets: the first row of each member, and the number of rows.

    Returns:
        [R, N], of the arguments' dtype.
    """
    spans = enumerate(pairwise(row_offsets))
    return torch.cat([x_RK[first:end] @ w_PKN[member] + bias_PN[member] for member, (first, end) in spans])

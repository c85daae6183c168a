"""Softmax cross-entropy as PyTorch has it: the judge of the kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, answers and the gradient of the mean loss.

    Args:
        logits: [n, outputs].
        labels: int64 [n].

    Returns:
        The images' losses in nats [n]; the output with the largest logit, the first of equals, int64 [n]; the
        gradient of the mean loss with respect to the logits [n, outputs].
    """
    leaves = logits.detach().clone().requires_grad_()
    losses = functional.cross_entropy(leaves, labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.mean(), leaves)
    return losses.detach(), logits.argmax(dim=1), gradient

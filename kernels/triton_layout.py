"""What Triton kernels expect of the tensors they are given."""

from __future__ import annotations

import torch
from torch import Tensor


def power_of_two(number: int, *, at_least: int = 1) -> int:
    """The smallest power of two that is no less than both."""
    return 1 << (max(number, at_least) - 1).bit_length()


def margin_of(name: str, tensor: Tensor, sizes: tuple[int, int, int]) -> int:
    """The margin M of images [R, H, W + 2 M, C].

    Raises:
        ValueError: it is no such tensor, of bfloat16 or float32 and without gaps in memory.
    """
    height, width, channels = sizes
    right = tensor.ndim == 4 and tensor.shape[1] == height and tensor.shape[3] == channels
    margin, rest = divmod(tensor.shape[2] - width, 2) if right else (0, 1)
    if rest or margin < 0 or tensor.dtype not in (torch.bfloat16, torch.float32) or not tensor.is_contiguous():
        raise ValueError(
            f"`{name}` ({tensor.dtype} {list(tensor.shape)}) must be contiguous images, bfloat16 or float32, of "
            f"{height} x {width} pixels with a margin on both sides and {channels} channels"
        )
    return margin


def check_part(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Check that a tensor can be a part of the members' vectors: only members may lie apart in memory.

    Raises:
        ValueError: it has another shape, another dtype than float32, or gaps within a member.
    """
    apart = tensor.shape == shape and not tensor[0].is_contiguous()
    if tensor.shape != shape or tensor.dtype != torch.float32 or apart:
        raise ValueError(
            f"`{name}` ({tensor.dtype} {list(tensor.shape)}) must be float32 {list(shape)}, "
            "without gaps within a member"
        )

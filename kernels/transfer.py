"""From the host to a device without waiting for what the device has yet to do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def write(to: Tensor, values: npt.ArrayLike) -> None:
    """Copy numbers of the host into a tensor, behind all that this thread has launched.

    By way of memory that the device reads itself: for a copy from other memory PyTorch waits until the thread's
    stream has nothing left to do.

    Args:
        to: the tensor, or a part of one.
        values: of its shape, to be rounded to its dtype; they may be changed afterwards.
    """
    here = torch.from_numpy(np.asarray(values)).to(to.dtype)
    if to.is_cuda:
        here = here.pin_memory()
    to.copy_(here, non_blocking=True)


def sent(values: npt.ArrayLike, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor on a device with numbers of the host, copied by ``write``."""
    numbers = np.asarray(values)
    made = torch.empty(numbers.shape, dtype=dtype, device=device)
    write(made, numbers)
    return made

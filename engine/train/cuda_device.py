"""A GPU that several threads share: one at a time launches, each into a stream of its own, and they wait together.

A pack with few images leaves most of a GPU idle, so packs of several architectures train at the same time, a
thread each. What allocates, compiles, captures or launches is done in a thread's turn, and nobody waits for other
threads' work in a turn. So Triton and PyTorch's allocator see one thread at a time, no memory is given back to the
device while a graph is captured, and results do not depend on who came first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from .backend import DeviceMemoryError

# Streams beyond as many hardware queues wait for each other, and CUDA's own number is 8. It is read when CUDA
# starts, which may be before there is a device here.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

_MEMORY_SHARE = 0.95  # of the device, that PyTorch may take
_LITTLE = 0.25  # of the device


class Device:
    """Where packs of a backend train.

    Args:
        name: as PyTorch names it; "cpu" where Triton's kernels run in its interpreter.

    Attributes:
        torch: the device.
    """

    def __init__(self, name: torch.device | str) -> None:
        self.torch = torch.empty(0, device=name).device  # by its number: each thread has a current one of its own
        if self.is_gpu:  # compiled kernels and graphs need some that is not PyTorch's
            torch.cuda.set_per_process_memory_fraction(_MEMORY_SHARE, self.torch)
        self._lock = threading.Lock()
        self._of_thread = threading.local()

    @property
    def is_gpu(self) -> bool:
        """Whether there are streams."""
        return self.torch.type == "cuda"

    @property
    def capability(self) -> int:
        """Of a GPU: 90 for sm_90."""
        major, minor = torch.cuda.get_device_capability(self.torch)
        return 10 * major + minor

    def free_bytes(self) -> int:
        """Memory that all packs together can have."""
        free, _ = torch.cuda.mem_get_info(self.torch)
        return free + torch.cuda.memory_reserved(self.torch)

    def tidy(self) -> None:
        """Where little memory is left, give back, in a turn, what is free but kept.

        What a graph held can be had by others only then, and nothing is given back during a capture. It waits
        until the device has done all its work, so not every time.
        """
        if self.is_gpu:
            free, total = torch.cuda.mem_get_info(self.torch)
            if free < _LITTLE * total:
                torch.cuda.empty_cache()

    def finish(self) -> None:
        """Wait, in a turn, until all that this thread has launched is done."""
        if self.is_gpu:
            torch.cuda.current_stream(self.torch).synchronize()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """What is launched inside goes into this thread's stream; other threads wait for their turn."""
        with self._lock:
            if not self.is_gpu:
                yield
                return
            if not hasattr(self._of_thread, "stream"):
                self._of_thread.stream = torch.cuda.Stream(self.torch)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(self._of_thread.stream):
                yield


class Fetched:
    """Tensors on their way to the host, behind all that this turn has launched.

    Args:
        tensors: to be copied.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._copies: list[Tensor] = []
        self._done: torch.cuda.Event | None = None
        for tensor in tensors:
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._copies.append(copy.copy_(tensor, non_blocking=True))
        if any(tensor.is_cuda for tensor in tensors):  # blocking: a thread that waits leaves its core to others
            self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._done.record()

    def wait(self) -> list[npt.NDArray[Any]]:
        """The copies, once they are there; to be called when the turn is over."""
        if self._done is not None:
            self._done.synchronize()
        return [copy.numpy() for copy in self._copies]


@contextmanager
def translated_memory_errors() -> Iterator[None]:
    """Say in the project's words that the device has too little memory."""
    try:
        yield
    except RuntimeError as error:  # of PyTorch's own kind, or what Triton and CUDA graphs make of it
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
            raise
        raise DeviceMemoryError("the GPU has too little memory for so many networks at a time") from error

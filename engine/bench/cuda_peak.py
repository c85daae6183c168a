"""What a GPU does at most: a plain large matrix product, and a copy of large arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch

_SIDE = 8192  # of the matrices
_COPY_VALUES = 2**28  # float32: 1 GiB an array, far more than the caches hold
_SMALL = 64  # where there is no GPU, to try it
_COPY_BYTES = 8  # of one value, read and written


class CardProbe:
    """Measures a GPU, in this process.

    Args:
        name: ``matrix_bf16`` and ``matrix_tf32`` (FLOP/s of square products), or ``copy`` (bytes/s read and
            written).
        device: as PyTorch names it; without a GPU it measures how long this processor takes for something small.
    """

    def __init__(self, name: Literal["matrix_bf16", "matrix_tf32", "copy"], device: str) -> None:
        self._device = torch.device(device)
        self._is_gpu = self._device.type == "cuda"
        self._name = name
        self._measured(1)  # warm-up

    def measure(self, seconds: float) -> float:
        """FLOP/s or bytes/s over about so many seconds, once at least."""
        work, once = self._measured(1)
        times = max(int(seconds / once), 1)
        work, spent = self._measured(times)
        return work / spent

    def _measured(self, times: int) -> tuple[float, float]:
        """FLOPs or bytes of so many repeats, and seconds."""
        work, run = self._job()  # memory is given back each time: contenders need it
        run()
        if not self._is_gpu:
            began = time.perf_counter()
            for _ in range(times):
                run()
            return work * times, max(time.perf_counter() - began, 1e-9)
        torch.cuda.synchronize(self._device)
        began_at, ended_at = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began_at.record()
        for _ in range(times):
            run()
        ended_at.record()
        torch.cuda.synchronize(self._device)
        spent = began_at.elapsed_time(ended_at) / 1e3
        del run
        torch.cuda.empty_cache()
        return work * times, spent

    def _job(self) -> tuple[float, Callable[[], object]]:
        """FLOPs or bytes of a call, and the call."""
        if self._name == "copy":
            source = torch.ones(_COPY_VALUES if self._is_gpu else _SMALL**2, device=self._device)
            target = torch.empty_like(source)
            return float(_COPY_BYTES * len(source)), lambda: target.copy_(source)
        side = _SIDE if self._is_gpu else _SMALL
        dtype = torch.bfloat16 if self._name == "matrix_bf16" else torch.float32
        left, right = torch.randn(2, side, side, device=self._device).to(dtype)
        if self._is_gpu:
            torch.set_float32_matmul_precision("high")  # TF32; this process multiplies nothing else of float32
        made = torch.empty_like(left)
        return 2.0 * side**3, lambda: torch.mm(left, right, out=made)

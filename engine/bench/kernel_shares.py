"""What share of a device's time each kernel has, by PyTorch's profiler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from .contender import Job


def kernel_shares(jobs: Sequence[Job], device: str) -> Mapping[str, float]:
    """Do every job once under the profiler; the shares, the largest first.

    Args:
        jobs: warm, and waiting for the device before they return.
        device: where they run. Without a GPU PyTorch's own operations are all that is seen.
    """
    is_gpu = torch.device(device).type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if is_gpu else ProfilerActivity.CPU]) as seen:
        for job in jobs:
            job()
    return shares_of(seen.key_averages(), "self_device_time_total" if is_gpu else "self_cpu_time_total")


def shares_of(events: Iterable[Any], field: str) -> Mapping[str, float]:
    """The share of each name of events, the largest first; those without time are left out.

    Args:
        events: with a ``key`` and times.
        field: the time that counts.
    """
    times: Counter[str] = Counter()
    for event in events:
        times[event.key] += getattr(event, field)
    total = sum(times.values())
    return {name: time / total for name, time in times.most_common() if time > 0}

"""What this process may use of the machine."""

from __future__ import annotations

import os
import sys


def cores() -> int:
    """The processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        return os.cpu_count() or 1


def open_files() -> int:
    """How many files this process may have open at a time."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows: what its C library allows
        return 512
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft

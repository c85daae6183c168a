"""What this process may use of the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path


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


def physical_bytes() -> int:
    """All memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can have without swapping, within the limits of its control groups.

    A container has such a limit, a job of Slurm and a unit of systemd; that of any group above counts too.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    return min([_of_system(root), *_of_groups(root)])


def _of_system(root: Path) -> int:
    try:
        return 1024 * _numbers(root / "proc/meminfo")["MemAvailable:"]
    except (OSError, KeyError):  # not Linux: all there is
        return physical_bytes()


def _of_groups(root: Path) -> Iterator[int]:
    """What is left of each limit; files in the cache give way."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux, or no control groups
        return
    mounted = root / "sys/fs/cgroup"
    for _, controllers, place in (line.split(":", 2) for line in lines):
        if not controllers:
            top, limit, used, cached = mounted, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):  # groups of version 1
            top, limit = mounted / "memory", "memory.limit_in_bytes"
            used, cached = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = top / place.lstrip("/")
        for folder in (group, *group.parents):
            try:
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                yield max(left + _numbers(folder / "memory.stat")[cached], 0)
            except (OSError, ValueError, KeyError):  # no limit, or a group that cannot be seen from in here
                pass
            if folder == top:
                break


def _numbers(file: Path) -> dict[str, int]:
    """The lines ``name number ...`` of a file."""
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines()) if len(words) > 1}

"""How much of the host's memory is free, and how many members' snapshots it holds.

A member's snapshots that may still be needed stay in the host's memory until it ends. A member or two a thread
never fill it; the thousands that train side by side on a GPU can, and the system would kill the run.
"""

from __future__ import annotations

import os
from pathlib import Path

_SHARE = 0.5  # of what is free; the rest is for members that wait to be stored, other packs, and other programs
SPARE_VECTORS = 4  # of a member beside its snapshots: the last and the best weights, and copies under way


def rows_in_memory(values: int, snapshots: int, *, bytes_free: int) -> int:
    """How many members' snapshots there is room for; at least 1.

    Args:
        values: D, of one member.
        snapshots: of a member that are held at the same time, at most.
        bytes_free: in the host's memory.
    """
    return max(int(_SHARE * bytes_free) // (4 * values * (snapshots + SPARE_VECTORS)), 1)


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that a new program can have without swapping, within the limit of the control group, if there is one.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    known = [_of_system(root), _of_group(root)]
    return min(number for number in known if number is not None)


def _of_system(root: Path) -> int:
    try:
        return 1024 * _numbers(root / "proc/meminfo")["MemAvailable:"]
    except (OSError, KeyError):  # not Linux: all there is
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_group(root: Path) -> int | None:
    """What is left of a container's limit; files in the cache give way."""
    folder = root / "sys/fs/cgroup"
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        return max(limit - used + _numbers(folder / "memory.stat")["inactive_file"], 0)
    except (OSError, ValueError, KeyError):  # no control groups of version 2, or "max"
        return None


def _numbers(file: Path) -> dict[str, int]:
    """The lines ``name number ...`` of a file."""
    return {words[0]: int(words[1]) for words in map(str.split, file.read_text().splitlines()) if len(words) > 1}

"""How many members' snapshots the host's memory holds.

A member's snapshots that may still be needed stay in the host's memory until it ends. A member or two a thread
never fill it; the thousands that train side by side on a GPU can, and the system would kill the run.
"""

from __future__ import annotations

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

"""What a run needs of the system, checked before it begins: one line is better than a crash after an hour."""

from __future__ import annotations

from ..errors import WseError
from ..machine import open_files

# Of Python and its libraries, of the run's own files, and of each worker's.
_OPEN_FILES, _OPEN_FILES_A_WORKER = 32, 4


def check_limits(*, workers: int, needed_bytes: int, free_bytes: int) -> None:
    """Refuse a run that cannot end.

    Args:
        workers: packs trained at the same time.
        needed_bytes: what the members in training need at least.
        free_bytes: what there is.

    Raises:
        WseError: too few files may be open, or there is too little memory.
    """
    needed, allowed = _OPEN_FILES + workers * _OPEN_FILES_A_WORKER, open_files()
    if allowed < needed:
        raise WseError(
            f"a run of {workers} threads needs {needed} open files and the system allows {allowed}: raise that by "
            "`ulimit -n 256`, or take fewer --threads"
        )
    if needed_bytes > free_bytes:
        raise WseError(
            f"members in training need {needed_bytes / 1e9:.2f} GB of memory, {free_bytes / 1e9:.2f} GB are free: "
            "take fewer --threads, or fewer snapshots (--set snapshots=5)"
        )

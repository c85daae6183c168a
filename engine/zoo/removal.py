"""Make place where a zoo was, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import UsageError
from .format import (
    CHECKPOINT_FOLDER,
    JOURNAL_FOLDER,
    LOCK_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    REPAIR_FOLDER,
    SHARD_FOLDER,
    STUDIES_FOLDER,
)
from .integrity import loading, saving
from .lock import Lock
from .tables import MEMBERS_FILE, SNAPSHOTS_FILE

_FOLDERS = (SHARD_FOLDER, JOURNAL_FOLDER, CHECKPOINT_FOLDER, REPAIR_FOLDER, STUDIES_FOLDER)
# The manifest last: what is left by a crash can still be seen to be a zoo.
_FILES = (MEMBERS_FILE, SNAPSHOTS_FILE, LOG_FILE, MANIFEST_FILE)


def remove_zoo(folder: Path) -> None:
    """Remove a zoo, finished or not, to make place for another one.

    Args:
        folder: of the zoo; a missing or empty one is fine.

    Raises:
        UsageError: the folder holds something else, perhaps besides a zoo; or a run is at work on it. Then nothing
            is removed.
        WseError: a file cannot be removed.
    """
    if not check_removable(folder):
        return
    lock = Lock(folder)
    try:
        _remove_files(folder)
    finally:
        lock.release()


def check_removable(folder: Path) -> bool:
    """Whether a folder holds a zoo and nothing else, so that ``remove_zoo`` has something to remove.

    Raises:
        UsageError: it holds something else, perhaps besides a zoo.
    """
    if not folder.exists() or (folder.is_dir() and not holds_something(folder)):
        return False
    if not (folder / MANIFEST_FILE).is_file():
        raise UsageError(f"{folder} is not a zoo, so it is not overwritten: name another folder")
    with loading(folder):
        others = sorted(path.name for path in set(folder.iterdir()) - set(_own(folder)))
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        raise UsageError(
            f"{folder} holds {others[0]}{more} besides the zoo, so it is not overwritten: move that, or name "
            "another folder"
        )
    return True


def check_free(folder: Path) -> None:
    """Refuse to begin a zoo where something is.

    Raises:
        UsageError: the folder has something in it, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder for the zoo")
    if folder.exists() and holds_something(folder):
        raise UsageError(
            f"{folder} is not empty: go on with the run in it by --resume, replace it by --overwrite, "
            "or name another folder"
        )


def _own(folder: Path) -> list[Path]:
    """What a zoo may have in its folder."""
    return [*(folder / name for name in (*_FOLDERS, *_FILES, LOCK_FILE)), *_leftovers(folder)]


def _remove_files(folder: Path) -> None:
    with saving(folder):
        for name in _FOLDERS:
            if (folder / name).exists():
                shutil.rmtree(folder / name)
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
        remove_leftovers(folder)


def _leftovers(folder: Path) -> list[Path]:
    """Temporary files of tables and ``zoo.json``, left by a process that was killed."""
    names = (MANIFEST_FILE, MEMBERS_FILE, SNAPSHOTS_FILE)
    return [path for name in names for path in folder.glob(f".{name}.*.tmp")]


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a process left when it was killed."""
    for path in _leftovers(folder):
        path.unlink()


def holds_something(folder: Path) -> bool:
    """Whether a folder has anything in it but what a killed process may have left."""
    with loading(folder):
        return bool(set(folder.iterdir()) - {folder / LOCK_FILE, *_leftovers(folder)})

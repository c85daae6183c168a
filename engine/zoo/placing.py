"""A whole zoo put in its place at once, or nothing of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import UsageError, WseError
from ..files import sync_folder
from ..text import bytes_text
from .format import LOCK_FILE
from .integrity import UnwritableError, saving
from .lock import Lock


def check_place(out: Path, needed: int) -> None:
    """Find out whether a zoo can be put somewhere, before the work of making it.

    Args:
        out: its folder.
        needed: bytes that it will have.

    Raises:
        UsageError: something is there already.
        WseError: there is no room for it.
    """
    place = out.resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{out} is not empty: name another folder by --out")
    there = next(path for path in place.parents if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise WseError(
            f"{out} needs {bytes_text(needed)}, but {there} has {bytes_text(free)} free: make room, or name "
            "another folder by --out"
        )


@contextmanager
def taking_place(out: Path, work: str) -> Iterator[Path]:
    """A hidden folder beside ``out`` that takes its place when the block ends, and is removed after an error.

    What a killed process has left of it is cleared away by the next one that does the same.

    Args:
        out: the folder of the new zoo; missing or empty.
        work: what is done, for the name of the hidden folder and for errors: "merging".

    Yields:
        The hidden folder, empty.

    Raises:
        UsageError: another process is at the same work.
        WseError: a file cannot be written.
    """
    place = out.resolve()
    folder = place.with_name(f".{place.name}.{work}")
    lock = None
    try:
        with saving(out):
            folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
        with saving(out):
            _clear(folder)
        yield folder
        with saving(out):
            folder.replace(place)
        lock.path = place / LOCK_FILE  # it has moved with the folder, and is still held
        sync_folder(place.parent)
    except BaseException as error:
        with suppress(WseError):  # while another process is at the same work the folder is that one's
            lock = lock or Lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, UnwritableError):
            raise
        raise WseError(
            f"cannot write {out}: {error.reason}; nothing is left of it: put that right, and try again"
        ) from error
    finally:
        if lock is not None:
            lock.release()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()

"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of ``path`` when the block ends without an error.

    The data reach the disk before the name does: write, fsync, rename, fsync of the folder. After an error
    nothing is left, and a file that stood at ``path`` is as it was.

    Args:
        path: the final name; its folder must exist.

    Yields:
        A binary file open for writing.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def check_writable(folder: Path) -> None:
    """Find out whether files can be made in a folder, or, where there is none yet, in the one it would be made in.

    Raises:
        OSError: they cannot.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    with tempfile.TemporaryFile(dir=there):
        pass


def is_temporary(path: Path) -> bool:
    """Whether a file has the name of one that ``atomic_write`` was writing when its process was killed."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", path.name) is not None


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing; they are on the disk when this returns.

    Raises:
        OSError: it cannot be made, or there is a file of that name.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable, where a folder can be opened (not on Windows) and synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # how a file system says that it does not sync folders
            raise
    finally:
        os.close(descriptor)

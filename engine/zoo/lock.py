"""One run at a time on a zoo.

A run holds a lock of the operating system on the file ``zoo.lock`` in the zoo's folder, which names it. The
system lets go of the lock when the process ends, however it ends, so a crash leaves nothing in the way but the
file, which the next run takes over. On a file system without such locks, whoever made the file has the zoo until
it is removed.
"""

from __future__ import annotations

import errno
import os
import platform
import weakref
from pathlib import Path

from ..errors import UsageError
from .format import LOCK_FILE
from .integrity import saving

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class Lock:
    """The lock of a zoo, held from when it is made until ``release``, or until it is garbage or the process ends.

    Args:
        folder: of the zoo; it must exist.

    Raises:
        UsageError: another run holds it.
        WseError: the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        with saving(self.path):
            descriptor = self._take()
            try:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
            except BaseException:
                os.close(descriptor)  # now: what is raised keeps this object, and with it the lock
                raise
            self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Remove the file and let go; does nothing the second time.

        Raises:
            WseError: the file cannot be removed.
        """
        if not self._close.alive:
            return
        try:
            # While it is still held: afterwards the file may be another run's.
            with saving(self.path):
                self.path.unlink(missing_ok=True)
        finally:
            self._close()

    def _take(self) -> int:
        """The file, open and locked."""
        while True:
            try:
                descriptor, made = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
            except FileExistsError:
                try:
                    descriptor, made = os.open(self.path, os.O_RDWR), False
                except FileNotFoundError:  # its run has just ended
                    continue
            try:
                _lock(descriptor, self.path, made)
                # A run that ended meanwhile has removed the file, and what was locked is nobody's any more.
                if self.path.exists() and os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def check_unlocked(folder: Path) -> None:
    """Refuse a folder that a run is writing, without taking its lock.

    Raises:
        UsageError: another run holds the lock.
        WseError: the file cannot be opened.
    """
    path = folder / LOCK_FILE
    with saving(path):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            _lock(descriptor, path, made=False)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path, made: bool) -> None:
    """Lock an open file; a ``UsageError`` says who has it."""
    advice = _refused(descriptor, made)
    if advice:
        holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
        raise UsageError(f"{path.parent} is being written by {holder}: {advice.format(file=path)}")


def _refused(descriptor: int, made: bool) -> str | None:
    """None if the lock is now ours, else what the user can do; ``made``: whether the file was not there before."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return "wait until it ends, stop it, or name another folder"
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    return None if made else "wait until it ends; if it has already ended, remove {file}"

"""A sign of life of the process that owns the zoo, for workers that are not its children.

It is a file in the folder of the checkpoints, whose content changes every few seconds. When the run is to stop,
the file is removed; when its process is killed, the content stays as it is.
"""

from __future__ import annotations

import itertools
import secrets
import time
from pathlib import Path

from ..files import atomic_write
from ..zoo import saving

_BEAT_SECONDS = 5.0
_LISTEN_SECONDS = 1.0
_PATIENCE_SECONDS = 120.0  # file systems of clusters may show a change late


class Pulse:
    """Is given now and then.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"pulse-{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._due = 0.0
        self.beat()

    def beat(self) -> None:
        """Show that the process is alive, if the last time was some seconds ago; to be called often.

        Raises:
            WseError: the file cannot be written.
        """
        if time.monotonic() >= self._due:
            with saving(self.path), atomic_write(self.path) as file:
                file.write(str(next(self._numbers)).encode())
            self._due = time.monotonic() + _BEAT_SECONDS

    def end(self) -> None:
        """Tell all who listen to stop."""
        self._due = float("inf")
        with saving(self.path):
            self.path.unlink(missing_ok=True)


class Listening:
    """Listens to a pulse: called, says whether to go on.

    Args:
        path: of the pulse.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._heard, self._last = time.monotonic(), b""
        self._next, self._alive = 0.0, True

    def __call__(self) -> bool:
        """Whether the run goes on; looks at the file no more than once a second."""
        now = time.monotonic()
        if self._alive and now >= self._next:
            self._next = now + _LISTEN_SECONDS
            try:
                beat = self._path.read_bytes()
            except FileNotFoundError:
                self._alive = False
                return False
            except OSError:  # a file system that does not answer: no sign of life
                beat = self._last
            if beat != self._last:
                self._heard, self._last = now, beat
            self._alive = now - self._heard < _PATIENCE_SECONDS
        return self._alive

"""How far the compilation of the CPU kernels has come, and its end when the run is to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from numba.core import event

from .backend import Interrupted
from .cpu_step import is_compiled, run_batches

FUNCTIONS = 234
"""Functions, each with its types, that the training step is compiled from; a test counts them."""

_KIND = "numba:compile"
_TOLD_SHARE = 0.25  # a line each time that so much more is done


class Compilation(event.Listener):  # type: ignore[misc]
    """Follows the compilation of the training step in whatever thread it happens: Numba tells of each function.

    Args:
        tell: takes a line now and then.
        should_stop: asked before each function; the compilation ends when it says so.

    Attributes:
        share: of the functions that are compiled, while it goes on; None before and after.
    """

    share: float | None = None
    _followed: ClassVar[Compilation | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, tell: Callable[[str], None], should_stop: Callable[[], bool]) -> None:
        self._tell, self._should_stop = tell, should_stop
        self._done, self._told, self._began = 0, 0.0, 0.0
        self._stopped = False

    @classmethod
    def follow(cls, tell: Callable[[str], None], should_stop: Callable[[], bool]) -> Compilation:
        """Follow the compilation if there will be one, in place of who followed it so far."""
        made = cls(tell, should_stop)
        with cls._lock:
            if cls._followed is not None:
                event.unregister(_KIND, cls._followed)
            cls._followed = None if is_compiled() else made
            if cls._followed is not None:
                event.register(_KIND, made)
        return made

    def on_start(self, what: event.Event) -> None:
        """A function's turn has come."""
        begins = what.data["dispatcher"] is run_batches
        if (begins or self.share is not None) and self._should_stop():
            self._stopped = True
            raise Interrupted
        if begins:
            self._done, self._told, self._began, self._stopped = 0, 0.0, time.monotonic(), False
            self.share = 0.0
            self._tell("compiling the CPU kernels, once on this machine; it takes up to a minute")

    def on_end(self, what: event.Event) -> None:
        """A function is compiled, or has failed to be."""
        if self.share is None:
            return
        self._done += 1
        if what.data["dispatcher"] is run_batches:
            self.share = None
            if not self._stopped:
                self._tell(f"compiled the CPU kernels in {time.monotonic() - self._began:.0f} s")
            return
        self.share = min(self._done / FUNCTIONS, 0.99)
        if not self._stopped and self.share >= self._told + _TOLD_SHARE:
            self._told = self.share // _TOLD_SHARE * _TOLD_SHARE
            self._tell(f"compiling the CPU kernels: {self.share:.0%}")

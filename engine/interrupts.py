"""Ctrl-C, which a terminal sends to a process and to all that it has started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def starting_processes() -> Iterator[None]:
    """Processes that are started within never hear Ctrl-C, not even while they import: their parent ends them.

    The parent hears what comes meanwhile at the end of the block, if its main thread is in there.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    with _heard_afterwards():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _heard_afterwards() -> Iterator[None]:
    """With other threads a mask does not help: the system tells one of them, and Python the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handler = signal.signal(signal.SIGINT, lambda *what: came.append(what))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came and callable(handler):
            handler(*came[0])

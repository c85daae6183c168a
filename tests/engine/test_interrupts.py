from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from wse.engine.interrupts import starting_processes

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs masks of signals")

INTERRUPTED = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('goes on')"


def test_what_is_started_does_not_hear_ctrl_c() -> None:
    with starting_processes():
        child = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout, child.stderr) == (0, "goes on\n", "")
    with pytest.raises(KeyboardInterrupt):  # as ever
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_for_the_end_of_the_start() -> None:
    started, over = False, threading.Event()
    other = threading.Thread(target=over.wait)  # it is told by the system, and Python tells the main thread
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), starting_processes():  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            started = True
    finally:
        over.set()
        other.join()
    assert started

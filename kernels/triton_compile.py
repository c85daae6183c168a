"""Compiles forms of Triton kernels before they are launched, in several processes.

    python -m wse.kernels.triton_compile CAPABILITY < FORMS

Triton compiles a form when it is first launched, one after the other, and keeps it on the disk. A run that asks
for hundreds of forms has them compiled on all cores first: by Triton's own launches, which end where they would go
to the GPU, so that those of the run look for the same on the disk.
"""

from __future__ import annotations

import importlib
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

from .triton_launches import Form

_KERNELS = Path(__file__).parent
_WARP = 32
_POLL_SECONDS = 0.1


def settle_keys() -> None:
    """Let all kernels have the same keys in every process, whichever are launched first.

    Before 3.8, Triton's key of a kernel depends on which of the functions it calls had keys by then. So all get
    theirs here, in one order; to be called before anything is launched.
    """
    from triton.runtime.jit import JITFunction

    for file in sorted(_KERNELS.rglob("triton*.py")):
        name = ".".join((__package__, *file.relative_to(_KERNELS).with_suffix("").parts))
        for function in vars(importlib.import_module(name)).values():
            if isinstance(function, JITFunction):
                function.cache_key  # noqa: B018 - it is kept


def was_compiled(form: Form) -> bool:
    """Whether a form was in this process or on the disk. It is now, for the GPU of Triton's driver."""
    from triton import knobs

    found: list[bool] = []

    def listen(*, cache_hit: bool, **_: Any) -> None:
        found.append(cache_hit)

    before, knobs.compilation.listener = knobs.compilation.listener, listen
    try:
        form.compile()
    finally:
        knobs.compilation.listener = before
    return all(found)


def compile_all(
    forms: Sequence[Form],
    capability: int,
    *,
    processes: int,
    told: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> int:
    """Compile forms side by side. What fails here fails again where it is launched, and is told there.

    Args:
        forms: what to compile.
        capability: of the GPU, 90 for sm_90.
        processes: how many.
        told: takes now and then how many are done.
        should_stop: asked often; once it says so, no more are compiled.

    Returns:
        How many are done.
    """
    team: list[_Worker] = []
    try:
        with suppress(OSError):  # no more processes can be had
            count = min(processes, len(forms))
            team.extend(_Worker(forms[first::count], capability) for first in range(count))
        while any(worker.is_alive() for worker in team) and not should_stop():
            told(sum(worker.done for worker in team))
            for worker in team:
                worker.join(_POLL_SECONDS / len(team))
    finally:
        for worker in team:
            worker.end()
    return sum(worker.done for worker in team)


class _Worker(threading.Thread):
    """A process, and a thread that reads how far it is.

    Not one of ``multiprocessing``: that would read the program's main module again, and could not be started by a
    worker of a run, which is a daemon.

    Attributes:
        done: forms that are compiled, or cannot be.
    """

    def __init__(self, forms: Sequence[Form], capability: int) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self._forms = forms
        command = [sys.executable, "-m", __name__, str(capability)]
        self._process = subprocess.Popen(  # noqa: S603 - this module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self.start()

    def run(self) -> None:
        """Hand over the forms, and count."""
        with suppress(OSError):  # it has died, or was told to end
            with self._stdin:
                pickle.dump(self._forms, self._stdin)
            for _ in self._stdout:
                self.done += 1

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self.join()
        self._process.wait()
        self._stdout.close()


def stand_in(capability: int) -> Any:
    """What Triton's launches ask of a driver before they need a GPU."""
    from triton.backends.compiler import GPUTarget

    target = GPUTarget("cuda", capability, _WARP)
    return SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: target,
    )


def main() -> None:
    """Compile the forms of standard input; a line for each that is done. Ctrl-C is the parent's affair."""
    from triton.runtime import driver

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver.set_active(stand_in(int(sys.argv[1])))
    settle_keys()
    for form in pickle.load(sys.stdin.buffer):  # noqa: S301 - from the process that started this one
        with suppress(Exception):
            form.compile()
        print(flush=True)


if __name__ == "__main__":
    main()

"""Several processes on one machine, each with a pipe of its own: one a GPU, or the cores shared out."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ..errors import UsageError, WseError
from ..interrupts import starting_processes
from ..machine import cores
from ..train import Checkpoints, Report, Run
from .dispatch import Ended, Message, dispatch
from .tasks import Job, Task, cut, packs_of_worker, train

_TASKS_PER_PROCESS = 8  # so that little is left to wait for at the end
_POLL_SECONDS = 0.1
_REPORT_SECONDS = 1.0
_END_SECONDS = 10.0


class Processes:
    """Trains in worker processes, which end with this one; one that dies is replaced.

    Args:
        processes: how many; None: one a GPU, or one a core.

    Raises:
        UsageError: there is to be none.
    """

    def __init__(self, processes: int | None = None) -> None:
        if processes is not None and processes < 1:
            raise UsageError(f"`processes` (={processes}) must be at least 1")
        self._processes = processes

    def workers(self, run: Run) -> int:
        """Packs trained at the same time, by all processes together."""
        return self._count(run) * self._threads(run)

    def reports(self, run: Run, members: Collection[int], checkpoints: Checkpoints) -> Generator[Report]:
        """Train members in processes."""
        count = self._count(run)
        job = Job.of(run, threads=self._threads(run), sharing=self.workers(run), seconds=_REPORT_SECONDS)
        gpus = _gpus() if run.backend.name == "cuda" else []
        team = _Team(count, pickle.dumps(job), gpus)
        return dispatch(run, cut(run, members, _TASKS_PER_PROCESS * count), team)

    def _count(self, run: Run) -> int:
        if self._processes is not None:
            return self._processes
        return max(len(_gpus()), 1) if run.backend.name == "cuda" else cores()

    def _threads(self, run: Run) -> int:
        return packs_of_worker(run, max(1, cores() // self._count(run)))


class _Team:
    """Processes that are started when there is work for them."""

    def __init__(self, count: int, job: bytes, gpus: Sequence[str]) -> None:
        self._job, self._gpus = job, gpus
        self._workers: list[_Worker | None] = [None] * count

    @property
    def room(self) -> int:
        return sum(worker is None or worker.task is None for worker in self._workers)

    @property
    def is_busy(self) -> bool:
        return any(worker is not None and worker.task is not None for worker in self._workers)

    def begin(self, tasks: Sequence[Task]) -> None:
        left = list(tasks)
        for place, worker in enumerate(self._workers):
            if left and (worker is None or worker.task is None):
                if worker is None:
                    gpu = self._gpus[place % len(self._gpus)] if self._gpus else None
                    worker = self._workers[place] = _Worker(place, self._job, gpu)
                worker.begin(left.pop(0))

    def messages(self) -> Iterator[tuple[Task, Message]]:
        pipes = {worker.pipe: place for place, worker in enumerate(self._workers) if worker is not None}
        # A short wait, not an endless one, lets signal handlers run.
        for pipe in wait(list(pipes), timeout=_POLL_SECONDS):
            place = pipes[pipe]  # type: ignore[index]  # only connections are waited for
            worker = self._workers[place]
            assert worker is not None  # noqa: S101
            task, message = worker.task, worker.receive()
            if worker.has_died:
                self._workers[place] = None
            if task is not None:  # else it died while it had nothing to do
                yield task, message

    def stop(self) -> None:
        for worker in self._workers:
            if worker is not None:
                worker.stop()

    def close(self) -> None:
        self.stop()
        deadline = time.monotonic() + _END_SECONDS
        for worker in self._workers:
            if worker is not None:
                worker.end(deadline)


class _Worker:
    """A process, as the process that owns the zoo sees it.

    Attributes:
        task: what it is at; None while it waits.
        pipe: to it.
        has_died: whether its end of the pipe is closed.
    """

    def __init__(self, number: int, job: bytes, gpu: str | None) -> None:
        self.task: Task | None = None
        self.has_died = False
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, job, gpu, os.getpid()), name=f"wse-worker-{number}", daemon=True
        )
        with starting_processes():
            self._process.start()
        theirs.close()  # so that the pipe ends when the worker does

    def begin(self, task: Task) -> None:
        """Give it a task."""
        self.task = task
        with suppress(OSError):  # it has died, as ``receive`` will find
            self.pipe.send(tuple(task.left))

    def receive(self) -> Message:
        """The next message."""
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):  # also in the middle of a message
            self.has_died = True
            self.pipe.close()
            self._process.join(_END_SECONDS)
            code = self._process.exitcode
            message = Ended(f"signal {-code}" if code is not None and code < 0 else f"exit code {code}")
        if isinstance(message, Ended):
            self.task = None
        return message

    def stop(self) -> None:
        """Ask it to checkpoint and to end; what it has finished still comes."""
        self._process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until it has ended, and kill it if it has not by then."""
        self.pipe.close()
        self._process.join(max(deadline - time.monotonic(), 0))
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _serve(pipe: Connection, job: bytes, gpu: str | None, parent: int) -> None:
    """A worker's life: a task after the other, until SIGTERM comes or its parent has ended."""
    told = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the process that owns the zoo decides
    signal.signal(signal.SIGTERM, lambda _signal, _frame: told.set())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    def goes_on() -> bool:
        return not told.is_set() and os.getppid() == parent

    with suppress(EOFError, ConnectionError):  # nobody is there to be told
        while goes_on():
            if pipe.poll(_POLL_SECONDS):
                for message in train(job, pipe.recv(), goes_on):
                    pipe.send(message)
                    if isinstance(message, WseError):
                        return
                pipe.send(Ended("it was told to stop"))

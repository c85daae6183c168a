"""Several processes on one machine, each with a pipe of its own: one a GPU, or the cores shared out."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Collection, Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import WseError
from ..train import Run, Work, cores
from ..zoo import MemberResult
from .tasks import ATTEMPTS, Job, Task, cut, lost

_POLL_SECONDS = 0.1
_END_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """A member has ended; what its worker has done so far."""

    result: MemberResult
    work: Work


class Processes:
    """Trains in worker processes; one that dies is replaced, and what it had not handed over is trained again.

    Args:
        processes: how many; None: one a GPU, or one a core.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._processes = processes

    def workers(self, run: Run) -> int:
        """Packs trained at the same time, by all processes together."""
        return self._count(run) * (run.backend.workers or self._threads(run))

    def results(self, run: Run, members: Collection[int]) -> Generator[MemberResult]:
        """Train members, in whatever order the workers end them."""
        count = self._count(run)
        job = pickle.dumps(Job.of(run, self._threads(run)))
        tasks = deque((task, 1) for task in cut(run, members, self.workers(run)))
        team = [_Worker(number, job, run) for number in range(min(count, len(tasks)))]
        try:
            while not run.is_stopping or _open(team):
                for worker in team:
                    if run.is_stopping:
                        worker.stop()
                    elif worker.is_idle and tasks:
                        worker.begin(*tasks.popleft())
                if not tasks and all(worker.is_idle for worker in team):
                    return
                for worker in _ready(team):
                    message = worker.receive()
                    if isinstance(message, _Finished):
                        yield message.result
                    elif isinstance(message, BaseException):
                        raise message
                    elif worker.has_died and not run.is_stopping:
                        tasks.extendleft(worker.unfinished())
                        print(f"wse: a worker ended ({worker.how_it_ended()}); another goes on", file=sys.stderr)
                        team[team.index(worker)] = _Worker(worker.number, job, run)
        finally:
            for worker in team:
                worker.stop()
            for worker in team:
                worker.end()

    def _count(self, run: Run) -> int:
        if self._processes is not None:
            return self._processes
        return len(_gpus()) if run.backend.name == "cuda" else run.options.threads or cores()

    def _threads(self, run: Run) -> int:
        return max(1, (run.options.threads or cores()) // self._count(run))


class _Worker:
    """A process, as the process that owns the zoo sees it.

    Attributes:
        number: its place among the workers.
        task: what it is at, less the members that it has handed over; None while it waits.
        attempt: how many workers have been given it, this one included.
        told: whether it was asked to stop.
        has_died: whether its end of the pipe is closed.
    """

    def __init__(self, number: int, job: bytes, run: Run) -> None:
        self.number = number
        self.task: Task | None = None
        self.attempt = 0
        self.told = self.has_died = False
        self._work = Work()
        run.count(self._work)
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.pipe, theirs = context.Pipe()
        gpus = _gpus() if run.backend.name == "cuda" else []
        gpu = gpus[number % len(gpus)] if gpus else None
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, job, gpu, os.getpid()), name=f"wse-worker-{number}", daemon=True
        )
        self._process.start()
        theirs.close()  # so that the pipe ends when the worker does

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a task."""
        return self.task is None and not self.has_died

    def begin(self, task: Task, attempt: int) -> None:
        """Give it a task."""
        self.task, self.attempt = task, attempt
        with suppress(OSError):  # it has died, as ``receive`` will find
            self.pipe.send(task)

    def receive(self) -> Any:
        """The next message; None if there is nothing to hand on."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):  # also in the middle of a message
            self.has_died = True
            self._process.join(_END_SECONDS)
            return None
        if isinstance(message, _Finished):
            assert self.task is not None  # noqa: S101 - it sends only what it was asked for
            left = tuple(member for member in self.task.members if member != message.result.id)
            self.task = replace(self.task, members=left) if left else None
            self._work.set(message.work)
        return message

    def stop(self) -> None:
        """Ask it to end soon; what it has finished still comes."""
        if not self.told:
            self.told = True
            self._process.terminate()

    def unfinished(self) -> list[tuple[Task, int]]:
        """What another worker has to do now that this one has died, and which attempt that is."""
        if self.task is None:
            return []
        if self.attempt >= ATTEMPTS:
            raise lost(self.task, self.how_it_ended())
        return [(self.task, self.attempt + 1)]

    def how_it_ended(self) -> str:
        """In a few words."""
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Leave nothing of it behind."""
        self.pipe.close()
        self._process.terminate()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _open(team: list[_Worker]) -> list[_Worker]:
    return [worker for worker in team if not worker.has_died]


def _ready(team: list[_Worker]) -> list[_Worker]:
    """Workers with something to say, within a short while: signal handlers want to run."""
    pipes = {worker.pipe: worker for worker in _open(team)}
    return [pipes[pipe] for pipe in wait(list(pipes), timeout=_POLL_SECONDS) if isinstance(pipe, Connection)]


def _gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _serve(pipe: Connection, job: bytes, gpu: str | None, parent: int) -> None:
    """A worker's life: prepare, then train a task after the other until the pipe closes or SIGTERM comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the process that owns the zoo decides
    _die_with(parent)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        run = pickle.loads(job).run()  # noqa: S301 - from the process that started this one
        signal.signal(signal.SIGTERM, lambda _signal, _frame: run.stop())
        while not run.is_stopping:
            if pipe.poll(_POLL_SECONDS):
                for result in run.results(pipe.recv().members):
                    pipe.send(_Finished(result=result, work=run.work()))
    except (EOFError, ConnectionError):
        pass  # nobody is there to be told
    except WseError as error:
        pipe.send(error)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process as soon as its parent has ended; elsewhere the pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)

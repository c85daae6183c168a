"""The processes a contender runs in: made once, prepared before any clock runs, started together each round."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from ..errors import WseError
from .contender import Contender, Job, Outcome
from .lanes import Rate, combine, work_side_by_side
from .workload import Precision, Workload, WorkloadSpec

_TIMEOUT_SECONDS = 600.0
_END_SECONDS = 10.0


class Crew:
    """The processes of one contender; made and used in the main thread.

    Args:
        contender: what they run.
    """

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._barrier = context.Barrier(contender.processes)  # gone with its last owner, who may be this
        self._pipes: list[Connection] = []
        self._processes = []
        for index in range(contender.processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve,
                args=(theirs, self._barrier, contender, index),
                name=f"bench-{contender.name}",
                daemon=True,
            )
            with _interrupts_ignored():
                process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Let the processes end; after an error or an interrupt end them at once, whatever they are at."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if error is not None:
                process.terminate()
        for process in self._processes:
            process.join(_END_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    def check(self, spec: WorkloadSpec, precision: Precision) -> list[Outcome]:
        """Let the first process train the workload's checked members with products of this precision."""
        (outcomes,) = self._ask("check", (spec, precision), processes=1)
        return list(outcomes)

    def prepare(self, spec: WorkloadSpec) -> None:
        """Make the jobs of a workload, and warm up: each job once."""
        self._ask("prepare", spec)

    def measure(self, seconds: float) -> Rate:
        """Let all lanes of all processes work for so long; each ends the job it is at, and does every job once."""
        times = [job for answer in self._ask("measure", seconds) for job in answer]
        return combine(times, self.contender.processes * self.contender.lanes)

    def shares(self) -> dict[str, float]:
        """Let the first process do every job once, and say what share of the time each kernel had."""
        (shares,) = self._ask("shares", None, processes=1)
        return dict(shares)

    def forget(self) -> None:
        """Give back the memory of the workload."""
        self._ask("forget", None)

    def _ask(self, what: str, argument: Any, processes: int | None = None) -> list[Any]:
        pipes = self._pipes[:processes]
        try:
            for pipe in pipes:
                pipe.send((what, argument))
            return [self._answer(pipe, what) for pipe in pipes]
        except (EOFError, ConnectionError):
            raise WseError(f"a process of {self.contender.name} ended while it was to {what}") from None

    def _answer(self, pipe: Connection, what: str) -> Any:
        if not pipe.poll(_TIMEOUT_SECONDS):
            raise WseError(f"{self.contender.name} did not end `{what}` within {_TIMEOUT_SECONDS:.0f} s")
        answer = pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """What starts in here ignores Ctrl-C, from its first moment: the parent ends it, without tracebacks."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, barrier: Any, contender: Contender, index: int) -> None:
    """Run in a process of its own: do what is asked until the other end is gone."""
    import torch

    torch.set_num_threads(contender.torch_threads)
    lanes: list[list[Job]] = []
    with suppress(EOFError, ConnectionError):  # the other end is gone
        while True:
            what, argument = pipe.recv()
            answer: Any = None
            try:
                match what:
                    case "check":
                        spec, precision = argument
                        answer = replace(contender, precision=precision).outcomes(Workload(spec))
                    case "prepare":
                        lanes = _prepare(contender, argument, index)
                    case "measure":
                        barrier.wait(_TIMEOUT_SECONDS)
                        answer = work_side_by_side(lanes, argument)
                    case "shares":
                        answer = contender.shares([job for lane in lanes for job in lane])
                    case "forget":
                        lanes = []
                        gc.collect()  # compiled modules stand in circles
            except WseError as error:
                answer = error
            except Exception as error:  # said in one line by the parent, so the traceback is printed here
                traceback.print_exc()
                answer = WseError(f"{contender.name}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.empty_cache()  # what is free is for other processes
            pipe.send(answer)


def _prepare(contender: Contender, spec: WorkloadSpec, index: int) -> list[list[Job]]:
    workload, total = Workload(spec), contender.processes * contender.lanes
    first = index * contender.lanes
    lanes = [list(contender.jobs(workload, first + lane, total)) for lane in range(contender.lanes)]
    for job in [job for lane in lanes for job in lane]:
        job.start()
        job()
    return lanes

"""Jobs done side by side, a process a core: fits are small, so several threads in one of them gain little."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

from ..errors import WseError
from ..interrupts import starting_processes
from ..machine import cores
from ..zoo import Zoo
from .jobs import Jobs, Outcome
from .options import StudyOptions

# (share of the work done, what is being fitted, a few words on how far that is)
Report = Callable[[float, str, str], None]

# What a deep model gets at least, however little of the budget is left.
LEAST_SECONDS = 5.0
_WORK: list[Jobs] = []


def done(jobs: Jobs, began: float, report: Report) -> Generator[tuple[int, Outcome]]:
    """Do all jobs.

    Args:
        jobs: to be done.
        began: when the study began, by ``time.perf_counter``; the budget counts from there.
        report: called as the work goes on.

    Yields:
        The index of a job, and what came of it, as jobs end.

    Raises:
        UsageError: a model that was asked for by name cannot read these networks.
        WseError: a shard is missing or damaged, or a process died.
    """
    budget = _Budget(jobs, began)
    workers = min(jobs.options.processes or cores(), len(jobs.all))
    if jobs.options.device != "cpu" or workers == 1:
        yield from _alone(jobs, budget, report)
    else:
        yield from _together(jobs, budget, workers, report)


class _Budget:
    """Shares what is left of the time out evenly over the deep models that are still to be fitted."""

    def __init__(self, jobs: Jobs, began: float) -> None:
        self._seconds, self._began = jobs.options.budget_seconds, began
        self._deep = [job.spec.deep for job in jobs.all]

    def seconds_for(self, index: int, workers: int) -> float | None:
        """What the job may take, if it is begun now."""
        if self._seconds is None or not self._deep[index]:
            return None
        left = self._seconds - (time.perf_counter() - self._began)
        turns = -(-sum(self._deep[index:]) // workers)
        return max(LEAST_SECONDS, left / turns)


def _alone(jobs: Jobs, budget: _Budget, report: Report) -> Generator[tuple[int, Outcome]]:
    total = len(jobs.all)
    for index, job in enumerate(jobs.all):

        def progress(share: float, words: str, index: int = index, what: str = str(job)) -> None:
            report((index + share) / total, what, words)

        progress(0.0, "")
        yield index, jobs.do(index, budget.seconds_for(index, 1), progress)


def _together(jobs: Jobs, budget: _Budget, workers: int, report: Report) -> Generator[tuple[int, Outcome]]:
    total, ended = len(jobs.all), 0
    waiting: dict[Future[Outcome], int] = {}
    indices = iter(range(total))
    # Not forked: a copy of a process with compiled threads in it may hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _open, (jobs.options, jobs.zoo))
    try:
        while True:
            # No more than can be begun at once, so that the time for each is known when it begins.
            while len(waiting) < workers and (index := next(indices, None)) is not None:
                with starting_processes():
                    waiting[pool.submit(_do, index, budget.seconds_for(index, workers))] = index
                report(ended / total, str(jobs.all[index]), "")
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                ended += 1
                yield waiting.pop(future), future.result()
    except BrokenProcessPool as error:
        raise WseError("a process of the study died, out of memory perhaps: use fewer --processes") from error
    finally:
        for process in list((pool._processes or {}).values()):
            if waiting:  # an error or an interrupt: nobody waits for what is under way
                process.kill()
        pool.shutdown(cancel_futures=True)


def _open(options: StudyOptions, zoo: Zoo) -> None:
    """What a process does first; Ctrl-C is its parent's affair."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _WORK.append(Jobs(options, zoo))


def _leave_with_parent() -> None:
    """End when the parent does, however that is: nobody else would stop the job."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(index: int, seconds: float | None) -> Outcome:
    return _WORK[0].do(index, seconds)

"""Gives tasks to workers that may die, until every member has come back."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ..errors import WseError
from ..train import Memo, Report, Run
from .tasks import Task

TRIES = 3  # of a task of which nothing comes back
_STOP_SECONDS = 120.0  # for workers to checkpoint when the run is to stop


@dataclass(frozen=True)
class Ended:
    """A worker has nothing more to say of a task; why, if members are missing."""

    reason: str


Message = Report | WseError | Ended


class Team(Protocol):
    """Workers of one kind."""

    @property
    def room(self) -> int:
        """How many tasks it would take now."""

    @property
    def is_busy(self) -> bool:
        """Whether a task has not ended."""

    def begin(self, tasks: Sequence[Task]) -> None:
        """Have tasks trained, as far as they are left."""

    def messages(self) -> Iterable[tuple[Task, Message]]:
        """What has come; waits a short while if nothing has. The last of each task is ``Ended``."""

    def stop(self) -> None:
        """Ask all workers to checkpoint and to end their tasks."""

    def close(self) -> None:
        """Leave nothing of it behind."""


def dispatch(run: Run, tasks: Iterable[Task], team: Team) -> Generator[Report]:
    """Have tasks trained by a team; what a worker leaves undone is given to another.

    Raises:
        WseError: a worker says so, or workers have ended too often over the same task.
    """
    waiting, deadline = deque(tasks), math.inf
    try:
        while team.is_busy or (waiting and not run.is_stopping):
            if not run.is_stopping:
                begun = [waiting.popleft() for _ in range(min(team.room, len(waiting)))]
                if begun:
                    team.begin(begun)
            elif deadline == math.inf:
                deadline = time.monotonic() + _STOP_SECONDS
                team.stop()
            elif time.monotonic() > deadline:
                return
            for task, message in team.messages():
                if isinstance(message, WseError):
                    raise message
                if isinstance(message, Report):
                    yield _taken(task, message)
                elif task.left and not run.is_stopping:
                    yield _lost(task, message.reason)
                    waiting.appendleft(task)
    finally:
        team.close()


def _taken(task: Task, report: Report) -> Report:
    """A report whose member is taken off its task; one that came before is trained twice, and dropped."""
    if report.result is None:
        return report
    if report.result.id not in task.left:
        return replace(report, result=None)
    task.left.remove(report.result.id)
    task.losses = 0
    return report


def _lost(task: Task, reason: str) -> Report:
    """Take note of a worker that ended too early."""
    task.losses += 1
    ids = ", ".join(map(str, sorted(task.left)[:5])) + (", ..." if len(task.left) > 5 else "")
    if task.losses >= TRIES:
        raise WseError(
            f"workers ended {task.losses} times over models {ids} ({reason}): if memory is short, train fewer "
            "at a time; what is stored is safe, and --resume goes on from it"
        )
    print(f"wse: a worker ended ({reason}); models {ids} are given to another", file=sys.stderr, flush=True)
    log = Memo()
    log.write("lost", members=sorted(task.left), reason=reason)
    return Report(events=log.take())

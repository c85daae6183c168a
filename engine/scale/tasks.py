"""What is sent to a worker, and what it does with it: the same in a process, on a Ray node and in a Slurm job."""

from __future__ import annotations

import pickle
import platform
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ..errors import WseError
from ..train import DECISIVE, Memo, Options, Report, Run, Threads, Work, backend_for
from ..zoo import Manifest


@dataclass(kw_only=True)
class Task:
    """Members for one worker.

    Attributes:
        left: ids of those that have not come back.
        losses: how many workers have ended over them since one of them last came back.
    """

    left: list[int]
    losses: int = 0


def cut(run: Run, members: Collection[int], tasks: int) -> list[Task]:
    """Share members out over about so many tasks, the dearest architectures first.

    A task holds packs of several architectures where they are small, and never fewer members of a large one than
    train side by side.
    """
    size = -(-len(members) // max(tasks, 1))  # a cluster may have lost its last node
    made: list[Task] = []
    for pack in run.plan_of(members).packs:
        ids = [member.id for member in pack.members]
        most = max(size, run.wanted_rows(pack))
        for first in range(0, len(ids), most):
            piece = ids[first : first + most]
            if made and len(made[-1].left) + len(piece) <= size:
                made[-1].left += piece
            else:
                made.append(Task(left=piece))
    return made


def packs_of_worker(run: Run, cores: int = 1) -> int:
    """How many packs a worker with so many cores trains at the same time."""
    return run.options.threads or run.backend.workers or cores


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all tasks of a run share.

    Attributes:
        options: of the run, with the threads of one worker.
        manifest: of the run; what decides the bits of members must be the same here.
        sharing: packs that train at the same time on the worker's machine, and share its memory.
        seconds: how often a worker says what it has done when no member ends.
    """

    options: Options
    manifest: Manifest
    sharing: int
    seconds: float

    @classmethod
    def of(cls, run: Run, *, threads: int, sharing: int, seconds: float) -> Job:
        """The job of a run whose workers have so many threads each."""
        options, here = run.options, Path.cwd()
        return cls(
            options=replace(
                options,
                folder=here / options.folder,
                data_dir=options.data_dir and here / options.data_dir.expanduser(),
                device=run.backend.name,
                precision=run.backend.precision,
                threads=threads,
                resume=False,
            ),
            manifest=run.manifest,
            sharing=sharing,
            seconds=seconds,
        )

    def run(self) -> Run:
        """The same run, prepared here to train.

        Raises:
            WseError: this machine does not see the zoo, or would train other members.
        """
        options, here = self.options, platform.node()
        if not options.folder.is_dir():
            raise WseError(
                f"a worker on {here} does not see {options.folder}: take an --out that all machines share"
            )
        silent = backend_for(options.device, lambda line: None, precision=options.precision)
        with warnings.catch_warnings(action="ignore"):  # the process that owns the zoo has told them
            run = Run(options, silent)
        for name in DECISIVE:
            wanted, found = getattr(self.manifest, name), getattr(run.manifest, name)
            if wanted != found:
                raise WseError(
                    f"a worker on {here} has other {name.replace('_', ' ')} ({found}, not {wanted}): "
                    "have the same packages and image sets on all machines"
                )
        run.workers = self.sharing
        return run


def train(job: bytes, members: Collection[int], goes_on: Callable[[], bool]) -> Iterator[Report | WseError]:
    """Train members in this process.

    Args:
        job: a pickled ``Job``, prepared once for all its tasks that come here.
        members: their ids.
        goes_on: asked often; once it says no, members in training are checkpointed and the reports end.

    Yields:
        Reports; in their place, at the end, an error that the user is to see.
    """
    try:
        yield from _reports(job, members, goes_on)
    except WseError as error:
        yield error
    except Exception as error:
        traceback.print_exc()
        yield WseError(f"a worker on {platform.node()} failed: {type(error).__name__}: {error}")


def _reports(job: bytes, members: Collection[int], goes_on: Callable[[], bool]) -> Iterator[Report]:
    if not goes_on():
        return
    (run, seconds), memo = _prepared(job), Memo()
    work, told = Work(), time.monotonic()
    for report in Threads().reports(run, members, run.checkpoints(memo)):
        if not run.is_stopping and not goes_on():
            run.stop()
        work += report.work
        if report.result is not None or time.monotonic() >= told + seconds:
            preparing = run.backend.preparing
            yield Report(result=report.result, work=work, preparing=preparing, events=memo.take())
            work, told = Work(), time.monotonic()
    yield Report(work=work, events=memo.take())
    if run.is_stopping:
        _prepared.cache_clear()


@lru_cache(maxsize=1)
def _prepared(job: bytes) -> tuple[Run, float]:
    received: Job = pickle.loads(job)  # noqa: S301 - from the process that owns the zoo
    return received.run(), received.seconds

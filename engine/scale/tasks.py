"""What is sent to another process: members of one shard, and what they train with."""

from __future__ import annotations

import pickle
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version

from ..errors import WseError
from ..train import Options, Run, Work
from ..zoo import MemberResult

ATTEMPTS = 3  # of a task whose worker dies

# So many for each worker, where members train one by one: what is left at the end is small.
_TASKS_PER_WORKER = 8


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all tasks of a run share.

    Attributes:
        options: of the run, with the threads of one worker.
        image_sets: name -> sha256, as the process that owns the zoo has them.
        wse_version: that it runs.
    """

    options: Options
    image_sets: dict[str, str]
    wse_version: str

    @classmethod
    def of(cls, run: Run, threads: int | None) -> Job:
        """The job of a run whose workers have so many threads each."""
        return cls(
            options=replace(
                run.options, device=run.backend.name, precision=run.backend.precision, threads=threads
            ),
            image_sets={name: images.sha256 for name, images in run.image_sets.items()},
            wse_version=version("wse"),
        )

    def run(self) -> Run:
        """The same run, prepared here to train.

        Raises:
            WseError: this machine has other software or image sets, so that it would train other members.
        """
        if version("wse") != self.wse_version:
            raise WseError(
                f"a worker has wse {version('wse')}, the run {self.wse_version}: install the same on all machines"
            )
        run = Run(self.options)
        for name, images in run.image_sets.items():
            if images.sha256 != self.image_sets[name]:
                raise WseError(
                    f"a worker has another image set {name} than the run: share one folder by --data-dir"
                )
        return run


@dataclass(frozen=True, kw_only=True)
class Task:
    """Members to train together: a shard's, or a part of them; they are of one architecture."""

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task."""

    results: tuple[MemberResult, ...]
    work: Work


def cut(run: Run, members: Collection[int], workers: int) -> list[Task]:
    """Share members out over tasks: a shard each, or parts of shards where members train one by one anyway.

    Args:
        run: whose shards.
        members: ids.
        workers: how many train at the same time.

    Returns:
        Tasks in the order of the run's plan, whose dearest architectures come first.
    """
    wanted = set(members)
    most = max(1, -(-len(wanted) // (_TASKS_PER_WORKER * workers))) if run.backend.members_per_pack else None
    order = {part.architecture.name: number for number, part in enumerate(run.plan.architectures)}
    tasks = []
    for shard in sorted(run.shards, key=lambda shard: order.get(shard.architecture, -1)):
        missing = [member for member in shard.members if member in wanted]
        size = most or len(missing)
        tasks += [
            Task(name=shard.file, members=tuple(missing[first : first + size]))
            for first in range(0, len(missing), size or 1)
        ]
    return tasks


def train_task(job: bytes, task: Task) -> Outcome:
    """Train a task in this process.

    Args:
        job: a pickled ``Job``; prepared once for all tasks of it that come here.
        task: what to train.
    """
    run = _prepared(job)
    before = run.work()
    results = tuple(run.results(task.members))
    return Outcome(results=results, work=run.work() - before)


@lru_cache(maxsize=1)
def _prepared(job: bytes) -> Run:
    prepared: Job = pickle.loads(job)  # noqa: S301 - from the process that owns the zoo
    return prepared.run()


def lost(task: Task, reason: str) -> WseError:
    """The error of a task that was tried often enough."""
    ids = ", ".join(map(str, task.members[:5])) + (", ..." if len(task.members) > 5 else "")
    return WseError(
        f"workers ended {ATTEMPTS} times while they trained members {ids} of {task.name} ({reason}): "
        "if memory is short, take fewer at a time; what is stored is safe, go on by --resume"
    )

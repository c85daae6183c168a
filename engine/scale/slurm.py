"""Slurm through submitit: a task of members is a job of an array, submitted again when it fails."""

from __future__ import annotations

import math
import pickle
import tempfile
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError, WseError
from ..files import atomic_write
from ..train import Checkpoints, Report, Run
from .dispatch import Ended, Message, dispatch
from .pulse import Listening, Pulse
from .tasks import Job, Task, cut, packs_of_worker, train

_TASKS_PER_JOB = 2  # of those at a time: each waits in a queue, and starts anew
_ARRAY = 1000  # jobs that Slurm takes as one array, as it is usually set up
_POLL_SECONDS = 0.5
_REPORT_SECONDS = 10.0
_LATE_SECONDS = 60.0  # that the file system of a cluster may take to show a file


class SlurmJobs:
    """Trains in jobs of Slurm arrays. Results come back as files in the zoo's folder, which all nodes must see.

    Args:
        parameters: options of ``sbatch`` by their long names (``partition``, ``time``, ``mem``, ``account``, ...);
            further ``at_a_time``, how many jobs may run at the same time, and ``cluster``, slurm or local.

    Raises:
        UsageError: submitit is not installed, or a number is not one.
    """

    def __init__(self, parameters: Mapping[str, str]) -> None:
        if find_spec("submitit") is None:
            raise UsageError(
                "--executor slurm needs submitit: `pip install submitit`, or use --executor processes"
            )
        self._parameters = dict(parameters)
        self._cluster = self._parameters.pop("cluster", "slurm")
        at_a_time = self._parameters.pop("at_a_time", "32")
        if not at_a_time.isdigit() or int(at_a_time) < 1:
            raise UsageError(f"--slurm at_a_time={at_a_time} must be a number of jobs, at least 1")
        self._at_a_time = int(at_a_time)

    def workers(self, run: Run) -> int:
        """Packs trained at the same time when Slurm gives all that is asked for."""
        with tempfile.TemporaryDirectory() as folder:  # what Slurm would not take is said before a zoo is begun
            self._open(Path(folder), run)
        return self._at_a_time * packs_of_worker(run)

    def reports(self, run: Run, members: Collection[int], checkpoints: Checkpoints) -> Generator[Report]:
        """Train members in jobs."""
        folder = checkpoints.folder.absolute() / "jobs"
        packs = packs_of_worker(run)
        job = Job.of(run, threads=packs, sharing=packs, seconds=_REPORT_SECONDS)
        here = self._cluster == "local"  # without a queue, and with a file system of this machine
        team = _Team(
            self._open(folder, run),
            pickle.dumps(job),
            Pulse(checkpoints.folder.absolute()),
            folder,
            room=self._at_a_time if here else _ARRAY,
            late=0.0 if here else _LATE_SECONDS,
        )
        return dispatch(run, cut(run, members, _TASKS_PER_JOB * self._at_a_time), team)

    def _open(self, folder: Path, run: Run) -> Any:
        import submitit

        given = {
            f"slurm_{name}": int(value) if value.isdigit() else value for name, value in self._parameters.items()
        }
        try:
            executor = submitit.AutoExecutor(folder=folder / "log", cluster=self._cluster)
            executor.update_parameters(
                name="wse",
                cpus_per_task=_threads(run),
                gpus_per_node=1 if run.backend.name == "cuda" else 0,
                slurm_array_parallelism=self._at_a_time,
                **given,
            )
        except (NameError, ValueError, TypeError, RuntimeError) as error:
            raise UsageError(f"--slurm: {' '.join(str(error).split())}") from error
        return executor


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a job calls: trains, and leaves each message as a file; returns how many there are."""

    job: bytes
    members: tuple[int, ...]
    pulse: Path
    inbox: Path

    def __call__(self) -> int:
        sent = 0
        for message in train(self.job, self.members, Listening(self.pulse)):
            with atomic_write(self.inbox / f"{time.time_ns():020d}.pickle") as file:
                pickle.dump(message, file)
            sent += 1
        return sent


@dataclass(kw_only=True)
class _Running:
    """A job that has been submitted.

    Attributes:
        task: what it is to train.
        submitted: what submitit knows of it.
        inbox: where its messages appear.
        late: seconds that a file may take to appear here.
        seen: messages read.
        over_since: when it was found to be over.
    """

    task: Task
    submitted: Any
    inbox: Path
    late: float
    seen: int = 0
    over_since: float | None = None

    def messages(self) -> Iterator[Message]:
        """What has come since the last time; ``Ended`` when nothing more will."""
        is_over = self.submitted.done()  # asked first, so that nothing can come after the look
        for path in sorted(self.inbox.glob("[!.]*.pickle")):
            message: Message = pickle.loads(path.read_bytes())  # noqa: S301 - from this run's own job
            path.unlink()
            self.seen += 1
            yield message
        if is_over:
            self.over_since = self.over_since or time.monotonic()
            sent, reason = self._outcome()
            if self.seen >= sent or time.monotonic() >= self.over_since + self.late:
                yield Ended(reason)

    def _outcome(self) -> tuple[float, str]:
        """How many messages a job that is over has left, and how it ended."""
        import submitit

        if not self.submitted.paths.result_pickle.exists():
            return math.inf, f"job {self.submitted.job_id} left no result"
        try:
            return self.submitted.result(), "it was told to stop"
        except submitit.core.utils.FailedJobError as error:
            return 0, f"job {self.submitted.job_id}: {_last_word(error)}"


class _Team:
    """Jobs in a queue; each has a folder for its messages."""

    def __init__(self, executor: Any, job: bytes, pulse: Pulse, folder: Path, *, room: int, late: float) -> None:
        self._executor, self._job, self._pulse = executor, job, pulse
        self._folder, self._room, self._late = folder, room, late
        self._submitted = 0
        self._running: list[_Running] = []

    @property
    def room(self) -> int:
        return self._room - len(self._running)

    @property
    def is_busy(self) -> bool:
        return bool(self._running)

    def begin(self, tasks: Sequence[Task]) -> None:
        calls = []
        for task in tasks:
            inbox = self._folder / f"{self._submitted:06d}"
            inbox.mkdir(parents=True)
            self._submitted += 1
            calls.append(_Call(job=self._job, members=tuple(task.left), pulse=self._pulse.path, inbox=inbox))
        try:
            submitted = self._executor.submit_array(calls)
        except (RuntimeError, OSError) as error:  # submitit's own are RuntimeErrors
            raise WseError(f"Slurm took no jobs ({' '.join(str(error).split())}): see --slurm") from error
        self._running += [
            _Running(task=task, submitted=each, inbox=call.inbox, late=self._late)
            for task, each, call in zip(tasks, submitted, calls, strict=True)
        ]

    def messages(self) -> Iterator[tuple[Task, Message]]:
        self._pulse.beat()
        quiet = True
        for job in list(self._running):
            for message in job.messages():
                quiet = False
                if isinstance(message, Ended):
                    self._running.remove(job)
                yield job.task, message
        if quiet:
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        self._pulse.end()
        for job in self._running:
            if job.submitted.state == "PENDING":
                job.submitted.cancel()

    def close(self) -> None:
        self._pulse.end()
        for job in self._running:
            job.submitted.cancel(check=False)


def _last_word(error: Exception) -> str:
    """The last line of the trace in submitit's errors, which stands between two lines of dashes."""
    return str(error).split("-" * 22)[1].strip().splitlines()[-1]


def _threads(run: Run) -> int:
    return run.options.threads or 1

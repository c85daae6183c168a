"""A Slurm array through submitit: a task of members is a task of the array, submitted again when it fails."""

from __future__ import annotations

import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError, WseError
from ..train import Run
from ..zoo import MemberResult
from .tasks import ATTEMPTS, Job, Outcome, Task, cut, lost, train_task

_POLL_SECONDS = 1.0
_AT_A_TIME = 32


@dataclass(frozen=True)
class _ArrayTask:
    """What a task of the array calls; Slurm may put it back into its queue, and it begins anew there."""

    job: bytes
    task: Task

    def __call__(self) -> Outcome:
        return train_task(self.job, self.task)

    def checkpoint(self) -> Any:
        """What Slurm is to run in place of this when it takes the node away."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


class SlurmArray:
    """Trains in tasks of a Slurm array. Results come back in a folder beside the zoo, which all nodes must see.

    Args:
        parameters: of submitit's ``AutoExecutor``, such as ``slurm_partition`` and ``timeout_min``; further
            ``cluster`` (slurm or local) and ``at_a_time``, how many tasks may run at the same time.

    Raises:
        UsageError: submitit is not installed.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        if find_spec("submitit") is None:
            raise UsageError(
                "--executor slurm needs submitit: `pip install submitit`, or use --executor processes"
            )
        self._parameters = dict(parameters)
        self._cluster = self._parameters.pop("cluster", "slurm")
        self._at_a_time = int(self._parameters.pop("at_a_time", _AT_A_TIME))

    def workers(self, run: Run) -> int:
        """Packs trained at the same time when Slurm gives all that is asked for."""
        return self._at_a_time * (run.backend.workers or run.options.threads or 1)

    def results(self, run: Run, members: Collection[int]) -> Generator[MemberResult]:
        """Train members, in whatever order the tasks end."""
        job = pickle.dumps(Job.of(run, run.options.threads or 1))
        folder = run.options.folder.absolute()
        jobs = Path(tempfile.mkdtemp(prefix=f".{folder.name}-jobs-", dir=folder.parent))
        queue = [(task, 1) for task in cut(run, members, self.workers(run))]
        running: dict[Any, tuple[Task, int]] = {}
        try:
            executor = self._open(jobs, run)
            while (queue or running) and not run.is_stopping:
                if self._cluster == "local":  # it has no queue of its own
                    now, queue = queue[: self._at_a_time - len(running)], queue[self._at_a_time - len(running) :]
                else:
                    now, queue = queue, []
                running.update(_submit(executor, job, now))
                for submitted in [each for each in running if each.done()]:
                    task, attempt = running.pop(submitted)
                    outcome = _outcome(submitted)
                    if isinstance(outcome, Outcome):
                        run.count(outcome.work)
                        yield from outcome.results
                    elif attempt >= ATTEMPTS:
                        raise lost(task, outcome)
                    else:
                        print(f"wse: a job ended ({outcome}); it is submitted again", file=sys.stderr)
                        queue.append((task, attempt + 1))
                time.sleep(_POLL_SECONDS)
        finally:
            for submitted in running:
                submitted.cancel(check=False)
            shutil.rmtree(jobs, ignore_errors=True)

    def _open(self, jobs: Path, run: Run) -> Any:
        import submitit

        try:
            executor = submitit.AutoExecutor(folder=jobs, cluster=self._cluster)
            executor.update_parameters(
                **{
                    "name": "wse",
                    "cpus_per_task": run.options.threads or 1,
                    "gpus_per_node": 1 if run.backend.name == "cuda" else 0,
                    **({"slurm_array_parallelism": self._at_a_time} if self._cluster == "slurm" else {}),
                    **self._parameters,
                }
            )
        except (NameError, ValueError, TypeError, RuntimeError) as error:
            raise UsageError(f"--slurm: {' '.join(str(error).split())}") from error
        return executor


def _submit(executor: Any, job: bytes, tasks: Sequence[tuple[Task, int]]) -> dict[Any, tuple[Task, int]]:
    import submitit

    if not tasks:
        return {}
    try:
        submitted = executor.submit_array([_ArrayTask(job, task) for task, _ in tasks])
    except (submitit.core.utils.FailedSubmissionError, OSError) as error:
        raise WseError(f"Slurm took no jobs: {' '.join(str(error).split())}; see --slurm") from error
    return dict(zip(submitted, tasks, strict=True))


def _outcome(submitted: Any) -> Outcome | str:
    """What a job that has ended brought, or why it brought nothing; errors of its own are raised."""
    import submitit

    try:
        kind, value = submitted._get_outcome_and_result()
    except submitit.core.utils.UncompletedJobError:
        return str(submitted.state)
    if kind == "error":
        raise WseError(f"a job failed: {str(value).strip().splitlines()[-1]}")
    outcome: Outcome = value
    return outcome

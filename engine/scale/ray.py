"""A Ray cluster: a task of members is a Ray task, tried again on another node when its own dies."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Generator
from importlib.util import find_spec
from typing import Any

from ..errors import UsageError, WseError
from ..train import Run
from ..zoo import MemberResult
from .tasks import ATTEMPTS, Job, Task, cut, lost, train_task

_POLL_SECONDS = 0.5


class RayCluster:
    """Trains on the nodes of a Ray cluster. Results come back through Ray: nodes need no folder in common.

    Args:
        address: of the cluster, as ``ray.init`` takes it; None: one of this machine alone, for this run.

    Raises:
        UsageError: Ray is not installed.
    """

    def __init__(self, address: str | None = None) -> None:
        if find_spec("ray") is None:
            raise UsageError("--executor ray needs Ray: `pip install ray`, or use --executor processes")
        self._address = address

    def workers(self, run: Run) -> int:
        """Packs the cluster can train at the same time, as it is now."""
        self._connect()
        import ray

        per_task = run.backend.workers or self._threads(run)
        resource = "GPU" if run.backend.name == "cuda" else "CPU"
        tasks = ray.cluster_resources().get(resource, 0) // (1 if resource == "GPU" else self._threads(run))
        if tasks < 1:
            raise UsageError(f"the Ray cluster has too few {resource}s for one task: add a node, or ask for less")
        return int(tasks) * per_task

    def results(self, run: Run, members: Collection[int]) -> Generator[MemberResult]:
        """Train members, in whatever order the nodes end their tasks."""
        self._connect()
        import ray

        job = ray.put(pickle.dumps(Job.of(run, self._threads(run))))
        remote = ray.remote(train_task).options(
            num_cpus=self._threads(run),
            num_gpus=1 if run.backend.name == "cuda" else 0,
            max_retries=ATTEMPTS - 1,
        )
        waiting: dict[Any, Task] = {
            remote.remote(job, task): task for task in cut(run, members, self.workers(run))
        }
        try:
            while waiting and not run.is_stopping:
                ready, _ = ray.wait(list(waiting), timeout=_POLL_SECONDS)
                for reference in ready:
                    task = waiting.pop(reference)
                    outcome = _outcome(reference, task)
                    run.count(outcome.work)
                    yield from outcome.results
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            ray.shutdown()

    def _threads(self, run: Run) -> int:
        return run.options.threads or 1

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        try:
            ray.init(address=self._address or "local", log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise WseError(
                f"no Ray cluster answers at {self._address}: start one by `ray start --head`, "
                f"or name another by --ray-address ({str(error).splitlines()[0]})"
            ) from error


def _outcome(reference: Any, task: Task) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise lost(task, type(error).__name__) from error

"""A Ray cluster: a task of members is a Ray task, given to another node when its own dies."""

from __future__ import annotations

import pickle
import signal
import socket
import threading
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError, WseError
from ..train import Checkpoints, Report, Run
from .dispatch import Ended, Message, dispatch
from .pulse import Listening, Pulse
from .tasks import Job, Task, cut, packs_of_worker, train

_TASKS_PER_WORKER = 8
_POLL_SECONDS = 0.5
_REPORT_SECONDS = 5.0
_KNOCK_SECONDS = 10.0


class RayCluster:
    """Trains on the nodes of a Ray cluster.

    Results come back through Ray, one by one as members end; checkpoints go to the zoo's folder, which all nodes
    must see.

    Args:
        address: of the cluster, as ``ray.init`` takes it; None: what Ray finds, or one of this machine alone.

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
        slots = _slots(run)
        if slots < 1:
            raise UsageError("the Ray cluster has no node that a task fits on: add one, or take fewer --threads")
        return slots * packs_of_worker(run)

    def reports(self, run: Run, members: Collection[int], checkpoints: Checkpoints) -> Generator[Report]:
        """Train members on the cluster."""
        self._connect()
        import ray

        nodes = max(sum(node["Alive"] for node in ray.nodes()), 1)
        job = Job.of(run, threads=packs_of_worker(run), sharing=-(-run.workers // nodes), seconds=_REPORT_SECONDS)
        team = _Team(run, pickle.dumps(job), Pulse(checkpoints.folder))
        return dispatch(run, cut(run, members, _TASKS_PER_WORKER * _slots(run)), team)

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        before = signal.getsignal(signal.SIGTERM)
        try:
            _knock(self._address)  # Ray itself would try for very long
            ray.init(address=self._address, log_to_driver=False, logging_level="warning")
        except (OSError, ValueError, RuntimeError) as error:
            raise WseError(
                f"no Ray cluster answers at {self._address or 'this machine'} ({str(error).splitlines()[0]}): "
                "start one by `ray start --head`, or name another by --address"
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has put one in its place that leaves at once


class _Team:
    """Ray tasks, each a generator of messages; Ray itself does not try them again."""

    def __init__(self, run: Run, job: bytes, pulse: Pulse) -> None:
        import ray

        self._run, self._pulse = run, pulse
        self._job = ray.put(job)
        self._begin = ray.remote(_train).options(
            num_cpus=_threads(run),
            num_gpus=1 if run.backend.name == "cuda" else 0,
            num_returns="streaming",
            max_retries=0,
        )
        self._running: dict[Any, Task] = {}

    @property
    def room(self) -> int:
        return 2 * _slots(self._run) - len(
            self._running
        )  # more than there is room for, so that a cluster may grow

    @property
    def is_busy(self) -> bool:
        return bool(self._running)

    def begin(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            messages = self._begin.remote(self._job, tuple(task.left), self._pulse.path.absolute())
            self._running[messages] = task

    def messages(self) -> Iterator[tuple[Task, Message]]:
        import ray

        self._pulse.beat()
        if not self._running:  # no node has room
            time.sleep(_POLL_SECONDS)
            return
        ready, _ = ray.wait(list(self._running), timeout=_POLL_SECONDS)
        for messages in ready:
            task, message = self._running[messages], _next(messages)
            if isinstance(message, Ended):
                del self._running[messages]
            yield task, message

    def stop(self) -> None:
        self._pulse.end()

    def close(self) -> None:
        import ray

        self._pulse.end()
        for messages in self._running:
            ray.cancel(messages, force=True)
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise an ``OSError`` if an address of the form host:port does not answer."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _train(job: bytes, members: Collection[int], pulse: Path) -> Iterator[Report | WseError]:
    yield from train(job, members, Listening(pulse))  # Ray wants to see a generator


def _next(messages: Any) -> Message:
    import ray

    try:
        message: Message = ray.get(next(messages))
    except StopIteration:
        return Ended("it was told to stop")
    except ray.exceptions.RayError as error:  # its node or its process has died, or cannot read what is sent
        return Ended(f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}")
    return message


def _threads(run: Run) -> int:
    return run.options.threads or 1


def _slots(run: Run) -> int:
    """Tasks that the cluster can run at the same time."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if run.backend.name == "cuda":
        return sum(int(min(each.get("GPU", 0), each.get("CPU", 0) // _threads(run))) for each in resources)
    return sum(int(each.get("CPU", 0) // _threads(run)) for each in resources)

"""Which executor a command line asks for."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UsageError
from ..train import Executor, Threads
from .processes import Processes
from .ray import RayCluster
from .slurm import SlurmJobs

EXECUTORS = ("threads", "processes", "ray", "slurm")


def executor_for(
    name: str, *, processes: int | None = None, address: str | None = None, slurm: Sequence[str] = ()
) -> Executor:
    """The executor that a name stands for.

    Args:
        name: one of ``EXECUTORS``.
        processes: of ``processes``.
        address: of ``ray``.
        slurm: of ``slurm``, ``key=value`` each.

    Raises:
        UsageError: there is no such executor, it is not installed, or an option is not one of its own.
    """
    if name not in EXECUTORS:
        raise UsageError(f"`executor` (={name!r}) must be {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}")
    for owner, given in (("processes", processes is not None), ("ray", address is not None), ("slurm", slurm)):
        if given and name != owner:
            flag = {"processes": "--processes", "ray": "--address", "slurm": "--slurm"}[owner]
            raise UsageError(f"{flag} goes with --executor {owner}, not with {name}")
    if name == "processes":
        return Processes(processes)
    if name == "ray":
        return RayCluster(address)
    if name == "slurm":
        return SlurmJobs(dict(_parameter(text) for text in slurm))
    return Threads()


def _parameter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UsageError(f"--slurm {text!r} must be key=value, for instance --slurm partition=gpu")
    return key, value

"""Which executor a command line asks for."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UsageError
from ..train import Executor
from .processes import Processes
from .ray import RayCluster
from .slurm import SlurmArray

EXECUTORS = ("local", "processes", "ray", "slurm")


def executor_for(
    name: str,
    *,
    processes: int | None = None,
    ray_address: str | None = None,
    slurm: Sequence[str] = (),
) -> Executor | None:
    """The executor a name stands for; None for ``local``, the threads of this process.

    Args:
        name: one of ``EXECUTORS``.
        processes: of ``processes``.
        ray_address: of ``ray``.
        slurm: of ``slurm``, ``key=value`` each.

    Raises:
        UsageError: there is no such executor, it is not installed, or an option is not one of its own.
    """
    if name not in EXECUTORS:
        raise UsageError(f"`executor` (={name!r}) must be {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}")
    if processes is not None and processes < 1:
        raise UsageError(f"`processes` (={processes}) must be at least 1")
    given = {"processes": processes is not None, "ray": ray_address is not None, "slurm": bool(slurm)}
    for owner, option in (("processes", "--processes"), ("ray", "--ray-address"), ("slurm", "--slurm")):
        if given[owner] and name != owner:
            raise UsageError(f"{option} goes with --executor {owner}, not with {name}")
    if name == "processes":
        return Processes(processes)
    if name == "ray":
        return RayCluster(ray_address)
    if name == "slurm":
        return SlurmArray(dict(_parameter(text) for text in slurm))
    return None


def _parameter(text: str) -> tuple[str, int | str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UsageError(f"--slurm {text!r} must be key=value, for instance --slurm slurm_partition=gpu")
    return key, int(value) if value.isdigit() else value

"""Where members train when one process is too small: several processes, a Ray cluster, Slurm jobs."""

from .options import EXECUTORS, executor_for
from .processes import Processes
from .ray import RayCluster
from .slurm import SlurmJobs

__all__ = ["EXECUTORS", "Processes", "RayCluster", "SlurmJobs", "executor_for"]

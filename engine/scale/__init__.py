"""Where members train when one process is too small: several processes, a Ray cluster, a Slurm array."""

from .options import EXECUTORS, executor_for
from .processes import Processes
from .ray import RayCluster
from .slurm import SlurmArray
from .tasks import Task, cut, train_task

__all__ = ["EXECUTORS", "Processes", "RayCluster", "SlurmArray", "Task", "cut", "executor_for", "train_task"]

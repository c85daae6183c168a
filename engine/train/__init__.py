"""Training: the plan, packs, schedules, early stopping, and the backends behind one seam."""

from .backend import Backend, Context, EpochEnd, Evaluation, EvaluationRequest, Interrupted, Pack
from .estimate import Estimate, estimate
from .executor import Executor
from .options import Options, Progress, backend_for, resolve_options
from .plan import ArchitecturePlan, PackPlan, Plan, make_plan
from .reference import ReferenceBackend
from .run import Run, cores
from .split import PARTS, Part, Split
from .trainer import Trainer, Work

__all__ = [
    "PARTS",
    "ArchitecturePlan",
    "Backend",
    "Context",
    "EpochEnd",
    "Estimate",
    "Evaluation",
    "EvaluationRequest",
    "Executor",
    "Interrupted",
    "Options",
    "Pack",
    "PackPlan",
    "Part",
    "Plan",
    "Progress",
    "ReferenceBackend",
    "Run",
    "Split",
    "Trainer",
    "Work",
    "backend_for",
    "cores",
    "estimate",
    "make_plan",
    "resolve_options",
]

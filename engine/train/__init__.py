"""Training: the plan, packs, schedules, early stopping, and the backends behind one seam."""

from .backend import Backend, Context, EpochEnd, Evaluation, EvaluationRequest, Interrupted, Pack
from .checkpoints import DECISIVE, Checkpoints
from .estimate import Estimate, estimate
from .executor import Executor, Report
from .health import label_problems
from .log import Memo
from .options import Options, Progress, backend_for, resolve_options
from .plan import ArchitecturePlan, PackPlan, Plan, make_plan
from .reference import ReferenceBackend
from .run import Run
from .split import PARTS, Part, Split
from .threads import Threads
from .trainer import Trainer, Work

__all__ = [
    "DECISIVE",
    "PARTS",
    "ArchitecturePlan",
    "Backend",
    "Checkpoints",
    "Context",
    "EpochEnd",
    "Estimate",
    "Evaluation",
    "EvaluationRequest",
    "Executor",
    "Interrupted",
    "Memo",
    "Options",
    "Pack",
    "PackPlan",
    "Part",
    "Plan",
    "Progress",
    "ReferenceBackend",
    "Report",
    "Run",
    "Split",
    "Threads",
    "Trainer",
    "Work",
    "backend_for",
    "estimate",
    "label_problems",
    "make_plan",
    "resolve_options",
]

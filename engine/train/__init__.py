"""Training: the plan, packs, schedules, early stopping, and the backends behind one seam."""

from .again import regeneration_problems
from .backend import Backend, Context, EpochEnd, Evaluation, EvaluationRequest, Interrupted, Pack
from .budget import fit_space
from .checkpoints import DECISIVE, Checkpoints
from .estimate import Estimate, Speed, measure_speed
from .executor import Executor, Report
from .health import label_problems
from .log import Memo
from .options import Options, Progress, backend_for, resolve_options
from .plan import ArchitecturePlan, PackPlan, Plan, make_plan
from .reference import ReferenceBackend
from .repair import RepairPlan, plan_repair, repair
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
    "RepairPlan",
    "Report",
    "Run",
    "Speed",
    "Split",
    "Threads",
    "Trainer",
    "Work",
    "backend_for",
    "fit_space",
    "label_problems",
    "make_plan",
    "measure_speed",
    "plan_repair",
    "regeneration_problems",
    "repair",
    "resolve_options",
]

"""Benchmarks: our work side by side, in one run, with what a user would run instead.

Contenders are entries of a registry (``registry.py``); each runs in processes of its own. Before anything is timed
its results are compared with the reference in float64 (``judge.py``): one that disagrees is not timed.
"""

from .contender import Contender, Job, Outcome
from .judge import Judge, Verdict
from .measure import Options, run
from .plot import check_plot, draw
from .registry import contender_names
from .results import Card, Entry, Machine, Report, Result, Row
from .sites import Gpu
from .slices import SliceOptions, SliceReport, SliceResult, run_slices
from .workload import Workload, WorkloadSpec, specs_for

__all__ = [
    "Card",
    "Contender",
    "Entry",
    "Gpu",
    "Job",
    "Judge",
    "Machine",
    "Options",
    "Outcome",
    "Report",
    "Result",
    "Row",
    "SliceOptions",
    "SliceReport",
    "SliceResult",
    "Verdict",
    "Workload",
    "WorkloadSpec",
    "check_plot",
    "contender_names",
    "draw",
    "run",
    "run_slices",
    "specs_for",
]

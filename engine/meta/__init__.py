"""Meta-classifiers: what can be read from weights, how much, where and when."""

from .results import (
    Confusion,
    Fit,
    Interval,
    Map,
    Question,
    Score,
    Study,
    find_studies,
    main_metric,
    read_study,
    write_study,
)
from .targets import Kind, Target, kinds_of, open_questions, target_of

__all__ = [
    "Confusion",
    "Fit",
    "Interval",
    "Kind",
    "Map",
    "Question",
    "Score",
    "Study",
    "Target",
    "find_studies",
    "kinds_of",
    "main_metric",
    "open_questions",
    "read_study",
    "target_of",
    "write_study",
]

"""Meta-classifiers: what can be read from weights, how much, where and when."""

from .models import MODELS, Making, ModelSpec
from .options import StudyOptions, pick_device
from .reading import SliceSpec
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
from .study import StudyInterrupted, make_study, run_study
from .targets import Kind, Target, kinds_of, open_questions, target_of

__all__ = [
    "MODELS",
    "Confusion",
    "Fit",
    "Interval",
    "Kind",
    "Making",
    "Map",
    "ModelSpec",
    "Question",
    "Score",
    "SliceSpec",
    "Study",
    "StudyInterrupted",
    "StudyOptions",
    "Target",
    "find_studies",
    "kinds_of",
    "main_metric",
    "make_study",
    "open_questions",
    "pick_device",
    "read_study",
    "run_study",
    "target_of",
    "write_study",
]

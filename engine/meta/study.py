"""A study: every target by every model, on members that the model has not seen."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import version
from itertools import count
from pathlib import Path

import numpy as np

from ..errors import UsageError, WseError
from ..files import check_writable
from ..text import name_text
from ..zoo import STUDIES_FOLDER, STUDY_FILE, Items, Zoo
from ..zoo.format import MANIFEST_FILE
from .crew import Report, done
from .jobs import Jobs, Outcome
from .judging import confusion
from .options import StudyOptions
from .results import Confusion, Question, Score, Study, write_study
from .targets import Target
from .views import Answers, grouped, groupings, score, together


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C in a study.

    Attributes:
        study: of what had been fitted in every round; it may have no scores.
        done: how many fits had ended.
        fits: how many there would have been.
    """

    def __init__(self, study: Study, *, done: int, fits: int) -> None:
        super().__init__()
        self.study, self.done, self.fits = study, done, fits


def run_study(
    options: StudyOptions, out: Path | None = None, report: Report | None = None, *, overwrite: bool = False
) -> tuple[Study, Path]:
    """Do a study and keep it: ``make_study``, then ``write_study``."""
    study, folder = make_study(options, out, report, overwrite=overwrite)
    write_study(folder, study)
    return study, folder


def make_study(
    options: StudyOptions, out: Path | None = None, report: Report | None = None, *, overwrite: bool = False
) -> tuple[Study, Path]:
    """Do a study.

    Args:
        options: what is asked.
        out: folder of the results; None: one inside the zoo, named after what is read, with a number behind it
            if it holds a study already.
        report: called as the work goes on.
        overwrite: whether a study that the folder holds is replaced.

    Returns:
        The study, and the folder for it.

    Raises:
        UsageError: something asked for does not exist, too few members are left, or ``out`` holds a study or is a
            zoo.
        WseError: the zoo is missing or damaged, or the folder cannot be written into.
        StudyInterrupted: Ctrl-C came while models were fitted.
    """
    began = time.perf_counter()
    zoo = Zoo.open(options.zoo, unfinished=options.unfinished)
    folder = out or options.zoo / STUDIES_FOLDER / options.name
    if (folder / MANIFEST_FILE).exists():
        raise UsageError(f"{folder} is a zoo, and a study needs a folder of its own: name another by --out")
    if not overwrite and (folder / STUDY_FILE).exists():
        if out is not None:
            raise UsageError(f"{out} holds a study already: name another folder, or replace it by --overwrite")
        numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
        folder = next(other for other in numbered if not (other / STUDY_FILE).exists())
    try:
        check_writable(folder)  # rather than at the end of it all
    except OSError as error:
        raise WseError(f"cannot write into {folder}: {error.strerror or error}; name another by --out") from error
    jobs = Jobs(options, zoo)
    outcomes: dict[int, Outcome] = {}
    try:
        with closing(done(jobs, began, report or (lambda share, what, words: None))) as ended:
            outcomes.update(ended)
    except KeyboardInterrupt:
        study = _study(jobs, _in_every_round(jobs, outcomes), began)
        raise StudyInterrupted(study, done=len(outcomes), fits=len(jobs.all)) from None
    return _study(jobs, outcomes, began), folder


def _in_every_round(jobs: Jobs, outcomes: Mapping[int, Outcome]) -> dict[int, Outcome]:
    """The outcomes of models that were fitted to a target in all rounds: the same as in the whole study."""
    missing = {jobs.all[index].asked for index in range(len(jobs.all)) if index not in outcomes}
    return {index: outcome for index, outcome in outcomes.items() if jobs.all[index].asked not in missing}


def _study(jobs: Jobs, outcomes: Mapping[int, Outcome], began: float) -> Study:
    asked = [(jobs.all[index], outcome) for index, outcome in sorted(outcomes.items())]
    # (target, model, view, group) -> the answers of each round
    found: dict[tuple[str, str, str, str], list[Answers]] = defaultdict(list)
    for job, outcome in asked:
        for view, told in outcome.answers.items():
            group = str(jobs.options.test_length) if view == "length" else job.layer
            found[job.target.name, job.spec.name, view, group].append((job.test, told))
    scores: list[Score] = []
    confusions: list[Confusion] = []
    columns = groupings(jobs.items)
    for (target, model, view, group), rounds in found.items():
        chosen, predictions = together(rounds)
        whole = view == "all"
        scores.append(score(predictions, model=model, view=view, group=group, ranks=whole))
        if not whole:
            continue
        scores += grouped((chosen, predictions), columns, model=model)
        if predictions.target.kind == "classification":
            counts = tuple(tuple(row) for row in confusion(predictions).tolist())
            classes = predictions.target.classes
            confusions.append(Confusion(target=target, model=model, classes=classes, counts=counts))
    options, is_complete = jobs.options, jobs.zoo.manifest.status == "complete"
    return Study(
        wse_version=version("wse"),
        zoo=(name_text(options.zoo) or str(options.zoo)) + ("" if is_complete else ", unfinished"),
        zoo_seed=jobs.zoo.manifest.seed,
        slice=str(options.what),
        snapshots=options.snapshots + (f", tested on {options.test_snapshots}" if options.test_snapshots else ""),
        where=tuple(map(str, options.where)),
        normalize=options.normalize,
        statistics=options.statistics,
        holdout=str(options.holdout or ""),
        shuffled=options.shuffled,
        seeds=options.seeds,
        budget_seconds=options.budget_seconds,
        device=options.device,
        members=len(np.unique(jobs.items.members)),
        seconds=round(time.perf_counter() - began, 3),
        questions=tuple(
            _question(target, jobs.items)
            for target in jobs.targets
            if any(job.target is target for job, _ in asked)
        ),
        models={spec.name: spec.title for spec in options.specs()},
        scores=tuple(scores),
        confusions=tuple(confusions),
        maps=tuple(outcome.map for _, outcome in asked if outcome.map is not None),
        fits=tuple(outcome.fit for _, outcome in asked if outcome.fit is not None),
    )


def _question(target: Target, items: Items) -> Question:
    return Question(
        name=target.name,
        kind=target.kind,
        classes=target.classes,
        log=target.log,
        members=len(np.unique(items.members[target.present])),
    )

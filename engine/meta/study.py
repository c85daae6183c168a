"""A study: every target by every model, on members that the model has not seen."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..zoo import Items, Zoo, fit_positions
from ..zoo.normalising import Normalizing
from .judging import Predictions, confusion
from .maps import where_and_when
from .models import MODELS, Making, ModelSpec
from .options import StudyOptions
from .permuted import PermutedItems
from .reading import NORMALIZING, Reading, SliceSpec, parse_snapshots
from .results import STUDIES_FOLDER, Confusion, Fit, Map, Question, Score, Study, write_study
from .splits import split
from .targets import Target, open_questions, shuffled, target_of
from .trial import fit, predict
from .views import Answers, grouped, groupings, layers_within, score, together

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
# (share of the work done, what is being fitted, a few words on how far that is)
Report = Callable[[float, str, str], None]

# What a deep model gets at least, however little of the budget is left.
LEAST_SECONDS = 5.0
# Reads each layer by itself.
LAYER_MODEL = "statistics-boost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One model on one target in one round.

    Attributes:
        spec: the model.
        target: of all items.
        seed: of the split and of the model.
        train, test: indices of items, ascending.
        layer: read alone; empty: what the study reads.
    """

    spec: ModelSpec
    target: Target
    seed: int
    train: Indices
    test: Indices
    layer: str = ""


class Studying:
    """A study under way; ``run`` does all of it.

    Args:
        options: what is asked.
        report: called as the work goes on.

    Raises:
        UsageError: something asked for does not exist, or too few members are left.
        WseError: the zoo is missing or damaged.
    """

    def __init__(self, options: StudyOptions, report: Report | None = None) -> None:
        self.options = options
        self._report = report or (lambda share, what, words: None)
        self._began = time.perf_counter()
        self.zoo = Zoo.open(options.zoo)
        self.items, self._is_train, self._is_test = _items(self.zoo, options)
        self.targets = _targets(self.items, options)
        self._readings: dict[tuple[str, bool, int], Reading] = {}
        # (target, model, view, group) -> the answers of each round
        self._answers: dict[tuple[str, str, str, str], list[Answers]] = defaultdict(list)
        self._maps: list[Map] = []
        self._fits: list[Fit] = []

    def run(self) -> Study:
        """Fit and judge everything."""
        jobs = list(self._jobs())
        for done, job in enumerate(jobs):
            deep_left = sum(other.spec.deep for other in jobs[done:])
            self._do(job, done / len(jobs), 1 / len(jobs), self._seconds_for(deep_left))
        self._report(1.0, "judging", "")
        return self._study()

    def _jobs(self) -> Iterator[Job]:
        """Everything to be fitted, cheap models first, so that what is left of the budget is known."""
        options = self.options
        rounds = [(seed, *self._split(seed)) for seed in range(options.seed, options.seed + options.seeds)]
        for spec in options.specs():
            for target in self.targets:
                for seed, train, test in rounds[: options.deep_seeds if spec.deep else None]:
                    yield _job(spec, target, seed, train, test)
        for layer in self._layers():
            for target in self.targets:
                for seed, train, test in rounds:
                    yield _job(MODELS[LAYER_MODEL], target, seed, train, test, layer)

    def _do(self, job: Job, done: float, share: float, seconds: float | None) -> None:
        what = f"{job.target.name}: {job.layer or job.spec.name}"
        self._report(done, what, "")
        began = time.perf_counter()
        making = Making(
            kind=job.target.kind,
            seed=job.seed,
            seconds=seconds,
            device=self.options.device,
            progress=lambda part, words: self._report(done + part * share, what, words),
        )
        reading = self._reading(job)
        try:
            estimator = fit(job.spec, making, reading, job.target, job.train)
            predictions = predict(estimator, job.spec.reads, reading, job.target, job.test)
        except UsageError as error:
            if job.spec.name in self.options.models:
                raise
            self._note(job, began, note=f"left out: {error}")
            return
        self._keep(job, "layer" if job.layer else "all", predictions)
        if job.layer:
            return
        self._note(job, began, epochs=getattr(estimator, "epochs_", None), note=getattr(estimator, "note_", ""))
        if self.options.permuted and job.spec.reads not in ("nothing", "setup"):
            other = self._reading(job, permuted=True)
            self._keep(job, "permuted", predict(estimator, job.spec.reads, other, job.target, job.test))
        if self.options.maps and self._is_mapped(job):
            slices = reading.over(self._every_snapshot).slices
            asked = target_of(self._every_snapshot, job.target.name, kind=job.target.kind)
            mapped = self.items.members[job.test]
            self._maps.append(where_and_when(estimator, job.spec.name, slices, asked, mapped))

    def _keep(self, job: Job, view: str, predictions: Predictions) -> None:
        answers = self._answers[job.target.name, job.spec.name, view, job.layer]
        answers.append((job.test, predictions))

    def _note(self, job: Job, began: float, *, epochs: int | None = None, note: str = "") -> None:
        self._fits.append(
            Fit(
                target=job.target.name,
                model=job.spec.name,
                seed=job.seed,
                seconds=round(time.perf_counter() - began, 3),
                epochs=epochs,
                note=note,
            )
        )

    def _seconds_for(self, deep_left: int) -> float | None:
        """An equal share of what is left of the budget for each deep model still to be fitted."""
        if self.options.budget_seconds is None or not deep_left:
            return None
        left = self.options.budget_seconds - (time.perf_counter() - self._began)
        return max(LEAST_SECONDS, left / deep_left)

    def _split(self, seed: int) -> tuple[Indices, Indices]:
        train, test = split(self.items, holdout=self.options.holdout, seed=seed)
        return np.flatnonzero(train & self._is_train), np.flatnonzero(test & self._is_test)

    def _layers(self) -> list[str]:
        """Layers that every architecture has within the part, if they are to be read one by one."""
        if not self.options.layers:
            return []
        layouts = [self.zoo.layout(name) for name in self.items.architectures]
        found = [layers_within(layout, self.options.what.part) for layout in layouts]
        return [layer for layer in found[0] if all(layer in others for others in found)]

    @cached_property
    def _every_snapshot(self) -> Items:
        """All snapshots of the members of this study."""
        return self.zoo.items(snapshots="all", members=np.unique(self.items.members).tolist())

    def _is_mapped(self, job: Job) -> bool:
        mapped = job.spec.reads == "slices" and job.target.kind == "classification"
        return mapped and job.seed == self.options.seed

    def _reading(self, job: Job, *, permuted: bool = False) -> Reading:
        """What a job reads; its tables are kept for the next jobs that read the same."""
        by_position = self.options.normalize == "position"
        key = (job.layer, permuted, job.seed if by_position else 0)
        if key not in self._readings:
            what = SliceSpec(part=job.layer) if job.layer else self.options.what
            self._readings[key] = Reading(
                PermutedItems(self.items, seed=self.options.seed) if permuted else self.items,
                what,
                statistics=self.options.statistics,
                normalize=self._normalizing(what, job.train),
                seed=self.options.seed,
            )
        return self._readings[key]

    def _normalizing(self, what: SliceSpec, train: Indices) -> Normalizing:
        match self.options.normalize:
            case "position":
                return fit_positions(self.items.only(train), what.part, statistics=self.options.statistics)
            case "slice" | "layer" | "none" as name:
                return name
            case unknown:
                raise UsageError(f"--normalize {unknown}: use {', '.join(NORMALIZING)}")

    def _study(self) -> Study:
        scores: list[Score] = []
        confusions: list[Confusion] = []
        columns = groupings(self.items)
        for (target, model, view, group), rounds in self._answers.items():
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
        options = self.options
        return Study(
            wse_version=version("wse"),
            zoo=options.zoo.name or str(options.zoo),
            zoo_seed=self.zoo.manifest.seed,
            slice=str(options.what),
            snapshots=options.snapshots
            + (f", tested on {options.test_snapshots}" if options.test_snapshots else ""),
            normalize=options.normalize,
            statistics=options.statistics,
            holdout=str(options.holdout or ""),
            seeds=options.seeds,
            budget_seconds=options.budget_seconds,
            device=options.device,
            members=len(np.unique(self.items.members)),
            seconds=round(time.perf_counter() - self._began, 3),
            questions=tuple(_question(target, self.items) for target in self.targets),
            models={spec.name: spec.title for spec in options.specs()},
            scores=tuple(scores),
            confusions=tuple(confusions),
            maps=tuple(self._maps),
            fits=tuple(self._fits),
        )


def run_study(options: StudyOptions, out: Path | None = None, report: Report | None = None) -> tuple[Study, Path]:
    """Do a study and keep it.

    Args:
        options: what is asked.
        out: folder of the results; None: one inside the zoo, named after what is read.
        report: called as the work goes on.

    Returns:
        The study, and where it is kept.

    Raises:
        UsageError: something asked for does not exist, or too few members are left.
        WseError: the zoo is missing or damaged, or the results cannot be written.
    """
    study = Studying(options, report).run()
    folder = out or options.zoo / STUDIES_FOLDER / options.name
    write_study(folder, study)
    return study, folder


def _items(zoo: Zoo, options: StudyOptions) -> tuple[Items, Mask, Mask]:
    """All items of a study; which may be trained on and which tested, before members are split."""
    items = zoo.items(snapshots="all")
    for condition in options.where:
        items = items.only(condition.holds(items))
    train = _has_snapshot(items, options.snapshots)
    test = train if options.test_snapshots is None else _has_snapshot(items, options.test_snapshots)
    kept = train | test
    if not kept.any():
        raise UsageError(f"no snapshot is left of {options.zoo}: choose other --snapshots or members (--where)")
    return items.only(kept), train[kept], test[kept]


def _has_snapshot(items: Items, text: str) -> Mask:
    """Which items are among the snapshots that a text names, [N]."""
    named = Items(items.zoo, snapshots=parse_snapshots(text, items.zoo))
    most = int(items.snapshots.max()) + 1
    return np.isin(items.members * most + items.snapshots, named.members * most + named.snapshots)


def _targets(items: Items, options: StudyOptions) -> list[Target]:
    unused = sorted((options.kinds.keys() | options.logs) - set(options.targets)) if options.targets else []
    if unused:
        raise UsageError(f"{unused[0]} is not among the targets ({', '.join(options.targets)})")
    targets = []
    for name in options.targets or open_questions(items.zoo):
        target = target_of(items, name, kind=options.kinds.get(name), log=name in options.logs)
        if len(np.unique(target.values[target.present])) < 2:
            if options.targets:
                raise UsageError(f"{name} is the same for all chosen networks: there is nothing to predict")
            continue
        targets.append(shuffled(target, items.members, seed=options.seed) if options.shuffled else target)
    return targets


def _job(spec: ModelSpec, target: Target, seed: int, train: Indices, test: Indices, layer: str = "") -> Job:
    """A job on the items that have the target."""
    train, test = train[target.present[train]], test[target.present[test]]
    if not len(train) or not len(test):
        raise UsageError(f"no network is left to {'train on' if len(test) else 'test'} for {target.name}")
    return Job(spec=spec, target=target, seed=seed, train=train, test=test, layer=layer)


def _question(target: Target, items: Items) -> Question:
    return Question(
        name=target.name,
        kind=target.kind,
        classes=target.classes,
        log=target.log,
        members=len(np.unique(items.members[target.present])),
    )

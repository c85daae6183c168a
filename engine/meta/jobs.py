"""The jobs of a study: each fits one model to one target in one round, and asks it about the test items."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ..errors import UsageError
from ..zoo import Items, Zoo, fit_positions, only_where
from ..zoo.normalising import Normalizing
from ..zoo.places import Places
from .judging import Predictions
from .maps import where_and_when
from .models import MODELS, Making, ModelSpec
from .models.loop import DivergedError
from .options import CHEAP_MODEL, StudyOptions
from .permuted import PermutedItems
from .reading import NORMALIZING, Reading, SliceSpec, named_snapshots
from .results import Fit, Map
from .splits import split
from .targets import Target, open_questions, shuffled, target_of
from .trial import fit, predict
from .views import layers_within

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
# (share of the job done, a few words on how far it is)
Progress = Callable[[float, str], None]


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

    @property
    def asked(self) -> tuple[str, str, str]:
        """What it has in common with the jobs of other rounds."""
        return self.target.name, self.spec.name, self.layer

    def __str__(self) -> str:
        return f"{self.target.name}: {self.layer or self.spec.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a job.

    Attributes:
        answers: view -> what the model says of the test items.
        fit: what it took; None of a single layer.
        map: where the property shows, if that was asked.
    """

    answers: dict[str, Predictions]
    fit: Fit | None
    map: Map | None = None


class Jobs:
    """All jobs of a study, in order: cheap models first, so that what is left of a budget is known.

    The same options and zoo give the same jobs in every process.

    Args:
        options: what is asked.
        zoo: that ``options`` name, opened.

    Raises:
        UsageError: something asked for does not exist, or too few members are left.
        WseError: the zoo is damaged.
    """

    def __init__(self, options: StudyOptions, zoo: Zoo) -> None:
        self.options, self.zoo = options, zoo
        self.items, self._is_train, self._is_test = _items(self.zoo, options)
        _check_slices(self.items, options)
        self._rounds = [(seed, *self._split(seed)) for seed in range(options.seed, options.seed + options.seeds)]
        self.targets = [target for target in _targets(self.items, options) if self._can_be_asked(target)]
        if not self.targets:
            raise UsageError("there is nothing to ask: the chosen networks differ in nothing, or are too few")
        self.all = list(self._jobs())
        self._readings: dict[tuple[str, bool, int], Reading] = {}

    def do(self, index: int, seconds: float | None, progress: Progress | None = None) -> Outcome:
        """Do one job.

        Args:
            index: of the job in ``all``.
            seconds: what a deep model may take; None: no limit.
            progress: called now and then by deep models.

        Raises:
            UsageError: a model that was asked for by name cannot read these networks.
            WseError: a shard is missing or damaged.
        """
        job, began = self.all[index], time.perf_counter()
        reading = self._reading(job)
        try:
            making = Making(
                kind=job.target.kind,
                seed=job.seed,
                seconds=seconds,
                answers=len(job.test) * reading.looks(job.spec.reads) * (2 if self.options.permuted else 1),
                device=self.options.device,
                progress=progress,
            )
            estimator = fit(job.spec, making, reading, job.target, job.train)
            told = predict(estimator, job.spec.reads, reading, job.target, job.test)
        except (UsageError, DivergedError) as error:
            # What a named model cannot read is told at once; a net that diverged costs no other model its figures.
            if isinstance(error, UsageError) and job.spec.name in self.options.models:
                raise UsageError(f"{job.spec.name}: {error}") from error
            return Outcome(answers={}, fit=_took(job, began, note=f"left out: {error}"))
        if job.layer:
            return Outcome(answers={"layer": told}, fit=None)
        note, epochs = getattr(estimator, "note_", ""), getattr(estimator, "epochs_", None)
        took = _took(job, began, note=note, epochs=epochs)
        answers = {"all": told}
        if self.options.permuted and job.spec.reads not in ("nothing", "setup"):
            permuted = self._reading(job, permuted=True)
            try:
                answers["permuted"] = predict(estimator, job.spec.reads, permuted, job.target, job.test)
            except UsageError as error:  # their slices are cut in memory, and there may be too little
                took = replace(took, note=f"{note}; permuted networks left out: {error}".removeprefix("; "))
        if self.options.test_length is not None and job.spec.any_length:
            other = reading.over(self.items, self.options.test_length)
            answers["length"] = predict(estimator, job.spec.reads, other, job.target, job.test)
        if not self.options.maps or not self._is_mapped(job):
            return Outcome(answers=answers, fit=took)
        slices = reading.over(self._every_snapshot).slices
        asked = target_of(self._every_snapshot, job.target.name, kind=job.target.kind)
        tested = self.items.members[job.test]
        mapped = where_and_when(estimator, job.spec, slices, asked, job.target.classes, tested)
        return Outcome(answers=answers, fit=took, map=mapped)

    def _jobs(self) -> Iterator[Job]:
        options = self.options
        rounds = self._rounds
        shallow = [spec for spec in options.specs() if not spec.deep]
        deep = [spec for spec in options.specs() if spec.deep]
        for target in self.targets:
            for spec in shallow:
                yield from (_job(spec, target, *each) for each in rounds)
        for layer in self._layers():
            for target in self.targets:
                yield from (_job(MODELS[CHEAP_MODEL], target, *each, layer) for each in rounds)
        for spec in deep:
            for target in self.targets:
                yield from (_job(spec, target, *each) for each in rounds[: options.deep_seeds])

    def _can_be_asked(self, target: Target) -> bool:
        """Whether there are different answers to learn in every round, and tests of what was learnt.

        Raises:
            UsageError: not, though the target was asked for by name.
        """
        for seed, train, test in self._rounds:
            known = np.unique(target.values[train[target.present[train]]])
            asked = target.values[test[target.present[test]]]
            can = len(known) > 1 and (np.isin(asked, known).any() if target.classes else len(asked) > 0)
            if not can:
                if self.options.targets and len(known) > 1 and len(asked):
                    raise UsageError(
                        f"{target.name} cannot be asked: with seed {seed} no network to be tested has an answer "
                        "that those to train on have; take another --holdout"
                    )
                if self.options.targets:
                    raise UsageError(
                        f"too few networks to ask for {target.name}: with seed {seed} those to train on have "
                        f"{len(known)} different answers; take more networks, other seeds or another --holdout"
                    )
                return False
        return True

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
        mapped = job.spec in self.options.mapped() and job.target.kind == "classification"
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
                normalize=self._normalizing(what, job.seed),
                seed=self.options.seed,
            )
        return self._readings[key]

    def _normalizing(self, what: SliceSpec, seed: int) -> Normalizing:
        match self.options.normalize:
            case "position":
                # Of all that is trained on, whether it has the target or not: targets share what is read.
                train = next(train for each, train, _ in self._rounds if each == seed)
                return fit_positions(self.items.only(train), what.part, statistics=self.options.statistics)
            case "slice" | "layer" | "none" as name:
                return name
            case unknown:
                raise UsageError(f"--normalize {unknown}: use {', '.join(NORMALIZING)}")


def _took(job: Job, began: float, *, note: str = "", epochs: int | None = None) -> Fit:
    seconds = round(time.perf_counter() - began, 3)
    return Fit(
        target=job.target.name, model=job.spec.name, seed=job.seed, seconds=seconds, epochs=epochs, note=note
    )


def _items(zoo: Zoo, options: StudyOptions) -> tuple[Items, Mask, Mask]:
    """All items of a study; which may be trained on and which tested, before members are split."""
    items = only_where(zoo.items(snapshots="all"), options.where)
    train = test = named_snapshots(options.snapshots, items)
    if options.test_snapshots is not None:
        test = named_snapshots(options.test_snapshots, items, "--test-snapshots")
    kept = train | test
    return items.only(kept).compact(), train[kept], test[kept]


def _check_slices(items: Items, options: StudyOptions) -> None:
    """Refuse slices that not every network has: all models that read weights would be left out."""
    layouts = {name: items.zoo.layout(name) for name in items.architectures}
    part, length = options.what.part, options.what.length
    places = Places(layouts, part, length, statistics=options.statistics, pad=length is None)
    if options.maps and places.room(np.arange(len(layouts))).max() == 1:
        raise UsageError(f"--maps needs slices at several places: shorter ones than {options.what}")
    if options.test_length is not None:
        Places(layouts, part, options.test_length, statistics=options.statistics, pad=False)


def _targets(items: Items, options: StudyOptions) -> list[Target]:
    names = options.targets or open_questions(items.zoo)
    unused = sorted((options.kinds.keys() | options.logs) - set(names))
    if unused:
        raise UsageError(f"{unused[0]} is not among the targets ({', '.join(names)})")
    targets: dict[str, Target] = {}
    for name in names:
        target = target_of(items, name, kind=options.kinds.get(name), log=name in options.logs)
        if len(np.unique(target.values[target.present])) < 2:
            if options.targets:
                raise UsageError(f"{name} is the same for all chosen networks: there is nothing to predict")
            continue
        # By its name: what is named twice is asked once.
        targets[target.name] = shuffled(target, items.members, options.seed) if options.shuffled else target
    return list(targets.values())


def _job(spec: ModelSpec, target: Target, seed: int, train: Indices, test: Indices, layer: str = "") -> Job:
    """A job on the items that have the target."""
    train, test = train[target.present[train]], test[target.present[test]]
    return Job(spec=spec, target=target, seed=seed, train=train, test=test, layer=layer)

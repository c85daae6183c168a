"""Trains the members of one pack from first to last, refilling a row as soon as its member ends.

Everything that is not arithmetic happens here, the same for all backends: initial weights, snapshots, early
stopping, divergence, the measurements of the snapshots.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import msgspec
import numpy as np

from ..nets import Architecture, Layout, forward_macs, initial_weights, training_flops
from ..space import Member
from ..zoo import MemberResult, Snapshot, Status
from .backend import Backend, Context, EpochEnd, Evaluation, EvaluationRequest, Pack, Weights
from .schedule import EarlyStopping, SnapshotKeeper
from .split import PARTS


@dataclass(kw_only=True)
class Work:
    """What a trainer has done so far.

    Attributes:
        training_images: images trained on.
        flops: of training and evaluation.
        training_seconds: spent in ``Pack.advance``.
        evaluation_seconds: spent in ``Pack.evaluate``.
    """

    training_images: int = 0
    flops: int = 0
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0

    def __sub__(self, earlier: Work) -> Work:
        """What has been done since."""
        return Work(**{each.name: getattr(self, each.name) - getattr(earlier, each.name) for each in fields(self)})

    def set(self, other: Work) -> None:
        """Become equal to another."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))


@dataclass(kw_only=True)
class _Run:
    """A member on its way through training."""

    member: Member
    initial: Weights
    keeper: SnapshotKeeper
    stopping: EarlyStopping | None
    epochs: int = 0
    steps_per_epoch: int = 0
    diverged: bool = False
    last: Weights = field(init=False)
    samples_trained: int = 0
    samples_evaluated: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.last = self.initial
        self.keeper.keep(0, self.initial)


class Trainer:
    """Trains members of one architecture in a pack.

    Args:
        backend: what computes.
        architecture: what the members share.
        members: in the order in which they get a row.
        rows: how many train side by side.
        context: what the run shares.
        faithful: also measure snapshots as the original study did.
    """

    def __init__(
        self,
        backend: Backend,
        architecture: Architecture,
        members: Sequence[Member],
        *,
        rows: int,
        context: Context,
        faithful: bool = False,
    ) -> None:
        self.work = Work()
        self._context, self._faithful = context, faithful
        self._layout = Layout(architecture)
        self._training_flops = training_flops(architecture)
        self._evaluation_flops = 2 * forward_macs(architecture)
        self._waiting = deque(members)
        self._rows = min(rows, len(members))
        self._pack: Pack = backend.open(architecture, self._rows, context)
        self._running: dict[int, _Run] = {}

    def results(self) -> Iterator[MemberResult]:
        """Train all members; each result as soon as its member has ended.

        Raises:
            Interrupted: the run was asked to stop; members that have not ended are lost.
        """
        for row in range(self._rows):
            self._place_next(row)
        while self._running:
            started = time.perf_counter()
            ends = self._pack.advance()
            seconds = time.perf_counter() - started
            self.work.training_seconds += seconds
            for end in ends:
                self.work.training_images += end.images
                self.work.flops += end.images * self._training_flops
                self._running[end.row].seconds += seconds / len(ends)
            stopped = self._stopped(ends)
            for end in ends:
                run = self._running[end.row]
                if end.row in stopped:
                    self._pack.release(end.row)
                    del self._running[end.row]
                    yield self._result(run)
                    self._place_next(end.row)

    def _place_next(self, row: int) -> None:
        if not self._waiting:
            return
        member = self._waiting.popleft()
        setup, settings = member.setup, self._context.settings
        weights = initial_weights(
            self._layout,
            setup.initialization,
            seed=member.seed,
            member=member.id,
            std=setup.init_std if setup.init_std is not None else 1.0,
            constant=settings.init_constant,
            gamma_std=settings.gamma_std,
        )
        self._pack.place(row, member, weights)
        self._running[row] = _Run(
            member=member,
            initial=weights,
            keeper=SnapshotKeeper(settings.snapshots, epochs=setup.epochs, may_stop=settings.early_stopping),
            stopping=EarlyStopping(settings) if settings.early_stopping else None,
        )

    def _stopped(self, ends: Sequence[EpochEnd]) -> set[int]:
        """The rows whose members train no further; those that may stop early are measured together."""
        stopped, watched = set(), []
        for end in ends:
            run = self._running[end.row]
            run.steps_per_epoch = end.steps
            run.samples_trained += end.images
            if not end.finite:  # what this epoch made of the weights is not kept
                run.diverged = True
                stopped.add(end.row)
                continue
            run.epochs += 1
            run.last = self._pack.weights(end.row)
            run.keeper.keep(run.epochs, run.last)
            if run.epochs >= run.member.setup.epochs:
                stopped.add(end.row)
            elif run.stopping is not None:
                watched.append((end.row, run, run.stopping))
        evaluations = self._evaluate(
            [
                (run, EvaluationRequest(member=run.member, weights=run.last, part="validation"))
                for _, run, _ in watched
            ]
        )
        for (row, _, stopping), evaluation in zip(watched, evaluations, strict=True):
            if stopping.update(evaluation.accuracy):
                stopped.add(row)
        return stopped

    def _evaluate(self, wanted: Sequence[tuple[_Run, EvaluationRequest]]) -> list[Evaluation]:
        if not wanted:
            return []
        started = time.perf_counter()
        evaluations = self._pack.evaluate([request for _, request in wanted])
        seconds = time.perf_counter() - started
        self.work.evaluation_seconds += seconds
        images = sum(evaluation.images for evaluation in evaluations)
        self.work.flops += images * self._evaluation_flops
        for (run, _), evaluation in zip(wanted, evaluations, strict=True):
            run.seconds += seconds * evaluation.images / images
            run.samples_evaluated += evaluation.images
        return evaluations

    def _result(self, run: _Run) -> MemberResult:
        chosen = run.keeper.choose(run.epochs, run.last)
        modes = (False, True) if self._faithful else (False,)
        requests = [
            EvaluationRequest(member=run.member, weights=weights, part=part, faithful=faithful)
            for weights in chosen.values()
            for faithful in modes
            for part in PARTS
        ]
        evaluations = iter(self._evaluate([(run, request) for request in requests]))
        snapshots: list[Snapshot] = []
        for epoch, weights in chosen.items():
            measured = {}
            for faithful in modes:
                for part in PARTS:
                    last = next(evaluations)
                    prefix = "faithful_" if faithful else ""
                    measured[f"{prefix}{_column(part)}_loss"] = last.loss
                    measured[f"{prefix}{_column(part)}_accuracy"] = last.accuracy
                    if part == "test" and not faithful:
                        predicted_classes = int(np.count_nonzero(last.predicted))
            snapshots.append(Snapshot(epoch=epoch, step=epoch * run.steps_per_epoch, weights=weights, **measured))
        return MemberResult(
            id=run.member.id,
            architecture=self._layout.architecture.name,
            status=_status(run, predicted_classes),
            config=msgspec.structs.asdict(run.member.setup),
            epochs=run.epochs,
            steps=run.epochs * run.steps_per_epoch,
            predicted_classes=predicted_classes,
            samples_trained=run.samples_trained,
            samples_evaluated=run.samples_evaluated,
            seconds=run.seconds,
            snapshots=tuple(snapshots),
        )


def _column(part: str) -> str:
    return "train" if part == "training" else part


def _status(run: _Run, predicted_classes: int) -> Status:
    """Diverged: a loss or weight was not finite. Dead: the network answers every test image with one class."""
    if run.diverged:
        return "diverged"
    return "dead" if predicted_classes == 1 else "ok"

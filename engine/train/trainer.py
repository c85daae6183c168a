"""Trains the members of one pack from first to last, refilling a row as soon as its member ends.

Everything that is not arithmetic happens here, the same for all backends: initial weights, snapshots, early
stopping, divergence, the measurements of the snapshots.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import msgspec

from ..nets import Architecture, Layout, forward_macs, initial_weights, training_flops
from ..space import Member
from ..zoo import MemberResult, Status
from .backend import (
    Backend,
    Context,
    EpochEnd,
    Evaluation,
    EvaluationRequest,
    Interrupted,
    Pack,
    RowState,
    Weights,
)
from .checkpoints import Checkpoint, Checkpoints, Counters, Due
from .measuring import measured_snapshots, measurements
from .schedule import EarlyStopping, SnapshotKeeper


@dataclass(kw_only=True)
class Work:
    """What trainers have done so far.

    Attributes:
        training_images: images trained on.
        flops: of training and evaluation.
        training_seconds: spent in ``Pack.advance``.
        evaluation_seconds: spent in ``Pack.evaluate``.
        earlier_flops: of members that went on from a checkpoint, before it was taken.
    """

    training_images: int = 0
    flops: int = 0
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    earlier_flops: int = 0

    def __add__(self, other: Work) -> Work:
        """Both together."""
        return Work(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def __sub__(self, earlier: Work) -> Work:
        """What has been done since."""
        return Work(**{each.name: getattr(self, each.name) - getattr(earlier, each.name) for each in fields(self)})


@dataclass(kw_only=True)
class _Run:
    """A member on its way through training; ``last``: its weights at the end of the last finite epoch."""

    member: Member
    keeper: SnapshotKeeper
    stopping: EarlyStopping | None
    last: Weights
    counters: Counters

    def checkpoint(self, row: RowState) -> Checkpoint:
        """All that it takes to go on from here."""
        return Checkpoint(
            member=self.member.id,
            row=row,
            counters=self.counters,
            stopping=self.stopping.counters if self.stopping else None,
            last=self.last,
            held=self.keeper.held,
            stride=self.keeper.stride,
        )


class Trainer:
    """Trains members of one architecture in a pack.

    Args:
        backend: what computes.
        architecture: what the members share.
        members: in the order in which they get a row.
        rows: how many train side by side.
        context: what the run shares.
        faithful: also measure snapshots as the original study did.
        checkpoints: where members in training are kept, and found again; None: nowhere.
        work: added to; None: counts from nothing.
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
        checkpoints: Checkpoints | None = None,
        work: Work | None = None,
    ) -> None:
        self.work = Work() if work is None else work
        self._checkpoints = checkpoints
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
            Interrupted: the run was asked to stop; members that have not ended are checkpointed.
            WseError: a checkpoint cannot be written.
        """
        try:
            yield from self._results()
        except Interrupted:
            self._save()
            raise
        finally:
            self._pack.close()

    def _results(self) -> Iterator[MemberResult]:
        due = Due(self._checkpoints) if self._checkpoints else None
        for row in range(self._rows):
            self._place_next(row)
        while self._running:
            self._watch()
            ended = [row for row, run in self._running.items() if run.counters.ended]
            for row in ended:
                result = self._result(self._running[row])
                self._pack.release(row)
                del self._running[row]
                yield result
                self._place_next(row)
            if not ended:  # else those that took their rows may have to be measured first
                if due:
                    began = time.monotonic()
                    self._save()
                    due.taken(began)
                self._advance()

    def _place_next(self, row: int) -> None:
        if not self._waiting:
            return
        member = self._waiting.popleft()
        setup, settings = member.setup, self._context.settings
        keeper = SnapshotKeeper(settings.snapshots, epochs=setup.epochs, may_stop=settings.early_stopping)
        found = self._checkpoints.load(member.id) if self._checkpoints else None
        if found is None:
            weights = self._initial_weights(member)
            keeper.keep(0, weights)
            self._pack.place(row, member, weights)
        else:
            keeper.held, keeper.stride = dict(found.held), found.stride
            self._pack.restore(row, member, found.row)
            self.work.earlier_flops += (
                found.counters.samples_trained * self._training_flops
                + found.counters.samples_evaluated * self._evaluation_flops
            )
        self._running[row] = _Run(
            member=member,
            keeper=keeper,
            stopping=EarlyStopping(settings, found.stopping if found else None)
            if settings.early_stopping
            else None,
            last=found.last if found else weights,
            counters=found.counters if found else Counters(),
        )

    def _initial_weights(self, member: Member) -> Weights:
        setup, settings = member.setup, self._context.settings
        return initial_weights(
            self._layout,
            setup.initialization,
            seed=member.seed,
            member=member.id,
            std=setup.init_std if setup.init_std is not None else 1.0,
            constant=settings.init_constant,
            gamma_std=settings.gamma_std,
        )

    def _save(self) -> None:
        """Checkpoint all members in training, except those that have not begun."""
        if self._checkpoints is not None:
            for row, run in self._running.items():
                state = self._pack.state(row)
                if state.epoch > 1 or len(state.losses):
                    self._checkpoints.save(run.checkpoint(state))

    def _advance(self) -> None:
        """Train until at least one row ends an epoch, and take note of it."""
        started = time.perf_counter()
        ends = self._pack.advance()
        seconds = time.perf_counter() - started
        self.work.training_seconds += seconds
        for end in ends:
            self.work.training_images += end.images
            self.work.flops += end.images * self._training_flops
            self._running[end.row].counters.seconds += seconds / len(ends)
            self._count(end)

    def _count(self, end: EpochEnd) -> None:
        run = self._running[end.row]
        counters = run.counters
        counters.steps_per_epoch = end.steps
        counters.samples_trained += end.images
        if not end.finite:  # what this epoch made of the weights is not kept
            counters.diverged = counters.ended = True
            return
        counters.epochs += 1
        run.last = self._pack.weights(end.row)
        run.keeper.keep(counters.epochs, run.last)
        counters.ended = counters.epochs >= run.member.setup.epochs

    def _watch(self) -> None:
        """Measure members that may stop early, together, once an epoch; those that should stop have ended."""
        watched = [
            (run, run.stopping)
            for run in self._running.values()
            if run.stopping and run.stopping.counters.epochs < run.counters.epochs and not run.counters.ended
        ]
        evaluations = self._evaluate(
            [
                (run, EvaluationRequest(member=run.member, weights=run.last, part="validation"))
                for run, _ in watched
            ]
        )
        for (run, stopping), evaluation in zip(watched, evaluations, strict=True):
            run.counters.ended = stopping.update(evaluation.accuracy)

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
            run.counters.seconds += seconds * evaluation.images / images
            run.counters.samples_evaluated += evaluation.images
        return evaluations

    def _result(self, run: _Run) -> MemberResult:
        chosen = run.keeper.choose(run.counters.epochs, run.last)
        requests = measurements(run.member, chosen, faithful=self._faithful)
        snapshots, predicted_classes = measured_snapshots(
            chosen,
            self._evaluate([(run, request) for request in requests]),
            steps_per_epoch=run.counters.steps_per_epoch,
            faithful=self._faithful,
        )
        return MemberResult(
            id=run.member.id,
            architecture=self._layout.architecture.name,
            status=_status(run, predicted_classes),
            config=msgspec.structs.asdict(run.member.setup),
            epochs=run.counters.epochs,
            steps=run.counters.epochs * run.counters.steps_per_epoch,
            predicted_classes=predicted_classes,
            samples_trained=run.counters.samples_trained,
            samples_evaluated=run.counters.samples_evaluated,
            seconds=run.counters.seconds,
            snapshots=snapshots,
        )


def _status(run: _Run, predicted_classes: int) -> Status:
    """Diverged: a loss or weight was not finite. Dead: the network answers every test image with one class."""
    if run.counters.diverged:
        return "diverged"
    return "dead" if predicted_classes == 1 else "ok"

"""A member in training as every backend keeps count of it: where it is, and what it has lost so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..space import Member
from .backend import EpochEnd, RowState
from .schedule import learning_rate, steps_per_epoch
from .split import Split


@dataclass(kw_only=True)
class Row:
    """A member in training.

    Attributes:
        member: the member.
        batch: images of a step.
        steps: of an epoch.
        epoch: from 1.
        losses: of the steps of this epoch that are done.
        diverged: whether one of them is not finite.
    """

    member: Member
    batch: int
    steps: int
    epoch: int = 1
    losses: list[float] = field(default_factory=list)
    diverged: bool = False

    @classmethod
    def of(cls, member: Member, split: Split, **others: Any) -> Self:
        """A member at the start of its training; ``others`` are what a kind of row has besides."""
        setup = member.setup
        images = split.epoch_size(member, limit=setup.images_per_epoch)
        steps = steps_per_epoch(images, setup.batch_size)
        return cls(member=member, batch=min(setup.batch_size, images), steps=steps, **others)

    @property
    def done(self) -> int:
        """Steps of this epoch that are done."""
        return len(self.losses)

    @property
    def steps_before(self) -> int:
        """Steps of the whole training that are done."""
        return (self.epoch - 1) * self.steps + self.done

    def rates(self, count: int) -> npt.NDArray[np.float64]:
        """The learning rates of the next ``count`` steps."""
        setup, first = self.member.setup, self.steps_before
        total = setup.epochs * self.steps
        if setup.learning_rate_schedule == "constant":
            return np.full(count, learning_rate(setup, first, total))
        return np.array([learning_rate(setup, first + step, total) for step in range(count)])

    def take(self, losses: npt.NDArray[np.floating] | Sequence[float]) -> None:
        """More steps of this epoch are done, with these losses."""
        taken = np.asarray(losses, dtype=np.float64)
        self.losses += taken.tolist()
        self.diverged |= not np.isfinite(taken).all()

    def go_on(self, epoch: int, losses: npt.NDArray[np.floating] | Sequence[float] = ()) -> None:
        """In an epoch of which the steps with these losses are done."""
        self.epoch, self.losses, self.diverged = epoch, [], False
        self.take(losses)

    def state(self, weights: npt.NDArray[np.floating], optimizer: npt.NDArray[np.floating]) -> RowState:
        """Where the member is, with these arrays: see ``RowState``."""
        losses = np.array(self.losses, dtype=np.float64)
        return RowState(weights=weights, optimizer=optimizer, epoch=self.epoch, losses=losses)

    def end(self, place: int, *, finite: bool) -> EpochEnd:
        """What a pack says of this epoch at its end, which is the first step whose loss is not finite if one is.

        Args:
            place: of the row in its pack.
            finite: whether the weights are.
        """
        losses = np.array(self.losses)
        wrong = np.flatnonzero(~np.isfinite(losses))
        steps = int(wrong[0]) + 1 if len(wrong) else len(losses)
        loss = float(np.mean(losses[:steps]))
        images = steps * self.batch
        return EpochEnd(row=place, steps=self.steps, images=images, loss=loss, finite=finite and not len(wrong))

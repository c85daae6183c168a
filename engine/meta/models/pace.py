"""How training is spread over the time there is: when to validate, when to stop, at which learning rate."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Literal

Schedule = Literal["one-cycle", "constant"]

# Batches that are trained before the pace is set. The first one allocates and is not timed.
MEASURED = 3
# A budget that is too short for all epochs is divided into so many rounds at least, each ending in a validation...
ROUNDS = 12
# ... and all validations together take about this share of it.
VALIDATION_SHARE = 0.15
# Answers after training get this share of a budget at most: a model that learns nothing has nothing to say.
ANSWERING_SHARE = 0.5
# One-cycle: the share of training in which the rate rises, and where it starts.
WARM_UP, START = 0.1, 0.1


@dataclass(kw_only=True, slots=True)
class Pace:
    """Keeps time.

    Without a limit, or with one that leaves room for all epochs, the learning rate follows the count of batches,
    so that a rerun has the same bits. Else it follows the clock too, and falls to zero as the budget ends.

    Args:
        epochs: that are wanted.
        batches: of an epoch.
        seconds: the limit; None: none.
        answers: items that the net will be asked about after training, within the limit.
        schedule: ``constant``, or ``one-cycle``: a linear rise, then half a cosine down to zero (after Smith and
            Topin: "Super-convergence", 2018).

    Attributes:
        settled: whether `settle` was called.
        bound: whether the limit is too short for all epochs.
        every: batches between validations.
        done: batches trained.
    """

    epochs: int
    batches: int
    seconds: float | None
    schedule: Schedule
    answers: int = 0
    settled: bool = False
    bound: bool = False
    every: int = field(init=False)
    done: int = 0
    _begun: float = field(init=False)
    _timed: float = field(init=False, default=0.0)
    _validation: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.every = self.batches
        self._begun = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._begun

    @property
    def total(self) -> int:
        """Batches of all epochs."""
        return self.epochs * self.batches

    def batch_done(self) -> None:
        """Count a batch."""
        self.done += 1
        if self.done == 1:
            self._timed = self.elapsed

    def settle(self, validation: float, answer: float = 0.0) -> float:
        """Set the pace, after the first batches, by what they took.

        Args:
            validation: seconds that validating all validation items takes.
            answer: seconds that the net takes for one item.

        Returns:
            The share of the validation items that may be used: 1 where there is time for all.
        """
        self.settled = True
        if self.seconds is None:
            return 1.0
        self.seconds -= min(self.answers * answer, ANSWERING_SHARE * self.seconds)
        now = self.elapsed
        # A run of one batch has nothing but its first to go by.
        batch = (now - self._timed) / (self.done - 1) if self.done > 1 else now
        left = self.seconds - now
        # Machines are shared: a plan with less than a fifth to spare is no plan.
        self.bound = 1.2 * ((self.total - self.done) * batch + self.epochs * validation) > left
        if not self.bound:
            self._validation = validation
            return 1.0
        affordable = max(left, 0.0) * (1 - VALIDATION_SHARE) / batch
        self.every = min(self.batches, math.ceil(affordable / ROUNDS) or 1)
        rounds = max(affordable / self.every, 1)
        share = min(1.0, VALIDATION_SHARE * max(left, 0.0) / (rounds * validation)) if validation else 1.0
        self._validation = share * validation
        return share

    def validated(self, seconds: float) -> None:
        """Learn what a validation took, and whether the plan still holds: the machine may have become slower."""
        self._validation = seconds
        if self.seconds is not None and self.elapsed * self.total / self.done > self.seconds:
            self.bound = True

    @property
    def is_over(self) -> bool:
        """Whether there is time for a last validation only."""
        return self.seconds is not None and self.elapsed + self._validation >= self.seconds

    @property
    def share(self) -> float:
        """How much of training is done, from 0 to 1."""
        counted = self.done / self.total
        if self.bound and self.seconds is not None:
            return min(max(self.elapsed / max(self.seconds - self._validation, 1e-9), counted), 1.0)
        return counted

    @property
    def left(self) -> float:
        """Seconds still to go, about."""
        if self.bound and self.seconds is not None:
            return max(self.seconds - self.elapsed, 0.0)
        if self.done < 2:  # the first batch allocates: it says little
            return self.elapsed * (self.total - 1)
        return (self.elapsed - self._timed) / (self.done - 1) * (self.total - self.done)

    def rate(self) -> float:
        """The learning rate of the next batch, as a fraction of the highest."""
        if self.schedule == "constant":
            return 1.0
        share = self.share
        if share < WARM_UP:
            return START + (1 - START) * share / WARM_UP
        return 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))

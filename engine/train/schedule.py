"""What changes as a member trains: its learning rate, the snapshots that are kept, and when it stops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ..space import Settings, Setup

Weights = npt.NDArray[np.float32]

HELD_SNAPSHOTS = 40


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Full batches only: the rest of an epoch is dropped, unless it is all there is."""
    return max(images // batch_size, 1)


def learning_rate(setup: Setup, step: int, steps: int) -> float:
    """The rate of one step.

    Args:
        setup: rate and schedule. ``cosine`` falls from the full rate to 0 over all epochs the member may have
            (Loshchilov and Hutter, 2017, without restarts).
        step: from 0.
        steps: steps of the whole training.
    """
    if setup.learning_rate_schedule == "cosine":
        return setup.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
    return setup.learning_rate


class SnapshotKeeper:
    """Holds the weights of past epochs until it is known which of them become snapshots.

    When the number of epochs is not known in advance, weights are held at a stride that doubles whenever there
    would be more than ``held_snapshots``, so memory stays bounded; at the end the held epochs nearest to the
    wanted ones are chosen. The first (initial) and the last weights are always among them.

    Args:
        wanted: how many snapshots, evenly spread, or at which epochs.
        epochs: how many epochs the member trains at most.
        may_stop: whether it can stop earlier.

    Attributes:
        held: epoch -> weights [D].
        stride: weights are held at multiples of so many epochs, where the number of epochs is not known.
    """

    def __init__(self, wanted: int | Sequence[int], *, epochs: int, may_stop: bool) -> None:
        self._wanted = wanted
        self.held: dict[int, Weights] = {}
        self.stride = 1
        # A list of epochs, and a spread over a known number of epochs, say at once what is needed.
        spread_is_open = may_stop and isinstance(wanted, int)
        self._needed = None if spread_is_open else set(_targets(wanted, epochs))
        self._limit = held_snapshots(wanted, may_stop=may_stop)

    def keep(self, epoch: int, weights: Weights) -> None:
        """Offer the weights [D] after ``epoch`` (0: before training); they are held if they may be needed."""
        if self._needed is not None:
            if epoch in self._needed:
                self.held[epoch] = weights
        elif epoch % self.stride == 0:
            self.held[epoch] = weights
            if len(self.held) > self._limit:
                self.stride *= 2
                self.held = {held: kept for held, kept in self.held.items() if held % self.stride == 0}

    def choose(self, last_epoch: int, last_weights: Weights) -> dict[int, Weights]:
        """The snapshots of a member that has ended: epoch -> weights, epochs ascending, none twice."""
        held = {epoch: weights for epoch, weights in self.held.items() if epoch <= last_epoch}
        held[last_epoch] = last_weights
        epochs = np.array(sorted(held))
        targets = _targets(self._wanted, last_epoch)
        chosen = {int(epochs[np.abs(epochs - target).argmin()]) for target in targets}
        return {epoch: held[epoch] for epoch in sorted(chosen)}


def _targets(wanted: int | Sequence[int], last_epoch: int) -> list[int]:
    """The epochs that should have a snapshot; the last always does."""
    if isinstance(wanted, int):
        return [int(epoch) for epoch in np.round(np.linspace(0, last_epoch, wanted))]
    return [*(epoch for epoch in wanted if epoch < last_epoch), last_epoch]


def held_snapshots(wanted: int | Sequence[int], *, may_stop: bool) -> int:
    """How many snapshots of a member are in memory at most."""
    if isinstance(wanted, int):
        return max(HELD_SNAPSHOTS, 2 * wanted) if may_stop else wanted
    return len(wanted) + 1


def snapshot_count(wanted: int | Sequence[int], epochs: int) -> int:
    """How many snapshots a member of ``epochs`` epochs has."""
    return len(set(_targets(wanted, epochs)))


class StoppingCounters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What early stopping knows of a member.

    Attributes:
        epochs: validated so far.
        worse: times that the accuracy has fallen since it last rose.
        below: times that it was below its moving average.
        flat: epochs in a row without a change.
        last: the last accuracy.
        average: the moving average.
    """

    epochs: int = 0
    worse: int = 0
    below: int = 0
    flat: int = 0
    last: float = 0.0
    average: float = 0.0


class EarlyStopping:
    """The rule of "Classifying the classifier" (2020), on validation accuracy, once an epoch.

    Args:
        settings: ``min_epochs``, ``stop_worse``, ``stop_below`` and ``stop_flat``.
        counters: of a member that goes on; none for one that begins.

    Attributes:
        counters: as they stand.
    """

    def __init__(self, settings: Settings, counters: StoppingCounters | None = None) -> None:
        self._settings = settings
        self.counters = counters or StoppingCounters()

    def update(self, accuracy: float) -> bool:
        """Take the validation accuracy after one more epoch; True when the member should stop."""
        seen, rules = self.counters, self._settings
        first = seen.epochs == 0
        seen.epochs += 1
        change = 0.0 if first else accuracy - seen.last
        seen.average = accuracy if first else 0.5 * seen.average + 0.5 * accuracy
        if change < 0:
            seen.worse += 1
        elif change > 0:  # a tie neither counts nor resets
            seen.worse = 0
        seen.below += accuracy < seen.average
        seen.flat = seen.flat + 1 if not first and abs(change) < 1e-8 else 0
        seen.last = accuracy
        return seen.epochs >= rules.min_epochs and (
            seen.worse >= rules.stop_worse or seen.below >= rules.stop_below or seen.flat >= rules.stop_flat
        )

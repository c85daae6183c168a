"""A pack whose rows take turns, an epoch each: what the backends share that train one member at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..space import Member
from .backend import EpochEnd, RowState, Weights
from .row import Row


class Training(Protocol):
    """A member in training, with its weights as a backend keeps them.

    Attributes:
        row: where it is.
    """

    row: Row

    def copy(self) -> Weights:
        """Its weights in the layout's order, float32 [D]."""

    def state(self) -> RowState:
        """A copy of all that changes."""

    def restore(self, state: RowState) -> None:
        """Go on from there; it has begun with the state's weights."""

    def train_epoch(self) -> None:
        """To the end of the epoch, or to a loss that is not finite. Raises ``Interrupted`` if asked to stop."""


T = TypeVar("T", bound=Training)


class Turns(Generic[T]):
    """Members that take turns: a ``Pack`` but for ``evaluate``.

    Args:
        rows: how many members it can hold.
        begin: takes a member and weights [D]; the member at the start of its training, with a copy of them.
    """

    def __init__(self, rows: int, begin: Callable[[Member, npt.NDArray[np.floating]], T]) -> None:
        self._begin = begin
        self._rows: list[T | None] = [None] * rows
        self._turn = 0

    def place(self, row: int, member: Member, weights: Weights) -> None:
        """Put a member at the start of its training into a free row."""
        self._rows[row] = self._begin(member, weights)

    def state(self, row: int) -> RowState:
        """Where the member of a row is."""
        return self._training(row).state()

    def restore(self, row: int, member: Member, state: RowState) -> None:
        """Put a member into a free row where it was when ``state`` was taken."""
        training = self._begin(member, state.weights)
        training.restore(state)
        self._rows[row] = training

    def close(self) -> None:
        """Nothing."""

    def release(self, row: int) -> None:
        """Free a row."""
        self._rows[row] = None

    def weights(self, row: int) -> Weights:
        """A copy of a row's weights in the layout's order, float32 [D]."""
        return self._training(row).copy()

    def advance(self) -> list[EpochEnd]:
        """Train the next row for one epoch."""
        taken = [row for row, training in enumerate(self._rows) if training is not None]
        place = next((row for row in taken if row >= self._turn), taken[0])
        self._turn = place + 1
        training = self._training(place)
        training.train_epoch()
        end = training.row.end(place, finite=bool(np.isfinite(training.copy()).all()))
        training.row.go_on(training.row.epoch + 1)
        return [end]

    def _training(self, row: int) -> T:
        training = self._rows[row]
        if training is None:
            raise ValueError(f"row {row} holds no member")
        return training

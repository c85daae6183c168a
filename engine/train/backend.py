"""The seam between the trainer and what computes: a backend opens packs, a pack trains members epoch by epoch.

The trainer (``trainer.py``) owns schedules, evaluation, early stopping, snapshots and refilling; it is written
once and knows nothing of how a pack computes. A pack may hold one member or thousands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import WseError
from ..nets import Architecture
from ..space import Member, Settings
from .split import Part, Split

Weights = npt.NDArray[np.float32]


class Interrupted(Exception):  # noqa: N818 - not an error: someone asked the run to stop
    """Raised inside a pack when the run has been asked to stop."""


class DeviceMemoryError(WseError):
    """The device has too little memory for a pack."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every pack of a run shares.

    Attributes:
        settings: the space's settings.
        splits: image set name -> its split.
        should_stop: asked often; True when the run is to end, and the pack raises ``Interrupted``.
        choices: of properties, the values that members of the population may have.
    """

    settings: Settings
    splits: Mapping[str, Split]
    should_stop: Callable[[], bool]
    choices: Mapping[str, Collection[Any]] = field(default_factory=dict)

    def may_have(self, name: str, value: Any) -> bool:
        """Whether a member may have this value of a property; nobody may have said."""
        return name not in self.choices or value in self.choices[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochEnd:
    """A row has come to the end of an epoch.

    Attributes:
        row: which row.
        steps: optimizer steps of this epoch.
        images: images trained on in this epoch.
        loss: mean training loss of the epoch, l2 not counted, in nats.
        finite: whether loss and weights are all finite; if not, the member has diverged.
    """

    row: int
    steps: int
    images: int
    loss: float
    finite: bool


@dataclass(frozen=True, kw_only=True)
class RowState:
    """A member somewhere in its training: all that a pack needs to go on with it to the same bits.

    Arrays are copies in the layout's order, so that a state says nothing of how a pack keeps them.

    Attributes:
        weights: [D], float32 or what the pack computes in.
        optimizer: what the optimizer remembers, [slots, D], likewise; zero for values that it never changes.
        epoch: the epoch that the member is in, from 1.
        losses: mean loss of each step of this epoch that is done, float64 [steps done].
    """

    weights: npt.NDArray[np.floating]
    optimizer: npt.NDArray[np.floating]
    epoch: int
    losses: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Weights to be measured on a part of the member's image set.

    Attributes:
        member: whose set-up applies.
        weights: float32 [D].
        part: training, validation or test.
        faithful: measure as the original study did: with batch statistics, and on augmented images if the
            member trains on augmented images.
    """

    member: Member
    weights: Weights
    part: Part
    faithful: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A measurement.

    Attributes:
        images: how many images.
        loss: mean cross-entropy in nats.
        correct: how many were classified rightly.
        predicted: how many were assigned to each output; int64 [outputs].
    """

    images: int
    loss: float
    correct: int
    predicted: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Fraction classified rightly."""
        return self.correct / self.images


class Pack(Protocol):
    """Members of one architecture in training, each in a row."""

    def place(self, row: int, member: Member, weights: Weights) -> None:
        """Put a member at the start of its training into a free row; ``weights`` [D] are copied."""

    def state(self, row: int) -> RowState:
        """Where the member of a row is; also after ``Interrupted``, which leaves every row between two steps."""

    def restore(self, row: int, member: Member, state: RowState) -> None:
        """Put a member into a free row where it was when ``state`` was taken, from a pack of this backend."""

    def release(self, row: int) -> None:
        """Free a row."""

    def advance(self) -> list[EpochEnd]:
        """Train until at least one row ends an epoch; say which did. Raises ``Interrupted`` if asked to stop.

        A row that did may be some steps into its next epoch by then. Until the next call ``weights`` are those it
        ended its epoch with.
        """

    def weights(self, row: int) -> Weights:
        """A copy of a row's weights in the layout's order, float32 [D]."""

    def evaluate(self, requests: Sequence[EvaluationRequest]) -> list[Evaluation]:
        """Measure weights; results in the order of the requests. Raises ``Interrupted`` if asked to stop."""

    def close(self) -> None:
        """Let go of what it holds of a device; nothing is asked of it afterwards."""


def tell_user(line: str) -> None:
    """What a backend says while it prepares, unless somebody else wants to hear it."""
    print(line, file=sys.stderr, flush=True)


class Backend(Protocol):
    """Something that can train.

    Attributes:
        name: ``reference``, ``cpu`` or ``cuda``; recorded in the zoo.
        precision: of the arithmetic, such as ``fp32``; recorded in the zoo.
        workers: how many packs to train at the same time on a device that they share; None: one for each core.
        members_per_pack: how many members a pack gets in all, or as many as rows if these are more; None: all of
            an architecture.
    """

    name: str
    precision: str
    workers: int | None
    members_per_pack: int | None

    def rows(self, architecture: Architecture, members: Sequence[Member], packs: int = 1) -> int:
        """How many of a pack's members should train side by side, if so many packs train at the same time."""

    @property
    def preparing(self) -> float | None:
        """While it prepares, before its first training: how much of that is done, from 0 to 1."""

    def prepare(self, architectures: Collection[Architecture], context: Context) -> None:
        """What is better done once for all packs, before they are opened; a pack does without.

        Args:
            architectures: of the packs.
            context: what they share.
        """

    def open(self, architecture: Architecture, rows: int, context: Context) -> Pack:
        """A pack with ``rows`` free rows for members of one architecture."""

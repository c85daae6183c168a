"""The seam between a run and where its members train: threads of this process, or a place of ``engine/scale``."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..zoo import MemberResult
from .log import Event
from .trainer import Work

if TYPE_CHECKING:
    from .checkpoints import Checkpoints
    from .run import Run


@dataclass(frozen=True, kw_only=True)
class Report:
    """What has come of the training since the last report of the same worker.

    Attributes:
        result: a member that has ended.
        work: what has been done.
        preparing: while the worker prepares, how much of that is done, from 0 to 1.
        events: for the log.
    """

    result: MemberResult | None = None
    work: Work = field(default_factory=Work)
    preparing: float | None = None
    events: tuple[Event, ...] = ()


class Executor(Protocol):
    """Trains members somewhere. The run that asks it alone writes the zoo."""

    def workers(self, run: Run) -> int:
        """How many packs are trained at the same time, by all processes together.

        Raises:
            UsageError: what the executor needs is not here.
            WseError: it does not answer.
        """

    def reports(self, run: Run, members: Collection[int], checkpoints: Checkpoints) -> Generator[Report]:
        """Train members; each comes in one report, in any order, and reports without a member in between.

        Once ``run.is_stopping`` members in training are checkpointed, and the reports end. When they end, or are
        closed, nothing that was begun is left running.

        Args:
            run: whose members.
            members: their ids.
            checkpoints: where members in training are kept, and found again.

        Raises:
            WseError: members could not be trained, though tried again.
        """

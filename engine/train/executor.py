"""The seam between a run and where its members train (``engine/scale``)."""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import TYPE_CHECKING, Protocol

from ..zoo import MemberResult

if TYPE_CHECKING:
    from .run import Run


class Executor(Protocol):
    """Trains members somewhere. The run that asks it alone writes the zoo."""

    def workers(self, run: Run) -> int:
        """How many packs are trained at the same time, by all processes together."""

    def results(self, run: Run, members: Collection[int]) -> Generator[MemberResult]:
        """Train members, each exactly once in what comes back; results in any order.

        Ends early once ``run.is_stopping``; when it ends, or is closed, nothing that it started is left running.
        What is done elsewhere is told to ``run.count``.

        Args:
            run: whose members.
            members: their ids.

        Raises:
            UsageError: what the executor needs is not here.
            WseError: members could not be trained, though tried again.
        """

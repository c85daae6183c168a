"""What every contender is: something that trains a workload's members, in processes and lanes of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from ..train.backend import Weights
from .workload import Precision, Workload

Kind = Literal["ours", "pytorch"]


class Job(Protocol):
    """A piece of work that can be repeated, such as an epoch of one member.

    Attributes:
        images: trained on by one call.
        work: of one call: useful FLOPs, or bytes where memory is measured.
    """

    images: int
    work: float

    def start(self) -> None:
        """Go back to the beginning; not timed."""

    def __call__(self) -> None:
        """Do the work once."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What two steps made of a member.

    Attributes:
        member: its id.
        loss: mean loss of the two batches, in nats.
        weights: float32 [D] in the layout's order.
    """

    member: int
    loss: float
    weights: Weights


@dataclass(frozen=True, kw_only=True)
class Contender(ABC):
    """Something whose speed is measured; it is sent to the processes it runs in, so it holds little.

    Attributes:
        name: for the command line and results.
        label: for the table, at most 30 characters.
        processes: how many work side by side.
        lanes: threads in each process, every one with jobs of its own.
        torch_threads: that PyTorch may use inside one operation.
        precision: of its products.
        kind: whether it is ours, or what a user would run instead.
    """

    name: str
    label: str
    processes: int = 1
    lanes: int = 1
    torch_threads: int = 1
    precision: Precision = "fp32"
    kind: ClassVar[Kind]

    def why_not(self, workload: Workload) -> str | None:
        """Why this contender cannot train the workload here; None if it can."""
        return None

    def least_bytes(self, workload: Workload) -> float | None:
        """Bytes through the device's memory that its kernels cannot do without, a sample; None: not known."""
        return None

    def shares(self, jobs: Sequence[Job]) -> Mapping[str, float]:
        """What share of the device's time each of its kernels has; empty where nobody asks."""
        return {}

    @abstractmethod
    def jobs(self, workload: Workload, lane: int, lanes: int) -> Sequence[Job]:
        """The jobs of one of ``lanes`` lanes, counted over all processes; it does them in turn."""

    @abstractmethod
    def outcomes(self, workload: Workload) -> list[Outcome]:
        """What this contender makes of its ``workload.checked`` members on the images of ``workload.checking``."""

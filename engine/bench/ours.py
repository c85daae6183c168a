"""Our backends as contenders, through the seam that a run uses: a pack a thread, an epoch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import UsageError, WseError
from ..nets import training_flops
from ..space import Member
from ..train import Backend, Pack, backend_for
from .contender import Contender, Job, Kind, Outcome
from .workload import Workload

# The names a backend may have; which of them are here `backend_for` knows.
_DEVICES = ("reference", "cpu")


def devices() -> list[str]:
    """The devices that a run on this machine's processor can name."""
    return [name for name in _DEVICES if _is_offered(name)]


def _is_offered(device: str) -> bool:
    try:
        backend_for(device)
    except UsageError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Ours(Contender):
    """A backend, as ``wse generate`` uses it: members with everything their set-up says."""

    device: str
    kind: ClassVar[Kind] = "ours"

    def jobs(self, workload: Workload, lane: int, lanes: int) -> Sequence[Job]:
        """An epoch of each of the lane's members."""
        backend = backend_for(self.device)
        return [_Epoch(backend, workload, member) for member in workload.share(lane, lanes)]

    def outcomes(self, workload: Workload) -> list[Outcome]:
        """What an epoch of two steps makes of the members."""
        backend, members = backend_for(self.device), workload.checked(self.precision)
        backend.prepare({member.architecture for member in members}, workload.checking)
        return [outcome(backend, workload, member) for member in members]


def outcome(backend: Backend, workload: Workload, member: Member) -> Outcome:
    """What a backend makes of a member in one epoch."""
    pack = backend.open(member.architecture, 1, workload.checking)
    pack.place(0, member, workload.initial_weights(member))
    (end,) = pack.advance()
    return Outcome(member=member.id, loss=end.loss, weights=pack.weights(0))


class _Epoch:
    """An epoch of one member in a pack of its own."""

    def __init__(self, backend: Backend, workload: Workload, member: Member) -> None:
        assert member.setup.images_per_epoch is not None  # noqa: S101 - a workload sees to it
        self.images = member.setup.images_per_epoch
        self.work = float(self.images * training_flops(member.architecture))
        self._member, self._weights = member, workload.initial_weights(member)
        self._pack: Pack = backend.open(member.architecture, 1, workload.context)
        self._is_placed = False

    def start(self) -> None:
        if self._is_placed:
            self._pack.release(0)
        self._pack.place(0, self._member, self._weights)
        self._is_placed = True

    def __call__(self) -> None:
        (end,) = self._pack.advance()
        if not end.finite or end.images != self.images:
            raise WseError(
                f"member {self._member.id} trained on {end.images} of {self.images} images: it diverged"
            )

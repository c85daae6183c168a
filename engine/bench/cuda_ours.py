"""Our CUDA backend as a contender: packs of members through the seam that a run uses."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ..errors import WseError
from ..nets import training_flops
from ..space import Member
from ..train import Context
from ..train.backend import DeviceMemoryError
from ..train.cuda import CudaBackend
from ..train.cuda_pack import CudaPack
from .contender import Contender, Job, Kind, Outcome
from .kernel_shares import kernel_shares
from .traffic import least_bytes
from .workload import Workload


@dataclass(frozen=True, kw_only=True)
class OursOnCuda(Contender):
    """Packs of members with everything their set-up says.

    Attributes:
        members: in all; of a mixed workload each architecture has a pack with its share.
        device: where, as PyTorch names it; "cpu" where Triton's kernels run in its interpreter.
        evaluation_images: see ``CudaBackend``.
    """

    members: int
    device: str = "cuda"
    evaluation_images: int | None = None
    kind: ClassVar[Kind] = "ours"

    def jobs(self, workload: Workload, lane: int, lanes: int) -> Sequence[Job]:
        """Some epochs of each pack."""
        packs = workload.packs(self.members)
        backend = self._backend(packs, workload.repeated)
        return [_Packed(backend, workload, members, self.device) for members in packs]

    def outcomes(self, workload: Workload) -> list[Outcome]:
        """What an epoch of two steps makes of the members, in full packs."""
        packs, checked = workload.packs(self.members), workload.checked(self.precision)
        backend = self._backend(packs, workload.checking)
        outcomes: dict[int, Outcome] = {}
        for pack in packs:
            there = {member.id: member for member in checked}
            members = [there.get(member.id, member) for member in pack]
            wanted = [row for row, member in enumerate(members) if member.id in there]
            outcomes |= _outcomes(backend, workload, members, wanted)
        return [outcomes[member.id] for member in checked]

    def least_bytes(self, workload: Workload) -> float:
        """The mean of the packs' samples."""
        packs = workload.packs(self.members)
        moved, images = 0.0, 0
        for members in packs:
            batches = [member.setup.batch_size for member in members]
            moved += least_bytes(members[0].architecture, batches, 2 if self.precision == "bf16" else 4)
            images += sum(batches)
        return moved / images

    def shares(self, jobs: Sequence[Job]) -> Mapping[str, float]:
        """By PyTorch's profiler."""
        return kernel_shares(jobs, self.device)

    def _backend(self, packs: Sequence[Sequence[Member]], context: Context) -> CudaBackend:
        precision: Literal["bf16", "fp32"] = "bf16" if self.precision == "bf16" else "fp32"
        backend = CudaBackend(precision, device=self.device, evaluation_images=self.evaluation_images)
        backend.prepare({members[0].architecture for members in packs}, context)
        return backend


def _outcomes(
    backend: CudaBackend, workload: Workload, members: Sequence[Member], wanted: Sequence[int]
) -> dict[int, Outcome]:
    """What their first epochs make of some rows of a pack, by member."""
    pack = _filled(backend, workload, workload.checking, members, wanted)
    outcomes: dict[int, Outcome] = {}
    while len(outcomes) < len(wanted):
        for end in pack.advance():
            member = members[end.row]
            if end.row in wanted and member.id not in outcomes:
                outcomes[member.id] = Outcome(member=member.id, loss=end.loss, weights=pack.weights(end.row))
    return outcomes


def _filled(
    backend: CudaBackend,
    workload: Workload,
    context: Context,
    members: Sequence[Member],
    wanted: Collection[int],
) -> CudaPack:
    """A full pack. Rows that nobody asks for begin with the first member's weights: to draw so many takes long."""
    fits = backend.rows(members[0].architecture, members)
    if fits < len(members):
        raise DeviceMemoryError(
            f"{len(members)} members of {members[0].architecture.name} do not fit: {fits} would"
        )
    pack = backend.open(members[0].architecture, len(members), context)
    some = workload.initial_weights(members[0])
    for row, member in enumerate(members):
        pack.place(row, member, workload.initial_weights(member) if row in wanted else some)
    return pack


class _Packed:
    """Epochs of the members of one pack, until all end one together."""

    def __init__(self, backend: CudaBackend, workload: Workload, members: Sequence[Member], device: str) -> None:
        batches = [member.setup.batch_size for member in members]
        epochs = [member.setup.images_per_epoch or 0 for member in members]  # a workload says how many
        steps = math.lcm(*(images // batch for images, batch in zip(epochs, batches, strict=True)))
        self.images = steps * sum(batches)
        self.work = float(self.images * training_flops(members[0].architecture))
        self._members, self._device = members, torch.device(device)
        self._pack = _filled(backend, workload, workload.repeated, members, {0})
        self._has_begun = False

    def start(self) -> None:
        """The first time, steps that do not count: tables are written, kernels loaded and the graph captured.

        Members go on from where they are: speed does not depend on weights, and thousands take long to place.
        """
        if not self._has_begun:
            self()
            self._has_begun = True

    def __call__(self) -> None:
        images = 0
        while images < self.images:
            for end in self._pack.advance():
                if not end.finite:
                    raise WseError(f"member {self._members[end.row].id} diverged")
                images += end.images
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # snapshots too
        if images != self.images:
            raise WseError(f"{images} images were trained on where {self.images} were to be")

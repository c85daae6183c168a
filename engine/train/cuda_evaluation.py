"""Measures weights on parts of image sets, as many requests side by side as there is room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wse.kernels.activation import ACTIVATION_CODES
from wse.kernels.loss.triton import cross_entropy, tally
from wse.kernels.packs import Pack
from wse.kernels.transfer import sent, write

from ..space import Member
from .backend import Context, Evaluation, EvaluationRequest, Interrupted, Weights
from .cuda_device import Device, Fetched
from .cuda_layout import ArenaLayout
from .cuda_network import Network, Scene
from .cuda_tables import ResidentImages, address
from .split import EVALUATION_EPOCHS, Part

_MOST_TOGETHER = 256  # requests; with more, each would have few images at a time
_BATCHES_AHEAD = 2  # launched while one is at work; with many, a device's queue would be full for everybody


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """A request, and what it takes.

    Attributes:
        number: of the request.
        request: the request.
        weights: as a row of the arena.
        indices: int32, which of the resident images.
        images: how many of them at a time.
    """

    number: int
    request: EvaluationRequest
    weights: Weights
    indices: npt.NDArray[np.int32]
    images: int


class Evaluator:
    """Evaluates in the memory of a network that is not training at the moment.

    Args:
        network: the network.
        layout: of a row of the arena.
        context: what the run shares.
        resident: the image sets.
        device: where.
    """

    def __init__(
        self,
        network: Network,
        layout: ArenaLayout,
        context: Context,
        resident: ResidentImages,
        device: Device,
    ) -> None:
        self._network, self._layout, self._context, self._resident = network, layout, context, resident
        self._device = device
        self._chosen: dict[tuple[int, Part], npt.NDArray[np.int32]] = {}

    def evaluate(self, requests: Sequence[EvaluationRequest], weights: Sequence[Weights]) -> list[Evaluation]:
        """Measure.

        Args:
            requests: what to measure.
            weights: of each request, as a row of the arena.

        Raises:
            Interrupted: the run was asked to stop.
        """
        done: dict[int, Evaluation] = {}
        for group in self._groups(requests, weights):
            done |= self._measure(group)
        return [done[number] for number in range(len(requests))]

    def _groups(self, requests: Sequence[EvaluationRequest], weights: Sequence[Weights]) -> Iterator[list[_Job]]:
        """Jobs to do side by side: none of them faithful, or all."""
        together = min(_MOST_TOGETHER, self._network.images)
        plain = [number for number, request in enumerate(requests) if not request.faithful]
        for first in range(0, len(plain), together):
            chosen = plain[first : first + together]
            images = self._network.images // len(chosen)
            yield [self._job(number, requests[number], weights[number], images) for number in chosen]
        group: list[_Job] = []
        for number, request in enumerate(requests):
            if not request.faithful:
                continue
            job = self._job(number, request, weights[number], request.member.setup.batch_size)
            if group and sum(other.images for other in group) + job.images > self._network.images:
                yield group
                group = []
            group.append(job)
        if group:
            yield group

    def _job(self, number: int, request: EvaluationRequest, weights: Weights, images: int) -> _Job:
        indices = self._indices(request.member, request.part)
        return _Job(
            number=number,
            request=request,
            weights=weights,
            indices=indices,
            images=min(images, len(indices)),
        )

    def _indices(self, member: Member, part: Part) -> npt.NDArray[np.int32]:
        """Which images; remembered, because all of a member's snapshots are measured on the same."""
        if (member.id, part) not in self._chosen:
            name = member.setup.dataset
            _, indices = self._context.splits[name].evaluated(member, part, self._context.settings)
            self._chosen[member.id, part] = (indices + self._resident.first(name, part)).astype(np.int32)
        return self._chosen[member.id, part]

    def _measure(self, jobs: list[_Job]) -> dict[int, Evaluation]:
        with self._device.turn():
            measuring = self._measuring(jobs)
        under_way: deque[Fetched] = deque()
        for chosen, addresses in self._batches(jobs):
            if self._context.should_stop():
                raise Interrupted
            with self._device.turn():
                under_way.append(Fetched(*measuring.launch(chosen, addresses)))
            if len(under_way) > _BATCHES_AHEAD:
                under_way.popleft().wait()
        sums, correct, predicted = under_way[-1].wait()
        return {
            job.number: Evaluation(
                images=len(job.indices),
                loss=float(sums[row]) / len(job.indices),
                correct=int(correct[row]),
                predicted=predicted[row].astype(np.int64),
            )
            for row, job in enumerate(jobs)
        }

    def _measuring(self, jobs: list[_Job]) -> Measuring:
        device, is_faithful = self._device.torch, jobs[0].request.faithful
        setups = [job.request.member.setup for job in jobs]
        return Measuring(
            sent(np.stack([job.weights for job in jobs]), torch.float32, device),
            sum(job.images for job in jobs),
            network=self._network,
            layout=self._layout,
            resident=self._resident,
            codes=[ACTIVATION_CODES[setup.activation] for setup in setups],
            augments=[is_faithful and setup.augmentation for setup in setups],
            batch_statistics=is_faithful,
            gelu=self._context.may_have("activation", "gelu"),
        )

    def _batches(self, jobs: list[_Job]) -> Iterator[tuple[list[npt.NDArray[np.int32]], npt.NDArray[np.int64]]]:
        """The images of each job, and the addresses of their draws, until all are measured."""
        for batch in range(max(-(-len(job.indices) // job.images) for job in jobs)):
            firsts = [batch * job.images for job in jobs]
            chosen = [job.indices[first : first + job.images] for first, job in zip(firsts, jobs, strict=True)]
            addresses = [
                (*address(job.request.member), EVALUATION_EPOCHS[job.request.part], first)
                for first, job in zip(firsts, jobs, strict=True)
            ]
            yield chosen, np.array(addresses, dtype=np.int64)


class Measuring:
    """Weights side by side, measured on a batch of images of each at a time.

    Args:
        arena: the weights, float32 [P, D].
        images: how many images a batch may have.
        network: has room for as many.
        layout: of a row of the arena.
        resident: the image sets.
        codes: of the activations, [P].
        augments: whether images are augmented, [P].
        batch_statistics: whether to normalise by the batch's statistics.
        gelu: whether a member of the population may have GELU.
    """

    def __init__(
        self,
        arena: Tensor,
        images: int,
        *,
        network: Network,
        layout: ArenaLayout,
        resident: ResidentImages,
        codes: Sequence[int],
        augments: Sequence[bool],
        batch_statistics: bool,
        gelu: bool,
    ) -> None:
        members, device = len(arena), arena.device
        self._network, self._resident = network, resident
        self._scene = Scene(
            pack=Pack(members=members, images=images, device=device),
            weights=layout.views(arena),
            gradient={},
            codes=sent(codes, torch.int32, device),
            addresses=torch.zeros(members, 4, dtype=torch.int64, device=device),
            levels=torch.zeros(members, dtype=torch.int32, device=device),
            scales=torch.ones(members, device=device),
            drops=False,
            batch_statistics=batch_statistics,
            gelu=gelu,
        )
        self._augment = any(augments)
        self._augments = sent(augments, torch.int32, device)
        self._indices = torch.zeros(images, dtype=torch.int32, device=device)
        self._answers = torch.zeros_like(self._indices)
        self._losses = torch.zeros(images, device=device)
        self._sums = torch.zeros(members, dtype=torch.float64, device=device)
        self._correct = torch.zeros(members, dtype=torch.int32, device=device)
        self._predicted = torch.zeros(members, network.architecture.outputs, dtype=torch.int32, device=device)

    def launch(
        self, chosen: Sequence[npt.NDArray[np.int32]], addresses: npt.NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Begin a batch.

        Args:
            chosen: images of each member, int32.
            addresses: of their draws, [P, 4].

        Returns:
            What will be known so far: the losses' sums, float64 [P], how many were right, int32 [P], and how many
            got each answer, int32 [P, outputs].
        """
        network, scene, pack, resident = self._network, self._scene, self._scene.pack, self._resident
        pack.lay([0, *np.cumsum([len(batch) for batch in chosen])])
        batch = np.concatenate(chosen)
        write(self._indices[: len(batch)], batch)
        write(scene.addresses, addresses)
        network.read(
            scene,
            images=resident.images,
            indices=self._indices,
            augments=self._augments,
            augment=self._augment,
        )
        network.forward(scene)
        tables = {
            "indices": self._indices,
            "labels": resident.labels,
            "losses": self._losses,
            "answers": self._answers,
        }
        cross_entropy(network.logits, pack, **tables, outputs=network.architecture.outputs, gradient=None)
        tally(self._sums, self._correct, self._predicted, pack, **tables)
        return self._sums, self._correct, self._predicted

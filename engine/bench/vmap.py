"""``torch.func.vmap``: the members of a pack in one set of batched operations, their weights stacked.

Batch normalisation uses batch statistics and keeps no running ones, because vmap cannot change buffers in place;
so this contender does slightly less than the others. Each member has its own weights, images, order and dropout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional

from ..nets import Layout, training_flops
from ..space import Member
from ..train import Context
from ..train.backend import Weights
from .contender import Contender, Job, Kind, Outcome
from .module import stored, write_module, written
from .plain import let_products_be, optimizer, products, resident
from .workload import PACK, Precision, Workload, simplified


@dataclass(frozen=True, kw_only=True)
class Vmap(Contender):
    """``vmap`` and ``grad_and_value`` over a pack of members, one process with all threads.

    Attributes:
        members: of the pack.
        device: where, as PyTorch names it.
    """

    members: int = PACK
    device: str = "cpu"
    kind: ClassVar[Kind] = "pytorch"

    def why_not(self, workload: Workload) -> str | None:
        """Members that are trained in one operation share everything but their weights."""
        return "members differ in architecture and set-up" if workload.spec.is_mixed else None

    def jobs(self, workload: Workload, lane: int, lanes: int) -> Sequence[Job]:
        """An epoch of the pack; on the processor with as many images in all as one member has elsewhere."""
        members = workload.members[: self.members]
        if self.device == "cpu":
            members = [_shortened(member) for member in members]
        return [self._training(workload, workload.context, members)]

    def outcomes(self, workload: Workload) -> list[Outcome]:
        """What two steps make of the members, without dropout and in the order of the first epoch."""
        members = [simplified(member) for member in workload.checked(self.precision)]
        training = self._training(workload, workload.checking, members)
        training.start()
        order = torch.arange(training.images // len(members), device=self.device).expand(len(members), -1)
        losses, weights = training.epoch(order), training.weights()
        return [
            Outcome(member=member.id, loss=float(loss), weights=row)
            for member, loss, row in zip(members, losses, weights, strict=True)
        ]

    def _training(self, workload: Workload, context: Context, members: Sequence[Member]) -> PackTraining:
        return PackTraining(workload, context, members, device=self.device, precision=self.precision)


class PackTraining:
    """Members of one set-up with stacked weights [P, ...] and one optimizer for all.

    Args:
        workload: initial weights.
        context: settings and image sets.
        members: at most a pack.
        device: where.
        precision: of products.
    """

    def __init__(
        self,
        workload: Workload,
        context: Context,
        members: Sequence[Member],
        *,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        self.device, self.precision = device, precision
        let_products_be(precision, device)
        first = members[0]
        self._setup, self._settings = first.setup, context.settings
        self._layout = Layout(first.architecture)
        self._initial = [workload.initial_weights(member) for member in members]
        self._module = write_module(first.architecture, first.setup, running_statistics=False)
        self._module.to(device)
        images, labels = zip(*(resident(context, member, device) for member in members), strict=True)
        self._images, self._labels = torch.stack(images), torch.stack(labels)  # [P, n, C, 32, 32], [P, n]
        self.images = self._labels.numel()
        self.work = float(self.images * training_flops(first.architecture))
        self._rows = torch.arange(len(members), device=device).unsqueeze(1)
        self._gradient = vmap(grad_and_value(self._loss), randomness="different")

    def start(self) -> None:
        """The initial weights, stacked, and a new optimizer."""
        tensors = [written(self._module, self._layout, weights) for weights in self._initial]
        self._stacked = {
            name: torch.stack([row[name] for row in tensors]).to(self.device).requires_grad_()
            for name in tensors[0]
        }
        self._optimizer = optimizer(self._stacked.values(), self._setup, self._settings)

    def __call__(self) -> None:
        """An epoch, each member in a new order."""
        self.epoch(torch.rand(self._labels.shape, device=self.device).argsort(dim=1))

    def epoch(self, order: Tensor) -> Tensor:
        """Train each member on its images in its order [P, n]; the mean losses [P], on the host."""
        losses = [
            self.step(self._images[self._rows, batch], self._labels[self._rows, batch])
            for batch in order.split(self._setup.batch_size, dim=1)  # type: ignore[no-untyped-call]
        ]
        return torch.stack(losses).mean(dim=0).cpu()

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train each member on a batch [P, n, C, 32, 32] with labels [P, n]; the losses [P]."""
        values = {name: stack.detach() for name, stack in self._stacked.items()}
        loss: Tensor
        with products(self.precision, self.device):
            gradients, loss = self._gradient(values, images, labels)
        for name, stack in self._stacked.items():
            stack.grad = gradients[name]
        self._optimizer.step()
        return loss

    def weights(self) -> list[Weights]:
        """As they are now, float32 [D] a member."""
        return [
            stored(
                self._module, self._layout, {name: stack[row] for name, stack in self._stacked.items()}, initial
            )
            for row, initial in enumerate(self._initial)
        ]

    def _loss(self, tensors: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(self._module, tensors, (images,)), labels)


def _shortened(member: Member) -> Member:
    """The member with a sixteenth of its epoch, but at least a batch."""
    setup = member.setup
    assert setup.images_per_epoch is not None  # noqa: S101 - a workload sees to it
    batches = max(setup.images_per_epoch // setup.batch_size // PACK, 1)
    setup = msgspec.structs.replace(setup, images_per_epoch=batches * setup.batch_size)
    return dataclasses.replace(member, setup=setup)

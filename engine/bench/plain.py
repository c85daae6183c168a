"""Plain PyTorch, the way people write it: a module of stock layers, an optimizer of ``torch.optim``, a loop.

Images stay resident as float tensors, already as the network wants them (grey, scaled), and are not augmented.
Biases that a batch normalisation would cancel are left out, as usual.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wse.kernels.inputs import gather

from ..nets import Layout, training_flops
from ..space import Member, Settings, Setup
from ..train import Context
from ..train.backend import Weights
from .contender import Contender, Job, Kind, Outcome
from .module import stored, write_module, written
from .workload import Precision, Workload, simplified


@dataclass(frozen=True, kw_only=True)
class Plain(Contender):
    """Plain PyTorch, a member at a time.

    Attributes:
        channels_last: keep images and weights in channels-last memory.
        compiled: run the module through ``torch.compile``.
        device: where, as PyTorch names it.
    """

    channels_last: bool = False
    compiled: bool = False
    device: str = "cpu"
    kind: ClassVar[Kind] = "pytorch"

    def why_not(self, workload: Workload) -> str | None:
        """``torch.compile`` needs a compiler, and takes too long where every member has its own architecture."""
        if self.compiled and not any(map(shutil.which, ("g++", "clang++", "c++"))):
            return "no C++ compiler"
        if self.compiled and len(workload.architectures) > 1:
            return f"would compile {len(workload.architectures)} architectures"
        return None

    def jobs(self, workload: Workload, lane: int, lanes: int) -> Sequence[Job]:
        """An epoch of each of the lane's members."""
        return [self._training(workload, workload.context, member) for member in workload.share(lane, lanes)]

    def outcomes(self, workload: Workload) -> list[Outcome]:
        """What two steps make of the members, without dropout and in the order of the first epoch."""
        outcomes = []
        for member in map(simplified, workload.checked(self.precision)):
            training = self._training(workload, workload.checking, member)
            training.start()
            loss = training.epoch(torch.arange(training.images))
            weights = training.weights()
            outcomes.append(Outcome(member=member.id, loss=loss, weights=weights))
        return outcomes

    def _training(self, workload: Workload, context: Context, member: Member) -> Training:
        return Training(
            workload,
            context,
            member,
            channels_last=self.channels_last,
            compiled=self.compiled,
            device=self.device,
            precision=self.precision,
        )


class Training:
    """A member's module, optimizer and resident images.

    Args:
        workload: initial weights.
        context: settings and image sets.
        member: its set-up; augmentation is not done.
        channels_last: the memory format.
        compiled: whether forward and backward are compiled.
        device: where.
        precision: of products.
    """

    def __init__(
        self,
        workload: Workload,
        context: Context,
        member: Member,
        *,
        channels_last: bool = False,
        compiled: bool = False,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        self.device, self.precision = device, precision
        let_products_be(precision, device)
        self._setup, self._settings = member.setup, context.settings
        layout = Layout(member.architecture)
        self._layout, self._weights = layout, workload.initial_weights(member)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.module = write_module(member.architecture, member.setup).to(device)
        self.module.to(memory_format=self._format)  # type: ignore[call-overload]
        self._images, self._labels = resident(context, member, device)
        self._images = self._images.contiguous(memory_format=self._format)
        self.images = len(self._images)
        self.work = float(self.images * training_flops(member.architecture))
        self._forward: Callable[[Tensor], Tensor] = self.module
        if compiled:
            from torch._inductor import config

            config.compile_threads = 1  # in this process: no pool that outlives it
            self._forward = torch.compile(self.module)

    def start(self) -> None:
        """The initial weights and a new optimizer."""
        self.load_initial()
        self._optimizer = self.new_optimizer()

    def load_initial(self) -> None:
        """Copy the initial weights into the module."""
        self.module.load_state_dict(written(self.module, self._layout, self._weights), strict=False)

    def new_optimizer(self) -> torch.optim.Optimizer:
        """An optimizer at its start."""
        return optimizer(self.module.parameters(), self._setup, self._settings)

    def __call__(self) -> None:
        """An epoch in a new order."""
        self.epoch(torch.randperm(self.images, device=self.device))

    def weights(self) -> Weights:
        """As they are now, float32 [D]."""
        return stored(self.module, self._layout, self.module.state_dict(), self._weights)

    def epoch(self, order: Tensor) -> float:
        """Train on the resident images in this order; the mean loss of the batches, which a GPU is waited for."""
        return float(self.losses(order).mean())

    def losses(self, order: Tensor) -> Tensor:
        """Train on the resident images in this order; the losses of the batches, which a GPU may still owe."""
        return torch.stack([self.step(batch) for batch in order.split(self._setup.batch_size)])  # type: ignore[no-untyped-call]

    def step(self, batch: Tensor) -> Tensor:
        """Train on the images of a batch; its loss."""
        self._optimizer.zero_grad()
        with products(self.precision, self.device):
            loss = functional.cross_entropy(self._forward(self._images[batch]), self._labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()


def let_products_be(precision: Precision, device: str) -> None:
    """Let products of float32 on a GPU be of TF32 where that is wanted, and cuDNN choose by measuring.

    For the whole process: a contender has its own.
    """
    if torch.device(device).type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.benchmark = True


def products(precision: Precision, device: str) -> AbstractContextManager[object]:
    """Where the forward pass is computed: with bf16, under autocast.

    Without its cache of cast weights, which a captured graph would read when they have changed.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def resident(context: Context, member: Member, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """The images of a member's first epoch as its network wants them, float32 [n, C, 32, 32], and labels [n]."""
    setup, wanted = member.setup, member.architecture.input
    split = context.splits[setup.dataset]
    indices = split.epoch_indices(member, 1, limit=setup.images_per_epoch)
    images = gather(split.images.train_images, indices)
    if wanted.color == "grey":
        luma = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
        images = (images * luma).sum(dim=1, keepdim=True)
    labels = torch.from_numpy(split.images.train_labels[indices].astype(np.int64))
    images = images * (wanted.high - wanted.low) + wanted.low
    return images.to(device), labels.to(device)


def optimizer(
    parameters: Iterable[Tensor], setup: Setup, settings: Settings, *, captured: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of ``torch.optim`` that the set-up names, in its fastest form on a GPU.

    Args:
        parameters: what it trains.
        setup: optimizer and learning rate.
        settings: the momentum.
        captured: whether its step is captured as a CUDA graph, so that it counts steps on the device.
    """
    parameters = list(parameters)
    fused = True if parameters[0].is_cuda else None
    match setup.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, lr=setup.learning_rate, fused=fused, capturable=captured)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=setup.learning_rate, capturable=captured)
        case "momentum":
            return torch.optim.SGD(parameters, lr=setup.learning_rate, momentum=settings.momentum, fused=fused)
        case "sgd":
            return torch.optim.SGD(parameters, lr=setup.learning_rate, fused=fused)

"""The reference backend: plain PyTorch, one member at a time. It is the judge of every other backend."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from wse.kernels.inputs import augment, gather
from wse.kernels.optim import add_l2, decay, initial_state, step
from wse.kernels.philox import keep_mask, keep_probability

from ..nets import Architecture, Layout
from ..nets.module import Network
from ..nets.rounded import RoundedNetwork
from ..space import Member
from .backend import Context, Evaluation, EvaluationRequest, Interrupted, RowState, Weights
from .row import Row
from .split import EVALUATION_EPOCHS, Images, Indices
from .turns import Turns

EVALUATION_BATCH = 100  # larger ones leave the cache and are slower


class ReferenceBackend:
    """One member at a time, one thread a pack. PyTorch computes with one thread in this process from then on.

    Args:
        dtype: float32, or float64 to judge other backends by.
        rounded: whether values between layers are bfloat16 wherever the CUDA backend stores them so.
    """

    name = "reference"
    preparing = None
    workers: int | None = None
    members_per_pack: int | None = 1

    def __init__(self, dtype: torch.dtype = torch.float32, *, rounded: bool = False) -> None:
        self._dtype = dtype
        self._kind = RoundedNetwork if rounded else Network
        self.precision = "bf16" if rounded else {torch.float32: "fp32", torch.float64: "fp64"}[dtype]

    def prepare(self, architectures: Collection[Architecture], context: Context) -> None:
        """Nothing."""

    def rows(self, architecture: Architecture, members: Sequence[Member], packs: int = 1) -> int:
        """One: rows take turns, so more of them gain nothing."""
        return 1

    def open(self, architecture: Architecture, rows: int, context: Context) -> ReferencePack:
        """A pack whose rows take turns, an epoch each."""
        torch.set_num_threads(1)  # more threads change the order of sums, and gain little on nets this small
        return ReferencePack(architecture, rows, context, self._dtype, self._kind)


class ReferencePack(Turns["_Training"]):
    """Members of one architecture that take turns, an epoch each.

    Args:
        architecture: what they share.
        rows: how many members it can hold.
        context: what the run shares.
        dtype: of all arithmetic.
        kind: of network.
    """

    def __init__(
        self,
        architecture: Architecture,
        rows: int,
        context: Context,
        dtype: torch.dtype = torch.float32,
        kind: type[Network] = Network,
    ) -> None:
        self._layout = Layout(architecture)
        self._context, self._dtype, self._kind = context, dtype, kind
        super().__init__(rows, partial(_Training, self._layout, context, dtype, kind))

    def evaluate(self, requests: Sequence[EvaluationRequest]) -> list[Evaluation]:
        """Measure weights, one request after the other."""
        return [_evaluate(self._layout, self._context, request, self._dtype, self._kind) for request in requests]


class _Training:
    """One member in training: its weights as one flat vector that the network's tensors are views of."""

    def __init__(
        self,
        layout: Layout,
        context: Context,
        dtype: torch.dtype,
        kind: type[Network],
        member: Member,
        weights: npt.NDArray[np.floating],
    ) -> None:
        setup, settings = member.setup, context.settings
        self._context = context
        self._split = context.splits[setup.dataset]
        self.row = Row.of(member, self._split)
        self.weights = torch.from_numpy(weights).to(dtype, copy=True)
        self._gradient = torch.zeros_like(self.weights)
        self._state = initial_state(self.weights, setup.optimizer, settings.optimizer_form)
        self._network = kind(layout.architecture, setup.activation).train()
        bind(self._network, layout, self.weights, self._gradient)
        specs = layout.tensors.values()
        self._is_weight = _mask(layout, [spec.kind == "weight" for spec in specs])
        self._frozen = _mask(layout, [spec.frozen for spec in specs])

    def copy(self) -> Weights:
        """Its weights, float32 [D]."""
        return self.weights.to(torch.float32, copy=True).numpy()

    def state(self) -> RowState:
        """A copy of all that changes."""
        return self.row.state(self.weights.numpy().copy(), self._state.numpy().copy())

    def restore(self, state: RowState) -> None:
        """Go on from there; the weights have been set."""
        self._state.copy_(torch.from_numpy(state.optimizer))
        self.row.go_on(state.epoch, state.losses)

    def train_epoch(self) -> None:
        """To the end of the epoch, or to a loss that is not finite."""
        row = self.row
        limit = row.member.setup.images_per_epoch
        indices = self._split.epoch_indices(row.member, row.epoch, limit=limit)
        while row.done < row.steps and not row.diverged:
            first = row.done * row.batch
            row.take([self._train_batch(first, indices[first : first + row.batch])])

    def _train_batch(self, first: int, indices: Indices) -> float:
        if self._context.should_stop():
            raise Interrupted
        row, settings = self.row, self._context.settings
        member, setup = row.member, row.member.setup
        batch = gather(self._split.images.train_images, indices)
        if setup.augmentation:
            batch = augment(batch, seed=member.seed, member=member.id, epoch=row.epoch, first_sample=first)
        labels = torch.from_numpy(self._split.images.train_labels[indices].astype(np.int64))
        self._network.dropout_function = _Dropout(member, row.epoch, row.done)

        self._gradient.zero_()
        loss = functional.cross_entropy(self._network(batch.to(self.weights.dtype)), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._gradient.masked_fill_(self._frozen, 0.0)

        rate = row.rates(1).item()
        if setup.l2:
            add_l2(self._gradient, self.weights, self._is_weight, l2=setup.l2)
        if setup.weight_decay:
            decay(self.weights, self._is_weight, learning_rate=rate, weight_decay=setup.weight_decay)
        step(
            self.weights,
            self._gradient,
            self._state,
            kind=setup.optimizer,
            form=settings.optimizer_form,
            learning_rate=rate,
            count=row.steps_before + 1,
            momentum=settings.momentum,
        )
        return loss.item()


@dataclass(frozen=True, slots=True)
class _Dropout:
    """The member's dropout on one batch."""

    member: Member
    epoch: int
    batch: int

    def __call__(self, layer: int, values: Tensor) -> Tensor:
        rate = self.member.setup.dropout
        if rate == 0:
            return values
        keep = keep_mask(
            rate,
            seed=self.member.seed,
            member=self.member.id,
            layer=layer,
            epoch=self.epoch,
            batch=self.batch,
            samples=len(values),
            units=values[0].numel(),
        )
        mask = torch.from_numpy(keep)
        if values.ndim == 4:  # units of an image are numbered in [H, W, C] order
            _, channels, height, width = values.shape
            mask = mask.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return values * mask / keep_probability(rate)


def bind(network: Network, layout: Layout, weights: Tensor, gradient: Tensor | None = None) -> None:
    """Make the network's tensors views of a flat vector, and their gradients views of another.

    Args:
        network: any network of the layout's architecture.
        layout: where each tensor lies.
        weights: float32 [D].
        gradient: float32 [D]; backward passes add to it.
    """
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        spec = layout.tensors[name]
        tensor.data = weights[spec.offset : spec.stop].view(spec.shape)
        if gradient is not None and isinstance(tensor, torch.nn.Parameter):
            tensor.grad = gradient[spec.offset : spec.stop].view(spec.shape)


def _mask(layout: Layout, flags: list[bool]) -> Tensor:
    mask = torch.zeros(layout.size, dtype=torch.bool)
    for spec, flag in zip(layout.tensors.values(), flags, strict=True):
        mask[spec.offset : spec.stop] = flag
    return mask


@torch.no_grad()
def _evaluate(
    layout: Layout, context: Context, request: EvaluationRequest, dtype: torch.dtype, kind: type[Network]
) -> Evaluation:
    member = request.member
    split = context.splits[member.setup.dataset]
    network = kind(layout.architecture, member.setup.activation)
    bind(network, layout, torch.from_numpy(request.weights).to(dtype, copy=True))
    network.train(request.faithful)  # batch statistics; without a dropout function nothing is dropped
    images, indices = split.evaluated(member, request.part, context.settings)
    labels = split.labels(request.part)
    loss, correct = 0.0, 0
    predicted = np.zeros(layout.architecture.outputs, dtype=np.int64)
    for first, batch in _evaluation_batches(request, images, indices):
        if context.should_stop():
            raise Interrupted
        truth = torch.from_numpy(labels[indices[first : first + len(batch)]].astype(np.int64))
        logits = network(batch.to(dtype))
        loss += float(functional.cross_entropy(logits, truth, reduction="sum"))
        winners = logits.argmax(dim=1)
        correct += int((winners == truth).sum())
        predicted += np.bincount(winners.numpy(), minlength=len(predicted))
    return Evaluation(images=len(indices), loss=loss / len(indices), correct=correct, predicted=predicted)


def _evaluation_batches(
    request: EvaluationRequest, images: Images, indices: Indices
) -> Iterator[tuple[int, Tensor]]:
    """(first position, images) of every batch; the original study's batches have the member's size."""
    member = request.member
    size = member.setup.batch_size if request.faithful else EVALUATION_BATCH
    for first in range(0, len(indices), size):
        batch = gather(images, indices[first : first + size])
        if request.faithful and member.setup.augmentation:
            epoch = EVALUATION_EPOCHS[request.part]
            batch = augment(batch, seed=member.seed, member=member.id, epoch=epoch, first_sample=first)
        yield first, batch

"""Plain PyTorch with its training step captured as a CUDA graph, of one member or of several side by side.

A member's step is small for a GPU: by itself it waits for launches, and a graph launches all of them at once.
Graphs of several members can run at the same time, each on a stream of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..space import Member
from ..train import Context
from .contender import Job
from .plain import Plain, Training, optimizer
from .workload import Workload

_WARM_UP_STEPS = 3  # before a capture, as PyTorch asks for


@dataclass(frozen=True, kw_only=True)
class Graphs(Plain):
    """The step as a CUDA graph; where there is no GPU it is not captured, and everything else is as there.

    Attributes:
        streams: members side by side.
    """

    streams: int = 1

    def jobs(self, workload: Workload, lane: int, lanes: int) -> Sequence[Job]:
        """An epoch of each member, as many at a time as there are streams."""
        members = workload.members if workload.spec.is_mixed else workload.members[: self.streams]
        trainings = [self._training(workload, workload.context, member) for member in members]
        return [
            SideBySide(trainings[first : first + self.streams], self.device)
            for first in range(0, len(trainings), self.streams)
        ]

    def _training(self, workload: Workload, context: Context, member: Member) -> GraphTraining:
        return GraphTraining(workload, context, member, device=self.device, precision=self.precision)


class GraphTraining(Training):
    """A member whose step is one launch."""

    _graph: torch.cuda.CUDAGraph | None = None

    def start(self) -> None:
        """The initial weights, and a step that is captured."""
        self._graph = None
        super().start()
        self._batch = torch.arange(self._setup.batch_size, device=self.device)
        if torch.device(self.device).type == "cuda":
            self._capture()
        else:
            self._warm_up()
        # Warm-up steps have trained. Weights and state are reset in place: a graph knows them by their addresses.
        self.load_initial()
        for state in self._optimizer.state.values():
            for value in state.values():
                value.zero_()

    def new_optimizer(self) -> torch.optim.Optimizer:
        """An optimizer that can be captured, if there is a GPU."""
        captured = torch.device(self.device).type == "cuda"
        return optimizer(self.module.parameters(), self._setup, self._settings, captured=captured)

    def step(self, batch: Tensor) -> Tensor:
        """Train on the images of a batch; its loss."""
        if self._graph is None:
            return super().step(batch)
        self._batch.copy_(batch)
        self._graph.replay()
        return self._loss.clone()

    def _capture(self) -> None:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._warm_up()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # on a stream of its own
            self._loss = super().step(self._batch)
        self._graph = graph

    def _warm_up(self) -> None:
        for _ in range(_WARM_UP_STEPS):
            super().step(self._batch)


class SideBySide:
    """An epoch of several members at the same time, each on a stream of its own.

    Args:
        trainings: the members.
        device: where.
    """

    def __init__(self, trainings: Sequence[Training], device: str) -> None:
        self._trainings, self._device = trainings, torch.device(device)
        self.images = sum(training.images for training in trainings)
        self.work = sum(training.work for training in trainings)
        self._streams: list[torch.cuda.Stream | None] = [None] * len(trainings)
        if self._device.type == "cuda":
            self._streams = [torch.cuda.Stream() for _ in trainings]  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """The initial weights of all; captures."""
        for training in self._trainings:
            training.start()
        self._finish()  # streams do not wait for what was done on another

    def __call__(self) -> None:
        """An epoch of each, in a new order."""
        owed = []
        for training, stream in zip(self._trainings, self._streams, strict=True):
            with torch.cuda.stream(stream):
                owed.append(training.losses(torch.randperm(training.images, device=self._device)))
        self._finish()

    def _finish(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

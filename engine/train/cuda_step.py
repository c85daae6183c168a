"""One training step of a pack: from the counters in its tables to changed weights, without the host in between.

All that changes from step to step lies on the device, so a step is always the same launches. On a GPU they are
captured once as a CUDA graph and replayed; other members in the rows change the tables, not the graph.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from wse.kernels.inputs.triton_order import epoch_indices
from wse.kernels.loss.triton import cross_entropy, mean_loss
from wse.kernels.optim.triton import optimizer_step
from wse.kernels.packs import Pack

from ..errors import WseError
from .cuda_layout import ArenaLayout
from .cuda_network import Network, Scene
from .cuda_tables import ResidentImages, Tables


class Step:
    """The training step of a pack.

    Args:
        network: has room for as many images.
        images: how many images a step may have.
        layout: of a row of the arena.
        arena: the members' weights, float32 [P, D].
        gradient: float32 [P, D].
        state: of the optimizers, float32 [2, P, D].
        tables: hyper-parameters and counters.
        resident: the image sets.
        gelu: whether a member may have GELU.
        augment: whether a member may have augmentation.

    Attributes:
        network: the network.
        pack: which images belong to whom.
    """

    def __init__(
        self,
        network: Network,
        images: int,
        *,
        layout: ArenaLayout,
        arena: Tensor,
        gradient: Tensor,
        state: Tensor,
        tables: Tables,
        resident: ResidentImages,
        gelu: bool,
        augment: bool,
    ) -> None:
        device = arena.device
        self.network, self.pack = network, Pack(members=len(arena), images=images, device=device)
        self._layout, self._arena, self._gradient, self._state = layout, arena, gradient, state
        self._tables, self._resident, self._augment = tables, resident, augment
        self._indices = torch.zeros(images, dtype=torch.int32, device=device)
        self._losses = torch.zeros(images, device=device)
        self._answers = torch.zeros(images, dtype=torch.int32, device=device)
        self._scene = Scene(
            pack=self.pack,
            weights=layout.views(arena),
            gradient=layout.views(gradient),
            codes=tables.codes,
            addresses=tables.addresses,
            levels=tables.levels,
            scales=tables.scales,
            drops=True,
            batch_statistics=True,
            gelu=gelu,
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self._ran = False

    def lay(self, batches: Sequence[int]) -> None:
        """Let each member have so many images of a step."""
        self.pack.lay([0, *np.cumsum(batches)])

    def launch(self, steps: int) -> None:
        """Begin so many of the steps that are in the tables; they write their rows' mean losses there."""
        for _ in range(steps):
            if self._graph is not None:
                self._graph.replay()
            else:
                self._launch()
                self._capture()

    def _capture(self) -> None:
        """After a first step, which compiles and loads kernels and writes tiles, a step is launches alone.

        Not by ``torch.cuda.graph``, which would wait for other threads' work.
        """
        if self._arena.is_cuda:
            graph = torch.cuda.CUDAGraph()
            with _no_collector():
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self._launch()
                except BaseException as error:
                    _end_after(error, graph)
                    del graph  # in this turn
                    raise
                graph.capture_end()
            self._graph = graph

    def _launch(self) -> None:
        tables, resident, network, pack = self._tables, self._resident, self.network, self.pack
        tables.begin_step()
        epoch_indices(
            self._indices,
            pack,
            addresses=tables.addresses,
            orders=tables.orders,
            classes=tables.classes,
            table=resident.table,
        )
        network.read(
            self._scene,
            images=resident.images,
            indices=self._indices,
            augments=tables.augments,
            augment=self._augment,
        )
        network.forward(self._scene)
        cross_entropy(
            network.logits,
            pack,
            indices=self._indices,
            labels=resident.labels,
            losses=self._losses,
            answers=self._answers,
            outputs=network.architecture.outputs,
            gradient=network.d_logits,
        )
        mean_loss(tables.means, self._losses, pack, tick=tables.tick)
        network.backward(self._scene)
        optimizer_step(
            self._arena,
            self._gradient,
            self._state,
            live=tables.live,
            kinds=tables.kinds,
            constants=tables.constants,
            steps=tables.steps,
            tick=tables.tick,
            n_weights=self._layout.weights,
            n_trained=self._layout.trained,
        )
        tables.end_step()


def _end_after(error: BaseException, graph: torch.cuda.CUDAGraph) -> None:
    """End the capture of a step that failed. If that fails too, PyTorch's allocator can be used no more."""
    try:
        graph.capture_end()
    except RuntimeError as end:
        raise WseError(f"a step could not be captured ({error}), nor its capture be ended ({end})") from error


@contextmanager
def _no_collector() -> Iterator[None]:
    """Python's collector, which may let go of another graph, would void a capture."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

"""A pack on a GPU: its members step together, a few launches of kernels for all of them. One thread uses it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from wse.kernels.optim.triton import initial_mean_square
from wse.kernels.transfer import write

from ..nets import Architecture, Layout
from ..space import Member
from .backend import Context, EpochEnd, Evaluation, EvaluationRequest, Interrupted, RowState, Weights
from .cuda_device import Device, Fetched, translated_memory_errors
from .cuda_evaluation import Evaluator
from .cuda_layout import ArenaLayout
from .cuda_network import Network
from .cuda_step import Step
from .cuda_tables import CudaRow, ResidentImages, StepsAhead, Tables

STEPS_AT_A_TIME = 64  # between two questions whether to stop
STEPS_A_TURN = 8  # launched at once, so that a device with a full queue makes nobody wait for long


class CudaPack:
    """Members of one architecture that step together.

    Args:
        architecture: what they share.
        rows: how many members it can hold.
        context: what the run shares.
        resident: the image sets on the device.
        device: where.
        dtype: of values and products.
        evaluation_images: there is room for at least so many images.
    """

    def __init__(
        self,
        architecture: Architecture,
        rows: int,
        context: Context,
        resident: ResidentImages,
        device: Device,
        *,
        dtype: torch.dtype,
        evaluation_images: int,
    ) -> None:
        self._architecture, self._context, self._resident = architecture, context, resident
        self._dtype, self._evaluation_images = dtype, evaluation_images
        self._device = device
        self._layout = ArenaLayout(Layout(architecture))
        self._rows: list[CudaRow | None] = [None] * rows
        self._changed = True
        with self._turn():
            self._places = torch.from_numpy(self._layout.places).to(device.torch)
            self._arena = torch.zeros(rows, self._layout.size, device=device.torch)
            self._gradient = torch.zeros_like(self._arena)
            self._state = torch.zeros(2, *self._arena.shape, device=device.torch)
            self._tables = Tables(rows, resident.classes, STEPS_AT_A_TIME, device.torch)
        self._step: Step | None = None
        self._snapshots: dict[int, Weights] = {}

    def place(self, row: int, member: Member, weights: Weights) -> None:
        """Put a member at the start of its training into a free row."""
        setup = member.setup
        for name in ("activation", "augmentation"):  # kernels are compiled for what the population may have
            if not self._context.may_have(name, getattr(setup, name)):
                raise ValueError(f"no member of the population has {name} = {getattr(setup, name)}")
        split = self._context.splits[setup.dataset]
        self._rows[row] = CudaRow.resident(member, split, self._resident)
        self._snapshots.pop(row, None)
        self._changed = True
        with self._turn():
            self._write(self._arena, row, weights)
            self._gradient[row] = 0
            self._state[:, row] = 0
            self._state[0, row] = initial_mean_square(setup.optimizer, self._context.settings.optimizer_form)

    def state(self, row: int) -> RowState:
        """Where the member of a row is."""
        there = self._row(row)
        with self._turn():
            fetched = Fetched(self._arena[row][self._places], self._state[:, row].index_select(1, self._places))
        weights, optimizer = fetched.wait()
        return there.state(weights, optimizer)

    def restore(self, row: int, member: Member, state: RowState) -> None:
        """Put a member into a free row where it was when ``state`` was taken."""
        self.place(row, member, state.weights.astype(np.float32))
        self._row(row).go_on(state.epoch, state.losses)
        with self._turn():
            for slot, values in zip(self._state, state.optimizer, strict=True):
                self._write(slot, row, values)

    def release(self, row: int) -> None:
        """Free a row."""
        self._rows[row] = None
        self._snapshots.pop(row, None)
        self._changed = True

    def weights(self, row: int) -> Weights:
        """A copy of a row's weights in the layout's order, float32 [D]."""
        self._row(row)
        if row in self._snapshots:
            return self._snapshots[row].copy()
        with self._turn():
            fetched = Fetched(self._arena[row][self._places])
        return fetched.wait()[0]

    def advance(self) -> list[EpochEnd]:
        """Train until at least one row ends an epoch; rows that do go on into the next one for some steps.

        So rows whose epochs end at different times need no answer of the host in between.
        """
        self._snapshots = {}
        with self._turn():
            step = self._prepared_step()
        there = {place: row for place, row in enumerate(self._rows) if row is not None}
        ends = [row.end(place, finite=False) for place, row in there.items() if row.diverged]
        while not ends:
            if self._context.should_stop():
                raise Interrupted
            ahead = StepsAhead(self._rows, self._context.settings, STEPS_AT_A_TIME)
            finite, losses = self._train(step, ahead)
            for place, row in there.items():
                left, of_row = ahead.left[place], losses[:, place]
                row.take(of_row[:left])
                if place in finite or row.diverged:
                    ends.append(row.end(place, finite=finite.get(place, False)))
                    row.go_on(row.epoch + 1, of_row[left:])
        return ends

    def _train(self, step: Step, ahead: StepsAhead) -> tuple[dict[int, bool], npt.NDArray[np.float32]]:
        """Take steps, and keep the weights of rows as they were when they ended an epoch.

        Returns:
            Whether these are finite, by row; and losses, float32 [steps, P].
        """
        with self._turn():
            self._tables.write_steps(ahead)
        done, kept = 0, []
        for end, which in [*ahead.ends(), (len(ahead), None)]:
            while done < end:
                some = min(end - done, STEPS_A_TURN)
                with self._turn():
                    step.launch(some)
                done += some
            if which is not None:
                with self._turn():
                    kept.append((ahead.ended[which].tolist(), self._fetched(self._tables.ended[which])))
        with self._turn():
            means = Fetched(self._tables.means[: len(ahead)])
        finite: dict[int, bool] = {}
        for places, fetched in kept:
            weights, is_finite = fetched.wait()
            self._snapshots |= zip(places, weights, strict=True)
            finite |= zip(places, is_finite.tolist(), strict=True)
        return finite, means.wait()[0]

    def evaluate(self, requests: Sequence[EvaluationRequest]) -> list[Evaluation]:
        """Measure weights, as many of the requests together as there is room for."""
        with translated_memory_errors():
            faithful = (request.member.setup.batch_size for request in requests if request.faithful)
            largest = max(faithful, default=1)
            if self._step is not None and self._step.network.images >= largest:
                network = self._step.network
            else:
                with self._turn():
                    network = self._network(largest)
            evaluator = Evaluator(network, self._layout, self._context, self._resident, self._device)
            return evaluator.evaluate(requests, [self._packed(request.weights) for request in requests])

    def close(self) -> None:
        """Let go of the graph in a turn: PyTorch cannot do that beside another thread's capture."""
        with self._turn():
            self._step = None

    def _row(self, place: int) -> CudaRow:
        row = self._rows[place]
        if row is None:
            raise ValueError(f"row {place} holds no member")
        return row

    def _prepared_step(self) -> Step:
        """The step, with room for the images of all rows; tables are written if members have moved."""
        images = sum(row.batch for row in self._rows if row is not None)
        if self._step is None or images > self._step.pack.images:
            self._step = None  # before the next one needs room
            self._step = Step(
                self._network(images),
                images,
                layout=self._layout,
                arena=self._arena,
                gradient=self._gradient,
                state=self._state,
                tables=self._tables,
                resident=self._resident,
                gelu=self._context.may_have("activation", "gelu"),
                augment=self._context.may_have("augmentation", True),
            )
            self._changed = True
        if self._changed:
            self._step.lay([row.batch if row else 0 for row in self._rows])
            self._tables.fill(self._rows, self._context.settings)
            self._changed = False
        return self._step

    def _network(self, images: int = 0) -> Network:
        images = max(images, self._evaluation_images)
        return Network(self._architecture, images, self._dtype, self._device.torch)

    def _write(self, rows: torch.Tensor, row: int, values: npt.NDArray[np.floating]) -> None:
        write(rows[row], self._packed(values))

    def _packed(self, weights: npt.NDArray[np.floating]) -> Weights:
        packed = np.zeros(self._layout.size, dtype=np.float32)
        packed[self._layout.places] = weights
        return packed

    def _fetched(self, rows: torch.Tensor) -> Fetched:
        """Weights of rows, and whether they are finite, on their way to the host."""
        taken = self._arena.index_select(0, rows).index_select(1, self._places)
        return Fetched(taken, torch.isfinite(taken).all(dim=1))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with translated_memory_errors(), self._device.turn():
            yield

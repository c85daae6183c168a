"""The CPU backend: register-tiled kernels, one member at a time in each thread, its whole step in cache."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt

from wse.kernels.activation import ACTIVATION_CODES
from wse.kernels.optim import CONSTANTS, STATE_SLOTS
from wse.kernels.optim.cpu import FORM_CODES, KIND_CODES
from wse.kernels.simd import V

from ..nets import Architecture, BatchNorm, Layout
from ..space import Member
from .arrangement import round_up
from .backend import Context, Evaluation, EvaluationRequest, Interrupted, RowState, Weights, tell_user
from .cpu_compile import Compilation
from .cpu_layout import Packing
from .cpu_program import Program
from .cpu_shuffle import epoch_indices
from .cpu_step import Bound, Learning, Scene, run_batches
from .row import Row
from .split import EVALUATION_EPOCHS, Indices, Part, Split
from .turns import Turns

EVALUATION_BATCH = 64
SLICE = 16  # samples that go through a network together where they may: few, to stay in cache
_HUGE_PAGE = 2**21
CHUNK_SECONDS = 0.1  # how long compiled code may run before it is asked whether to stop

_NOT_MONOTONE = ("gelu",)


class CpuBackend:
    """Members train one after the other in each thread, with compiled kernels that release the GIL.

    Args:
        tell: takes a line for the user now and then while kernels are compiled, which happens once a machine.
    """

    name = "cpu"
    precision = "fp32"
    workers: int | None = None
    members_per_pack: int | None = 1

    def __init__(self, tell: Callable[[str], None] = tell_user) -> None:
        self._tell = tell
        self._compilation: Compilation | None = None

    @property
    def preparing(self) -> float | None:
        """The share of the kernels that are compiled, while they are being compiled."""
        return self._compilation.share if self._compilation else None

    def rows(self, architecture: Architecture, members: Sequence[Member], packs: int = 1) -> int:
        """One: rows take turns, so more of them gain nothing."""
        return 1

    def prepare(self, architectures: Collection[Architecture], context: Context) -> None:
        """Follow the compilation, which begins with the first step: one for all architectures."""
        self._compilation = Compilation.follow(self._tell, context.should_stop)

    def open(self, architecture: Architecture, rows: int, context: Context) -> CpuPack:
        """A pack whose rows take turns, an epoch each."""
        return CpuPack(architecture, rows, context)


class CpuPack(Turns["_Training"]):
    """Members of one architecture that take turns, an epoch each.

    Args:
        architecture: what they share.
        rows: how many members it can hold.
        context: what the run shares.
    """

    def __init__(self, architecture: Architecture, rows: int, context: Context) -> None:
        self._context = context
        self._desk = _Desk(Layout(architecture))
        super().__init__(rows, partial(_Training, self._desk, context))

    def evaluate(self, requests: Sequence[EvaluationRequest]) -> list[Evaluation]:
        """Measure weights, one request after the other."""
        return [_evaluate(self._desk, self._context, request) for request in requests]


class _Desk:
    """Where a pack works: the programs it has needed so far, and one scratch memory for all of them."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.packing = layout, Packing(layout)
        self.gradient = aligned(self.packing.size)
        self.pace = _Pace()
        self._scratch = workspace(0)
        self._programs: dict[tuple[int, bool], Program] = {}
        self._normalises = any(isinstance(layer, BatchNorm) for layer in layout.architecture.layers)

    def bound(self, batch_size: int, activation: str) -> Bound:
        """The program for a batch size and an activation, in memory that is all zero.

        Without normalisation samples do not see each other, so a batch can go through in slices.

        The zeros are the borders of images and the channels that are not there. Because everything else is zero
        too, nothing that an earlier member left can be seen.
        """
        sliced = not self._normalises and batch_size % SLICE == 0
        together = SLICE if sliced else batch_size
        key = (round_up(together, V), activation not in _NOT_MONOTONE)
        if key not in self._programs:
            self._programs[key] = Program(self.layout, self.packing, key[0], monotone=key[1])
        program = self._programs[key]
        floats = program.scratch_bytes // 4
        if len(self._scratch) < floats:
            self._scratch = workspace(floats)
        operations, tensors, batch = program.bind(self._scratch)
        return Bound(
            operations, tensors, program.phases, batch, self._scratch,
            program.input, program.logits, program.d_logits, together,
        )  # fmt: skip


class _Pace:
    """How much work fits between two questions whether to stop."""

    def __init__(self) -> None:
        self._seconds_per_image = 0.0

    def images(self) -> int:
        """How many images to train on before the next question; few while nothing is known."""
        return int(CHUNK_SECONDS / self._seconds_per_image) if self._seconds_per_image else 1

    def took(self, images: int, seconds: float) -> None:
        """Learn how long so many images took."""
        self._seconds_per_image = seconds / images


class _Training:
    """One member in training, its weights in the order of the kernels."""

    def __init__(self, desk: _Desk, context: Context, member: Member, weights: npt.NDArray[np.floating]) -> None:
        setup, form, packing = member.setup, context.settings.optimizer_form, desk.packing
        self._desk, self._packing, self._context = desk, packing, context
        self._split = context.splits[setup.dataset]
        self.row = Row.of(member, self._split)
        self.weights = aligned(packing.size)
        packing.pack(weights, self.weights)
        self._state = np.zeros((STATE_SLOTS[setup.optimizer], packing.trained), dtype=np.float32)
        if setup.optimizer == "rmsprop":
            self._state[:] = CONSTANTS[form].rmsprop_start
        self._decays = np.array([[0, packing.weights]], dtype=np.int64)

    def copy(self) -> Weights:
        """Its weights in the layout's order, float32 [D]."""
        return self._packing.unpack(self.weights)

    def state(self) -> RowState:
        """A copy of all that changes."""
        weights = self.copy()
        optimizer = np.empty((len(self._state), len(weights)), dtype=np.float32)
        packed = np.zeros(self._packing.size, dtype=np.float32)
        for slot, values in zip(self._state, optimizer, strict=True):
            packed[: self._packing.trained] = slot
            values[:] = self._packing.unpack(packed)
        return self.row.state(weights, optimizer)

    def restore(self, state: RowState) -> None:
        """Go on from there; the weights have been set."""
        packed = np.empty(self._packing.size, dtype=np.float32)
        for slot, values in zip(self._state, state.optimizer, strict=True):
            self._packing.pack(values, packed)
            slot[:] = packed[: self._packing.trained]
        self.row.go_on(state.epoch, state.losses)

    def train_epoch(self) -> None:
        """To the end of the epoch, or to a loss that is not finite."""
        row, desk = self.row, self._desk
        member, setup = row.member, row.member.setup
        indices = epoch_indices(self._split, member, row.epoch, limit=setup.images_per_epoch)
        scene = _scene(
            desk.layout.architecture, member, self._split, "training", indices[: row.steps * row.batch],
            augmented=setup.augmentation, epoch=row.epoch,
        )  # fmt: skip
        bound = desk.bound(row.batch, setup.activation)
        learning = _learning(self._context, member, self.weights, desk.gradient, self._state, self._decays)
        nothing = np.zeros(0, dtype=np.int64)
        while row.done < row.steps and not row.diverged:
            if self._context.should_stop():
                raise Interrupted
            chunk = min(max(desk.pace.images() // row.batch, 1), row.steps - row.done)
            rates, losses = row.rates(chunk), np.empty(chunk, dtype=np.float64)
            began = time.perf_counter()
            trained, _ = run_batches(
                bound, scene, learning, rates, row.steps_before, row.done, row.batch, losses, nothing
            )
            desk.pace.took(trained * row.batch, time.perf_counter() - began)
            row.take(losses[:trained])


def _learning(
    context: Context,
    member: Member,
    weights: Weights,
    gradient: Weights,
    state: npt.NDArray[np.float32],
    decays: npt.NDArray[np.int64],
    *,
    learns: bool = True,
    batch_statistics: bool = True,
) -> Learning:
    setup, settings = member.setup, context.settings
    return Learning(
        weights=weights,
        gradient=gradient,
        state=state,
        decays=decays,
        activation=ACTIVATION_CODES[setup.activation],
        kind=KIND_CODES[setup.optimizer],
        form=FORM_CODES[settings.optimizer_form],
        momentum=float(settings.momentum),
        dropout=float(setup.dropout),
        l2=float(setup.l2),
        weight_decay=float(setup.weight_decay),
        learns=learns,
        batch_statistics=batch_statistics,
    )


def _evaluate(desk: _Desk, context: Context, request: EvaluationRequest) -> Evaluation:
    member, faithful = request.member, request.faithful
    split = context.splits[member.setup.dataset]
    if request.part == "training":  # as in ``Split.evaluated``, but compiled
        indices = epoch_indices(split, member, 0, limit=context.settings.training_images)
    else:
        _, indices = split.evaluated(member, request.part, context.settings)
    scene = _scene(
        desk.layout.architecture, member, split, request.part, indices,
        augmented=faithful and member.setup.augmentation,
        epoch=EVALUATION_EPOCHS[request.part],
    )  # fmt: skip
    size = member.setup.batch_size if faithful else EVALUATION_BATCH
    bound = desk.bound(size, member.setup.activation)
    weights = aligned(desk.packing.size)
    desk.packing.pack(request.weights, weights)
    learning = _learning(
        context, member, weights, desk.gradient,
        np.zeros((0, 0), dtype=np.float32), np.zeros((0, 2), dtype=np.int64),
        learns=False, batch_statistics=faithful,
    )  # fmt: skip
    predicted = np.zeros(desk.layout.architecture.outputs, dtype=np.int64)
    batches = -(-len(indices) // size)
    losses, no_rates = np.empty(batches, dtype=np.float64), np.zeros(0, dtype=np.float64)
    correct = done = 0
    while done < batches:
        if context.should_stop():
            raise Interrupted
        chunk = min(max(desk.pace.images() // size, 1), batches - done)
        _, right = run_batches(
            bound, scene, learning, no_rates, 0, done, size, losses[done : done + chunk], predicted
        )
        correct, done = correct + right, done + chunk
    images_in = np.minimum(size, len(indices) - size * np.arange(batches))
    loss = float(losses @ images_in) / len(indices)
    return Evaluation(images=len(indices), loss=loss, correct=correct, predicted=predicted)


def _scene(
    architecture: Architecture,
    member: Member,
    split: Split,
    part: Part,
    indices: Indices,
    *,
    augmented: bool,
    epoch: int,
) -> Scene:
    wanted, file = architecture.input, "test" if part == "test" else "training"
    images = split.images.test_images if part == "test" else split.images.train_images
    if not augmented:
        images = split.planes.get(file, images)
    return Scene(
        images=_read_only(images),
        labels=_read_only(split.labels(part)),
        indices=np.ascontiguousarray(indices),
        low=float(wanted.low),
        high=float(wanted.high),
        grey=wanted.color == "grey",
        augmented=augmented,
        seed=np.uint64(member.seed),
        member=member.id,
        epoch=epoch,
    )


def _read_only(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A plain read-only view: numba compiles for the exact kind of array, and this is the kind of mapped files."""
    view = np.asarray(values).view(np.ndarray)
    view.flags.writeable = False
    return view


def aligned(floats: int) -> npt.NDArray[np.float32]:
    """Zeros, float32 [floats], that begin at a cache line."""
    room = np.zeros(floats + 16, dtype=np.float32)
    first = -room.ctypes.data % 64 // 4
    return room[first : first + floats]


def workspace(floats: int) -> npt.NDArray[np.float32]:
    """As ``aligned``, in huge pages if the system has them.

    In pages of 4 KiB a network's tensors would lie scattered over the sets of the second-level cache, and take
    more entries than translation buffers have.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return aligned(floats)
    memory = mmap.mmap(-1, 4 * floats + 2 * _HUGE_PAGE)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    room = np.frombuffer(memory, dtype=np.float32)
    first = -room.ctypes.data % _HUGE_PAGE // 4
    return room[first : first + floats]

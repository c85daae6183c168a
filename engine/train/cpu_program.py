"""An architecture as the CPU backend runs it: a table of operations, made from its layers.

One compiled interpreter (``cpu_step.py``) runs every table, so no code is compiled for an architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wse.kernels.activation.cpu import CHANNEL_BYTES
from wse.kernels.batchnorm.cpu import SUMS_BYTES
from wse.kernels.conv.cpu import keeps_vectors
from wse.kernels.conv.strided import MOST_PIXELS, SIZE, STRIDE
from wse.kernels.linear.cpu import INPUTS
from wse.kernels.philox.cpu_dropout import BITS_BYTES, DRAWN
from wse.kernels.philox.dropout import SAMPLES_PER_BLOCK
from wse.kernels.simd import VECTOR_BYTES, V

from ..nets import (
    Activate,
    Architecture,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Layout,
    Linear,
    MaxPool,
)
from ..nets.architecture import same_padding
from .cpu_layout import Packing, round_up
from .cpu_tables import (
    ACTIVATION,
    ADDRESSES,
    AVERAGE_POOL,
    BATCH,
    CONVOLUTION,
    DROPOUT,
    LINEAR,
    MAX_POOL,
    NONE,
    NORMALISATION,
    OPERATION,
    PARAMETERS,
    PHASE,
    TENSOR,
    Table,
    Tables,
    Value,
    table,
)

_POOLED_FILTERS = (3, 5, 7)  # for which there is a kernel that pools as it convolves


class Program:
    """An architecture's operations for batches of up to a size.

    Args:
        layout: of the architecture.
        packing: where its weights lie.
        batch_size: the most samples of a batch.
        monotone: whether the activation function is monotone, so that pooling may come before it.

    Attributes:
        scratch_bytes: the memory it works in.
        phases: of all input gradients.
        input: index of the tensor of the images.
        logits: index of the tensor of the logits.
        d_logits: index of the tensor of their gradient.
    """

    def __init__(self, layout: Layout, packing: Packing, batch_size: int, *, monotone: bool) -> None:
        self._made = Tables(groups=round_up(batch_size, V) // V)
        height, width, channels = layout.architecture.input.shape  # type: ignore[misc]
        value = Value(channels=channels, height=height, width=width)
        steps = list(_steps(layout.architecture, monotone))
        value.border = steps[0].border(value)
        self.input = x = self._made.tensor(value)
        d_x = NONE
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            after = step.after(value)
            if following is not None:
                after.border = following.border(after)
            y = self._made.tensor(after)
            d_y = self._made.tensor(replace(after, border=step.slope_border(value)))
            operation = {"kind": step.kind, "x": x, "y": y, "d_x": d_x, "d_y": d_y}
            operation |= dict.fromkeys((*ADDRESSES, "z", "pooled", "d_z", "before", "behind"), NONE)
            operation |= _parameters(layout, packing, step.owner)
            step.fill(operation, value, after, self._made)
            self._made.operations.append(operation)
            value, x, d_x = after, y, d_y
        _join_ends(self._made.operations)
        self.logits, self.d_logits = x, d_x
        groups, channels = self._made.groups, max(tensor["channels"] for tensor in self._made.tensors)
        self._batch = {name: self._made.room(groups * VECTOR_BYTES) for name in ("masks", "shares")}
        self._batch |= {name: self._made.room(2 * VECTOR_BYTES) for name in ("ones", "zeros", "least", "totals")}
        self._batch |= {"all": self._made.room(BITS_BYTES * channels), "waste": self._made.room(SUMS_BYTES)}
        self._all_bytes = BITS_BYTES * channels
        self.phases = table(PHASE, self._made.phases or [{}])
        self.scratch_bytes = self._made.end
        self._operations = table(OPERATION, self._made.operations)
        self._tensors = table(TENSOR, self._made.tensors)

    def bind(self, scratch: npt.NDArray[np.float32]) -> tuple[Table, Table, Table]:
        """(operations, tensors, batch [1]) in scratch memory, float32, which becomes zero but for constants."""
        scratch[: self.scratch_bytes // 4] = 0
        at = {name: place // 4 for name, place in self._batch.items()}
        scratch[at["ones"] : at["ones"] + V] = 1
        scratch[at["least"]] = -np.inf
        scratch.view(np.uint8)[self._batch["all"] : self._batch["all"] + self._all_bytes] = 0xFF
        begin = scratch.ctypes.data
        operations, tensors = self._operations.copy(), self._tensors.copy()
        tensors["at"] += begin
        for name in ADDRESSES:
            used = operations[name] != NONE
            operations[name][used] += begin
            operations[name][~used] = 0
        batch = table(BATCH, [{name: place + begin for name, place in self._batch.items()}])
        batch["scratch"] = begin
        return operations, tensors, batch


def _join_ends(operations: list[dict[str, int]]) -> None:
    """Let an input gradient by ``scatter_row`` end in what it leads to: a convolution's floor and dropout."""
    for index, operation in enumerate(operations[1:], 1):
        if operation["kind"] == CONVOLUTION and operation["scatter"]:
            before = operations[index - 1]
            if before["kind"] == CONVOLUTION and before["d_z"] == before["d_y"]:
                operation["before"], before["behind"] = index - 1, index


def _parameters(layout: Layout, packing: Packing, owner: str) -> dict[str, int]:
    """Where the tensors of a layer lie in the packed weights, in bytes."""
    found = {}
    for name in PARAMETERS:
        key = f"{owner}.{name}" if name in ("weight", "bias") else f"{owner}.bn.{name}"
        found[name] = 4 * packing.offsets[key] if key in packing.offsets else NONE
    bias = layout.tensors.get(f"{owner}.bias")
    return {**found, "frozen": int(bias is not None and bias.frozen)}


@dataclass(kw_only=True)
class _Step:
    """One operation; this one is an activation, the others differ where they say."""

    owner: str = ""
    kind: int = ACTIVATION

    def border(self, before: Value) -> tuple[int, int, int, int]:
        """The zeros it needs around its input: top, left, bottom, right."""
        return (0, 0, 0, 0)

    def slope_border(self, before: Value) -> tuple[int, int, int, int]:
        """The zeros that are useful around the gradient of its output."""
        return (0, 0, 0, 0)

    def after(self, before: Value) -> Value:
        """What it makes of a value, without a border."""
        return replace(before, border=(0, 0, 0, 0))

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        """Add what only this operation has to its row, and the scratch memory it needs."""
        self._channels(operation, after.channels, made)

    def _channels(self, operation: dict[str, int], channels: int, made: Tables) -> None:
        operation["channel"] = made.room(round_up(channels, 4) * CHANNEL_BYTES)
        operation["sums"] = made.room(round_up(channels, 4) * SUMS_BYTES)
        operation |= {"floor": made.room(4), "kept": made.room(4)}

    def _drop(self, operation: dict[str, int], index: int, value: Value, made: Tables) -> None:
        units = round_up(value.channels * value.height * value.width, DRAWN)
        blocks = -(-made.groups * V // SAMPLES_PER_BLOCK)
        operation |= {"drop": 1, "layer": index, "block": units * BITS_BYTES}
        operation["bits"] = made.room(blocks * units * BITS_BYTES)


@dataclass(kw_only=True)
class _Normalisation(_Step):
    kind: int = NORMALISATION


@dataclass(kw_only=True)
class _MaxPool(_Step):
    size: int
    kind: int = MAX_POOL

    def after(self, before: Value) -> Value:
        return Value(channels=before.channels, height=before.height // self.size, width=before.width // self.size)

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        operation["size"] = self.size


@dataclass(kw_only=True)
class _AveragePool(_Step):
    kind: int = AVERAGE_POOL

    def after(self, before: Value) -> Value:
        return Value(channels=before.channels, height=1, width=1)

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        operation["share"] = made.room(4)


@dataclass(kw_only=True)
class _Dropout(_Step):
    index: int
    kind: int = DROPOUT

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        self._channels(operation, 1, made)
        self._drop(operation, self.index, before, made)


@dataclass(kw_only=True)
class _Linear(_Step):
    features: int
    kind: int = LINEAR

    def after(self, before: Value) -> Value:
        return Value(channels=self.features, height=1, width=1)

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        inputs = before.channels * before.height * before.width
        operation |= {"inputs": inputs, "allotted": round_up(inputs, INPUTS), "outputs": self.features}
        operation["turned"] = made.room(made.groups * V * round_up(self.features, V) * 4)


@dataclass(kw_only=True)
class _Convolution(_Step):
    """A convolution and what directly follows it of: normalisation, activation, 2 x 2 max-pooling, dropout."""

    layer: Conv
    norm: bool
    active: bool
    pool: bool
    in_place: bool
    dropout: int | None
    kind: int = CONVOLUTION

    def border(self, before: Value) -> tuple[int, int, int, int]:
        if self.layer.padding == "valid":
            return (0, 0, 0, 0)
        (top, bottom), (left, right) = (
            same_padding(size, self.layer.kernel, self.layer.stride) for size in (before.height, before.width)
        )
        return (top, left, bottom, right)

    def _convolved(self, before: Value) -> Value:
        top, left, bottom, right = self.border(before)
        height, width = (
            (size - self.layer.kernel) // self.layer.stride + 1
            for size in (before.height + top + bottom, before.width + left + right)
        )
        return Value(channels=self.layer.channels, height=height, width=width)

    def after(self, before: Value) -> Value:
        made = self._convolved(before)
        return replace(made, height=made.height // 2, width=made.width // 2) if self.pool else made

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        layer, convolved = self.layer, self._convolved(before)
        channels = round_up(layer.channels, 4)
        self._channels(operation, channels, made)
        top, left, _, _ = before.border
        operation |= {
            "norm": int(self.norm),
            "active": int(self.active),
            "pool": int(self.pool),
            "size": layer.kernel,
            "stride": layer.stride,
            "corner": ((before.width + left + before.border[3]) * top + left) * VECTOR_BYTES,
            "z": operation["y"] if self.in_place else made.tensor(convolved),
            "start": made.room(4 * channels),
            "tile_sums": made.room(channels * 2 * VECTOR_BYTES),
        }
        if self.pool:
            operation["pooled"] = made.tensor(replace(after, border=(0, 0, 0, 0)))
        if keeps_vectors(convolved.height * convolved.width):
            values = round_up(channels * before.channels * layer.kernel**2, V)
            operation["vectors"] = made.room(values * VECTOR_BYTES)
        if self.dropout is not None:
            self._drop(operation, self.dropout, after, made)
            operation["scaled"] = made.room(4 * round_up(channels * before.channels * layer.kernel**2, V))
        operation["scatter"] = int(self._scatters(before, convolved) and operation["d_x"] != NONE)
        phases = [] if operation["scatter"] or operation["d_x"] == NONE else list(self._phases(before, convolved))
        operation |= {"phase": len(made.phases), "phases": len(phases)}
        made.phases += phases
        if self.in_place:
            operation["d_z"] = operation["d_y"]
        else:
            border = self._phase_border(before, convolved)
            operation["d_z"] = made.tensor(replace(convolved, border=border), shared=True)
        operation["flipped"] = made.room(4 * round_up(before.channels, 4) * channels * layer.kernel**2)

    def slope_border(self, before: Value) -> tuple[int, int, int, int]:
        return self._phase_border(before, self._convolved(before)) if self.in_place else (0, 0, 0, 0)

    def _scatters(self, before: Value, convolved: Value) -> bool:
        """Whether the input gradient can be made row by row in registers."""
        layer = self.layer
        unpadded = self.border(before) == (0, 0, 0, 0)
        return (layer.kernel, layer.stride) == (SIZE, STRIDE) and unpadded and convolved.width <= MOST_PIXELS

    def _phase_border(self, before: Value, convolved: Value) -> tuple[int, int, int, int]:
        """The zeros around the output's gradient that the phases read."""
        if self._scatters(before, convolved):
            return (0, 0, 0, 0)
        phases = list(self._phases(before, convolved))
        return (
            max([0, *(-phase["d_row"] for phase in phases)]),
            max([0, *(-phase["d_column"] for phase in phases)]),
            max([0, *(p["d_row"] + p["out_rows"] + p["rows"] - 1 - convolved.height for p in phases)]),
            max([0, *(p["d_column"] + p["out_columns"] + p["columns"] - 1 - convolved.width for p in phases)]),
        )

    def _phases(self, before: Value, convolved: Value) -> Iterator[dict[str, int]]:
        top, left, _, _ = before.border
        place = 0
        for rows in _axis_phases(before.height, top, self.layer):
            for columns in _axis_phases(before.width, left, self.layer):
                yield {
                    "flipped": place,
                    "rest_row": rows.rest,
                    "rest_column": columns.rest,
                    "rows": rows.taps,
                    "columns": columns.taps,
                    "d_row": rows.source,
                    "d_column": columns.source,
                    "row": rows.first,
                    "column": columns.first,
                    "out_rows": rows.count,
                    "out_columns": columns.count,
                }
                place += round_up(before.channels, 4) * convolved.channels * rows.taps * columns.taps


@dataclass(kw_only=True, slots=True)
class _AxisPhase:
    """Along one axis: first filter place, how many; first output gradient read; input gradients made."""

    rest: int
    taps: int
    source: int
    first: int
    count: int


def _axis_phases(size: int, padding: int, layer: Conv) -> Iterator[_AxisPhase]:
    """Place p of the input is met by the filter places k with k = p + padding (mod stride), and by no others.

    With q = (p + padding) // stride, filter place r + stride * t meets output q - t, so the taps, last first,
    are a filter over outputs q - (taps - 1) .. q.
    """
    for first in range(min(layer.stride, size)):
        rest = (first + padding) % layer.stride
        taps = len(range(rest, layer.kernel, layer.stride))
        if taps:
            count = len(range(first, size, layer.stride))
            source = (first + padding) // layer.stride - (taps - 1)
            yield _AxisPhase(rest=rest, taps=taps, source=source, first=first, count=count)


def _steps(architecture: Architecture, monotone: bool) -> Iterator[_Step]:
    """The operations of an architecture; what directly follows a convolution is joined to it where it can be."""
    layers, shapes = architecture.layers, architecture.shapes()
    counts = {"conv": 0, "fc": 0, "dropout": 0}
    owner, place = "", 0
    while place < len(layers):
        layer = layers[place]
        place += 1
        if isinstance(layer, Conv):
            counts["conv"] += 1
            owner = f"conv{counts['conv']}"
            step = _join(layer, layers[place:], shapes[place], owner, monotone)
            place += step.norm + step.active + step.pool
            if step.in_place and isinstance(layers[place], Dropout):
                step.dropout = counts["dropout"]
                counts["dropout"] += 1
                place += 1
            yield step
        elif isinstance(layer, Linear):
            counts["fc"] += 1
            owner = f"fc{counts['fc']}"
            yield _Linear(owner=owner, features=layer.features)
        elif isinstance(layer, BatchNorm):
            yield _Normalisation(owner=owner)
        elif isinstance(layer, Activate):
            yield _Step()
        elif isinstance(layer, MaxPool):
            yield _MaxPool(size=layer.size)
        elif isinstance(layer, GlobalAveragePool):
            yield _AveragePool()
        elif isinstance(layer, Dropout):
            yield _Dropout(index=counts["dropout"])
            counts["dropout"] += 1
        elif not isinstance(layer, Flatten):  # a flattened [C, H, W] stays as it is: see ``cpu_layout.py``
            raise TypeError(f"no operation for {layer!r}")


def _join(
    layer: Conv, following: tuple[Layer, ...], shape: tuple[int, ...], owner: str, monotone: bool
) -> _Convolution:
    """A convolution with what it can take along of the layers that follow it."""
    norm = bool(following) and isinstance(following[0], BatchNorm)
    rest = following[norm:]
    active = bool(rest) and isinstance(rest[0], Activate)
    rest = rest[active:]
    even = shape[0] % 2 == 0 and shape[1] % 2 == 0
    fast = layer.stride == 1 and layer.kernel in _POOLED_FILTERS and even
    pool = fast and (monotone or not active) and bool(rest) and rest[0] == MaxPool(size=2)
    # Without a normalisation between them, a monotone activation's gradient follows from its value alone.
    whole = next(layer for layer in rest if not isinstance(layer, (Activate, BatchNorm, Dropout)))
    # Linear layers read images without a border; ``in_place`` may need one around the gradient.
    in_place = not norm and not pool and (monotone or not active) and not isinstance(whole, Flatten)
    return _Convolution(
        owner=owner, layer=layer, norm=norm, active=active, pool=pool, in_place=in_place, dropout=None
    )

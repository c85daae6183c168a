"""An architecture as the CPU backend runs it: a table of operations, made from its layers.

One compiled interpreter (``cpu_step.py``) runs every table, so no code is compiled for an architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from wse.kernels.batchnorm.cpu import SUMS_BYTES
from wse.kernels.philox.cpu_dropout import BITS_BYTES
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
from .arrangement import round_up
from .cpu_layout import Packing
from .cpu_operations import (
    AveragePoolStep,
    ConvolutionStep,
    DropoutStep,
    LinearStep,
    MaxPoolStep,
    NormalisationStep,
    Step,
)
from .cpu_tables import (
    ADDRESSES,
    BATCH,
    CONVOLUTION,
    NONE,
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


def _steps(architecture: Architecture, monotone: bool) -> Iterator[Step]:
    """The operations of an architecture; what directly follows a convolution is joined to it where it can be."""
    layers, shapes, owners = architecture.layers, architecture.shapes(), architecture.owners()
    drops = place = 0
    while place < len(layers):
        layer, owner = layers[place], owners[place]
        place += 1
        if isinstance(layer, Conv):
            step = _join(layer, layers[place:], shapes[place], owner, monotone)
            place += step.norm + step.active + step.pool
            if step.in_place and isinstance(layers[place], Dropout):
                step.dropout = drops
                drops += 1
                place += 1
            yield step
        elif isinstance(layer, Linear):
            yield LinearStep(owner=owner, features=layer.features)
        elif isinstance(layer, BatchNorm):
            yield NormalisationStep(owner=owner)
        elif isinstance(layer, Activate):
            yield Step()
        elif isinstance(layer, MaxPool):
            yield MaxPoolStep(size=layer.size)
        elif isinstance(layer, GlobalAveragePool):
            yield AveragePoolStep()
        elif isinstance(layer, Dropout):
            yield DropoutStep(index=drops)
            drops += 1
        elif not isinstance(layer, Flatten):  # a flattened [C, H, W] stays as it is: see ``cpu_layout.py``
            raise TypeError(f"no operation for {layer!r}")


def _join(
    layer: Conv, following: tuple[Layer, ...], shape: tuple[int, ...], owner: str, monotone: bool
) -> ConvolutionStep:
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
    return ConvolutionStep(
        owner=owner, layer=layer, norm=norm, active=active, pool=pool, in_place=in_place, dropout=None
    )

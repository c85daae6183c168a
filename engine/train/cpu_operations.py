"""The operations that a network is made of, each with what it adds to a program's tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from wse.kernels.activation.cpu import CHANNEL_BYTES
from wse.kernels.batchnorm.cpu import SUMS_BYTES
from wse.kernels.conv.cpu import keeps_vectors
from wse.kernels.conv.strided import MOST_PIXELS, SIZE, STRIDE
from wse.kernels.linear.cpu import INPUTS
from wse.kernels.philox.cpu_dropout import BITS_BYTES, DRAWN
from wse.kernels.philox.dropout import SAMPLES_PER_BLOCK
from wse.kernels.simd import VECTOR_BYTES, V

from ..nets import Conv
from ..nets.architecture import same_padding
from .arrangement import round_up
from .cpu_tables import (
    ACTIVATION,
    AVERAGE_POOL,
    CONVOLUTION,
    DROPOUT,
    LINEAR,
    MAX_POOL,
    NONE,
    NORMALISATION,
    Tables,
    Value,
)


@dataclass(kw_only=True)
class Step:
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
class NormalisationStep(Step):
    """A batch normalisation that stands alone."""

    kind: int = NORMALISATION


@dataclass(kw_only=True)
class MaxPoolStep(Step):
    """A max-pooling that stands alone."""

    size: int
    kind: int = MAX_POOL

    def after(self, before: Value) -> Value:
        return Value(channels=before.channels, height=before.height // self.size, width=before.width // self.size)

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        operation["size"] = self.size


@dataclass(kw_only=True)
class AveragePoolStep(Step):
    """A global average pooling."""

    kind: int = AVERAGE_POOL

    def after(self, before: Value) -> Value:
        return Value(channels=before.channels, height=1, width=1)

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        operation["share"] = made.room(4)


@dataclass(kw_only=True)
class DropoutStep(Step):
    """A dropout that stands alone."""

    index: int
    kind: int = DROPOUT

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        self._channels(operation, 1, made)
        self._drop(operation, self.index, before, made)


@dataclass(kw_only=True)
class LinearStep(Step):
    """A linear layer."""

    features: int
    kind: int = LINEAR

    def after(self, before: Value) -> Value:
        return Value(channels=self.features, height=1, width=1)

    def fill(self, operation: dict[str, int], before: Value, after: Value, made: Tables) -> None:
        inputs = before.channels * before.height * before.width
        operation |= {"inputs": inputs, "allotted": round_up(inputs, INPUTS), "outputs": self.features}
        operation["turned"] = made.room(made.groups * V * round_up(self.features, V) * 4)


@dataclass(kw_only=True)
class ConvolutionStep(Step):
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

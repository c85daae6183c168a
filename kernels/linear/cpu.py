"""Linear layers on lane tiles: forward, input gradient and weight gradient.

Values are [group][feature][V], where groups lie any number of bytes apart. Weights are [out / V][in][V], both
counts rounded up: outputs to a multiple of V, inputs to one of INPUTS, with zeros for what is not there.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit

from ..simd import MANY_REGISTERS, VECTOR_BYTES, Builder, V, Value, kernel, peek, poke

INPUTS = 16
"""Features are allotted, in values and weights, in multiples of this."""

# A tile of so many features x 2 groups fills the accumulators.
_OUTPUTS = 8 if MANY_REGISTERS and V >= 8 else 4
_FEATURES = 8 if MANY_REGISTERS else 4
_OUTER = INPUTS if MANY_REGISTERS else 8


def _forward(groups: int) -> Callable[..., None]:
    @kernel
    def multiply(
        k: Builder, x: Value, x_group: Value, w: Value, inputs: Value, bias: Value, y: Value, y_group: Value
    ) -> None:
        starts = [k.load_all(bias, 4 * output) for output in range(_OUTPUTS)]
        sums = [[k.variable(start) for _ in range(groups)] for start in starts]
        with k.loop(inputs) as index:
            weight, at = k.plus(w, k.times(index, VECTOR_BYTES)), k.plus(x, k.times(index, VECTOR_BYTES))
            values = [k.load(address) for address in k.steps(at, x_group, groups)]
            for output in range(_OUTPUTS):
                factor = k.load_all(weight, 4 * output)
                for total, value in zip(sums[output], values, strict=True):
                    total.set(k.fma(factor, value, total.get()))
        for output in range(_OUTPUTS):
            for at, total in zip(k.steps(y, y_group, groups), sums[output], strict=True):
                k.store(total.get(), at, output * VECTOR_BYTES)

    return multiply


def _input_gradient(groups: int) -> Callable[..., None]:
    @kernel
    def multiply(
        k: Builder, d: Value, d_group: Value, w: Value, block_bytes: Value, blocks: Value, g: Value, g_group: Value
    ) -> None:
        sums = [[k.variable(k.constant(0.0)) for _ in range(groups)] for _ in range(_FEATURES)]
        with k.loop(blocks) as block, k.loop(V) as lane:
            output = k.plus(k.times(block, V), lane)
            weight = k.plus(w, k.plus(k.times(block, block_bytes), k.times(lane, 4)))
            at = k.plus(d, k.times(output, VECTOR_BYTES))
            values = [k.load(address) for address in k.steps(at, d_group, groups)]
            for feature in range(_FEATURES):
                factor = k.load_all(weight, feature * VECTOR_BYTES)
                for total, value in zip(sums[feature], values, strict=True):
                    total.set(k.fma(factor, value, total.get()))
        for feature in range(_FEATURES):
            for at, total in zip(k.steps(g, g_group, groups), sums[feature], strict=True):
                k.store(total.get(), at, feature * VECTOR_BYTES)

    return multiply


@kernel
def _outer(
    k: Builder, x: Value, x_group: Value, groups: Value, turned: Value, turned_sample: Value, gradient: Value
) -> None:
    """Gradient [_OUTER][V] += sum over samples of x [_OUTER] (broadcast) times turned [sample][V]."""
    sums = [k.variable(k.load(gradient, feature * VECTOR_BYTES)) for feature in range(_OUTER)]
    row = k.variable(turned)
    with k.loop(groups) as group:
        column = k.variable(k.plus(x, k.times(group, x_group)))
        with k.loop(V):
            slopes = k.load(row.get())
            for feature, total in enumerate(sums):
                total.set(k.fma(k.load_all(column.get(), feature * VECTOR_BYTES), slopes, total.get()))
            column.set(k.plus(column.get(), 4))
            row.set(k.plus(row.get(), turned_sample))
    for feature, total in enumerate(sums):
        k.store(total.get(), gradient, feature * VECTOR_BYTES)


_forward_1, _forward_2 = _forward(1), _forward(2)
_input_1, _input_2 = _input_gradient(1), _input_gradient(2)


@njit(nogil=True)
def forward(x, x_group, w, bias, y, y_group, groups, inputs, allotted, outputs):
    """Y = W x + bias.

    Args:
        x: address of the input.
        x_group: bytes from group to group.
        w: address of the weights.
        bias: address of float32 [outputs, rounded up to a multiple of V].
        y: address of the output.
        y_group: bytes from group to group.
        groups: how many.
        inputs: input features.
        allotted: input features that the weights have room for.
        outputs: output features; room for a multiple of V is written.
    """
    for output in range(0, outputs, _OUTPUTS):
        tile = w + (output // V * allotted * V + output % V) * 4
        for group in range(0, groups - 1, 2):
            _forward_2(
                x + group * x_group, x_group, tile, inputs, bias + 4 * output,
                y + group * y_group + output * VECTOR_BYTES, y_group,
            )  # fmt: skip
        if groups % 2:
            group = groups - 1
            _forward_1(
                x + group * x_group, x_group, tile, inputs, bias + 4 * output,
                y + group * y_group + output * VECTOR_BYTES, y_group,
            )  # fmt: skip


@njit(nogil=True)
def input_gradient(d, d_group, w, g, g_group, groups, inputs, allotted, outputs):
    """G = W^T d, for ``inputs`` rounded up to a multiple of _FEATURES; arguments as for ``forward``."""
    blocks = (outputs + V - 1) // V
    for feature in range(0, inputs, _FEATURES):
        rows = w + feature * VECTOR_BYTES
        for group in range(0, groups - 1, 2):
            _input_2(
                d + group * d_group, d_group, rows, allotted * VECTOR_BYTES, blocks,
                g + group * g_group + feature * VECTOR_BYTES, g_group,
            )  # fmt: skip
        if groups % 2:
            group = groups - 1
            _input_1(
                d + group * d_group, d_group, rows, allotted * VECTOR_BYTES, blocks,
                g + group * g_group + feature * VECTOR_BYTES, g_group,
            )  # fmt: skip


@njit(nogil=True)
def parameter_gradient(x, x_group, d, d_group, groups, inputs, allotted, outputs, turned, gradient, d_bias):
    """Add to the gradients of weights and bias.

    Args:
        x: address of the input.
        x_group: bytes from group to group.
        d: address of the gradient with respect to the output, 0 in dead lanes.
        d_group: bytes from group to group.
        groups: how many.
        inputs: input features.
        allotted: input features that the weights have room for.
        outputs: output features.
        turned: address of room for float32 [groups * V, outputs rounded up to a multiple of V].
        gradient: address of the weights' gradient.
        d_bias: address of the bias's gradient; 0: not wanted.
    """
    width = (outputs + V - 1) // V * V
    for output in range(width):
        total = 0.0
        for group in range(groups):
            for lane in range(V):
                slope = peek(d + group * d_group + output * VECTOR_BYTES + 4 * lane)
                poke(turned + ((group * V + lane) * width + output) * 4, slope)
                total += slope
        if d_bias and output < outputs:
            poke(d_bias + 4 * output, peek(d_bias + 4 * output) + total)
    for block in range(0, width, V):
        for feature in range(0, inputs, _OUTER):
            _outer(
                x + feature * VECTOR_BYTES, x_group, groups, turned + 4 * block, 4 * width,
                gradient + (block * allotted + feature * V) * 4,
            )  # fmt: skip

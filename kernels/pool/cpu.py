"""Max-pooling and global average pooling on lane tiles.

A tile is one channel of one group of V samples; addresses and strides are in bytes.
"""

from __future__ import annotations

from ..simd import VECTOR_BYTES, Builder, Value, kernel


@kernel
def max_pool(
    k: Builder, x: Value, x_row: Value, y: Value, y_row: Value, rows: Value, pixels: Value, size: Value
) -> None:
    """Y [rows, pixels] = the largest of each window of size x size."""
    with k.loop(rows) as row, k.loop(pixels) as pixel:
        corner = k.plus(x, k.times(size, k.plus(k.times(row, x_row), k.times(pixel, VECTOR_BYTES))))
        largest = k.variable(k.load(corner))
        with k.loop(size) as down, k.loop(size) as right:
            value = k.load(k.plus(corner, k.plus(k.times(down, x_row), k.times(right, VECTOR_BYTES))))
            so_far = largest.get()  # once NaN it stays so, as in PyTorch
            largest.set(k.select(k.equal(so_far, so_far), k.maximum(so_far, value), so_far))
        k.store(largest.get(), k.plus(y, k.plus(k.times(row, y_row), k.times(pixel, VECTOR_BYTES))))


@kernel
def max_unpool(
    k: Builder, d: Value, d_row: Value, x: Value, x_row: Value, y: Value, y_row: Value,
    g: Value, g_row: Value, rows: Value, pixels: Value, size: Value,
) -> None:  # fmt: skip
    """G = d [rows, pixels] at the first of each window that equals its largest, y, as in PyTorch; else 0."""
    zero = k.constant(0.0)
    with k.loop(rows) as row, k.loop(pixels) as pixel:
        at = k.times(pixel, VECTOR_BYTES)
        largest = k.load(k.plus(y, k.plus(k.times(row, y_row), at)))
        left = k.variable(k.load(k.plus(d, k.plus(k.times(row, d_row), at))))
        with k.loop(size) as down, k.loop(size) as right:
            across = k.plus(k.times(at, size), k.times(right, VECTOR_BYTES))
            line = k.plus(k.times(row, size), down)
            hit = k.equal(k.load(k.plus(x, k.plus(k.times(line, x_row), across))), largest)
            k.store(k.select(hit, left.get(), zero), k.plus(g, k.plus(k.times(line, g_row), across)))
            left.set(k.select(hit, zero, left.get()))


@kernel
def average(k: Builder, x: Value, x_row: Value, rows: Value, pixels: Value, share: Value, y: Value) -> None:
    """Y = the sum over a tile times the float at ``share``."""
    total = k.variable(k.constant(0.0))
    with k.loop(rows) as row, k.loop(pixels) as pixel:
        at = k.plus(k.times(row, x_row), k.times(pixel, VECTOR_BYTES))
        total.set(k.add(total.get(), k.load(k.plus(x, at))))
    k.store(k.mul(total.get(), k.load_all(share)), y)


@kernel
def spread(k: Builder, d: Value, g: Value, g_row: Value, rows: Value, pixels: Value, share: Value) -> None:
    """Every pixel of g = d times the float at ``share``: the gradient of ``average``."""
    value = k.mul(k.load(d), k.load_all(share))
    with k.loop(rows) as row, k.loop(pixels) as pixel:
        k.store(value, k.plus(g, k.plus(k.times(row, g_row), k.times(pixel, VECTOR_BYTES))))

"""Speed of the compiled parts around the CPU backend's network, on one core.

    python benchmarks/cpu_parts.py

Random words, dropout masks, input tiles and optimizer steps, each checked against its reference before it is timed
(a wrong result prints no figure). Figures are the best and the median of several repeats after a warm-up.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numba import njit

from wse.kernels.inputs import augment, gather
from wse.kernels.inputs.cpu import input_tiles
from wse.kernels.optim import STATE_SLOTS, initial_state, step
from wse.kernels.optim.cpu import FORM_CODES, KIND_CODES, optimizer_step
from wse.kernels.philox import keep_mask, permute
from wse.kernels.philox import philox4x32 as reference_philox
from wse.kernels.philox.cpu import philox4x32
from wse.kernels.philox.cpu_dropout import keep_bits
from wse.kernels.philox.cpu_permute import permute_in_place

REPEATS = 25
MINIMUM_SECONDS = 2e-3  # of a repeat
SEED = np.uint64(2**63 + 5)

Row = tuple[str, float, float, str]


def measure(work: Callable[[], None], parts: int, unit: str, name: str) -> Row:
    """Best and median seconds for one of the parts that a call of ``work`` does, in ``unit``."""
    started = time.perf_counter()
    work()
    calls = max(1, int(MINIMUM_SECONDS / (time.perf_counter() - started)))
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(calls):
            work()
        seconds.append((time.perf_counter() - started) / calls / parts)
    scale = {"ns": 1e9, "us": 1e6}[unit.split()[0]]
    return name, scale * min(seconds), scale * statistics.median(seconds), unit


@njit
def fill(out: np.ndarray, seed: int, epoch: int, member: int, stream: int) -> None:
    for i in range(out.shape[1]):
        out[0, i], out[1, i], out[2, i], out[3, i] = philox4x32(seed, i, epoch, member, stream)


def words() -> Iterator[Row]:
    blocks = 4096
    out = np.zeros((4, blocks), np.uint32)
    work = partial(fill, out, SEED, 1, 2, 3)
    work()
    np.testing.assert_array_equal(out.T, reference_philox(int(SEED), (np.arange(blocks), 1, 2, 3)))
    yield measure(work, blocks, "ns a block", "Philox4x32-10")


def masks() -> Iterator[Row]:
    samples, units = 64, 512
    address = {"seed": int(SEED), "member": 1, "layer": 2, "epoch": 3, "batch": 4}
    out = np.empty((samples // 16, units), np.uint16)
    work = partial(keep_bits, out.ctypes.data, 2 * units, 0.3, SEED, 1, 2, 3, 4, samples, units)
    work()
    got = (out[..., None] >> np.arange(16) & 1).transpose(0, 2, 1).reshape(samples, units)
    np.testing.assert_array_equal(got, keep_mask(0.3, **address, samples=samples, units=units))
    yield measure(work, units * samples // 16, "ns a unit of 16 samples", "dropout bits")


def orders() -> Iterator[Row]:
    size = 54_000
    out = np.empty(size, np.uint32)

    def work() -> None:
        out[:] = np.arange(size)
        permute_in_place(out, size, SEED, 1, 2, 3)

    work()
    np.testing.assert_array_equal(out, permute(np.arange(size), size, seed=int(SEED), member=1, stream=2, epoch=3))
    yield measure(work, size, "ns a number", "permutation of 54,000")


def inputs() -> Iterator[Row]:
    """Noise images, in tiles with a border of two pixels; a colour image is the dearest."""
    batch, size = 64, 36
    colour = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
    grey = np.repeat(colour[..., :1], 3, axis=-1)
    plane = np.ascontiguousarray(colour[..., :1])
    indices = np.random.default_rng(1).integers(0, len(colour), batch)
    kinds = [(False, "colour"), (False, "one channel of grey"), (True, "colour"), (True, "grey")]
    for (augmented, kind), V in itertools.product(kinds, (4, 8, 16)):
        images = {"colour": colour, "grey": grey}.get(kind, plane)
        tiles = np.zeros((batch // V, 3, size, size, V), np.float32)
        group, channel, row, pixel = (stride // 4 for stride in tiles.strides[:4])
        layout = (2 * (row + pixel), group, channel, row, V)
        address = (SEED, 1, 2, 0)
        work = partial(input_tiles, images, indices, tiles.ravel(), *layout, False, 0.0, 1.0, augmented, *address)
        work()
        got = tiles[:, :, 2:-2, 2:-2].transpose(0, 4, 1, 2, 3).reshape(batch, 3, 32, 32)
        expected = gather(colour if kind == "colour" else grey, indices)
        if augmented:
            expected = augment(expected, seed=int(SEED), member=1, epoch=2, first_sample=0)
        np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-4 if augmented else 0)
        yield measure(work, batch, "us an image", f"{'augmented' if augmented else 'plain'} {kind}, V = {V}")


def optimizers() -> Iterator[Row]:
    """A small network's vectors stay in the caches, a large one's do not."""
    for size, (kind, slots) in itertools.product((30_000, 8_000_000), STATE_SLOTS.items()):
        rng = np.random.default_rng(0)
        gradient, weights = rng.standard_normal((2, size), np.float32)
        expected = torch.from_numpy(weights.copy())
        state = initial_state(expected, kind, "torch")
        codes = KIND_CODES[kind], FORM_CODES["torch"]
        work = partial(optimizer_step, weights, gradient, state.numpy().copy(), *codes, 1e-4, 1, 0.9)
        work()
        options = {"learning_rate": 1e-4, "count": 1, "momentum": 0.9}
        step(expected, torch.from_numpy(gradient), state, kind=kind, form="torch", **options)
        np.testing.assert_allclose(weights, expected.numpy(), rtol=1e-6, atol=1e-7)
        name, best, median, unit = measure(work, size, "ns a value", f"{kind}, {size:,} values")
        moved_bytes = 4 * (3 + 2 * slots)  # weights and state are read and written, the gradient is read
        yield f"{name} ({moved_bytes / best:.0f} GB/s)", best, median, unit


def main() -> None:
    torch.set_num_threads(1)
    print("| | best | median | |\n|---|---:|---:|---|")
    for group in (words, masks, orders, inputs, optimizers):
        for name, best, median, unit in group():
            print(f"| {name} | {best:.2f} | {median:.2f} | {unit} |", flush=True)


if __name__ == "__main__":
    main()

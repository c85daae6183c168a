"""Where the time of a CPU training step goes, stage by stage, and how near to the peak each stage computes.

    python benchmarks/cpu_profile.py [--case nws-fixed] [--dataset mnist] [--seconds 2]

The stages are those of ``wse.engine.train.cpu_step``, run one after the other as in training, a clock read between
them. A stage's GFLOP/s counts useful FLOPs only, those of a convolution's or linear layer's three passes; its
share is of the multiply-add peak that the same core reached just before or after.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import cpu_step as cases
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from wse.engine.data import load
from wse.engine.nets import Conv, Layout, Linear, initial_weights
from wse.engine.space import Space
from wse.engine.train import Context, Split
from wse.engine.train import cpu as backend
from wse.engine.train.cpu_step import (
    SOURCES,
    backward,
    draw_dropout,
    enter,
    forward,
    learn,
    set_ends,
    summed_loss,
)
from wse.engine.train.cpu_tables import AVERAGE_POOL, CONVOLUTION, DROPOUT, LINEAR, MAX_POOL, NORMALISATION
from wse.kernels.simd.cache import cached_njit

OUTSIDE = ("input", "dropout bits", "loss", "optimizer")
NAMES = {CONVOLUTION: "conv", LINEAR: "linear", NORMALISATION: "norm", MAX_POOL: "max-pool", DROPOUT: "dropout"}


@intrinsic
def cycles(typing_context: Any) -> Any:
    """The processor's time-stamp counter."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [])
        name = "llvm.readcyclecounter"
        return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [])

    return types.int64(), emit


def _profile(bound, scene, learning, batches, batch_size, spent):
    """Train on batches; add the cycles of the stages to ``spent``: OUTSIDE, then each operation's two passes."""
    batch = bound.batch[0]
    batch.weights, batch.gradient = learning.weights.ctypes.data, learning.gradient.ctypes.data
    batch.activation, batch.batch_statistics = learning.activation, int(learning.batch_statistics)
    batch.dropout = int(learning.dropout > 0)
    set_ends(bound, batch, learning)
    operations, first_pass = len(bound.operations), 4
    total = 0.0
    for number in range(batches):
        learning.gradient[:] = 0
        slices = (batch_size + bound.slice - 1) // bound.slice
        for part in range(slices):
            first = number * batch_size + part * bound.slice
            batch.first, batch.last = int(part == 0), int(part == slices - 1)
            now = cycles()
            enter(bound, scene, batch, first, min(bound.slice, batch_size), batch_size)
            before, now = now, cycles()
            spent[0] += now - before
            if batch.dropout:
                draw_dropout(bound, batch, scene, learning.dropout, number * slices + part)
            before, now = now, cycles()
            spent[1] += now - before
            for place in range(operations):
                forward(bound, batch, place)
                before, now = now, cycles()
                spent[first_pass + 2 * place] += now - before
            total += summed_loss(bound, batch, scene, first)
            before, now = now, cycles()
            spent[2] += now - before
            for place in range(operations - 1, -1, -1):
                backward(bound, batch, place)
                before, now = now, cycles()
                spent[first_pass + 2 * place + 1] += now - before
        now = cycles()
        learn(batch, learning, 1e-3, number + 1)
        spent[3] += cycles() - now
    return total


profile = cached_njit(_profile, [Path(__file__), *SOURCES])


def useful(layer: Any, before: tuple[int, ...], after: tuple[int, ...]) -> float:
    """FLOPs of one image's forward pass."""
    if isinstance(layer, Conv):
        return 2.0 * after[0] * after[1] * after[2] * before[2] * layer.kernel**2
    return 2.0 * after[0] * before[0]


def run(name: str, dataset: str, seconds: float) -> None:
    preset, overrides = cases.CASES[name]
    keys = {
        "dataset": dataset,
        "augmentation": False,
        "initialization": "glorot_uniform",
        "images_per_epoch": 1024,
    }
    keys |= {"learning_rate": 1e-3, "dropout": 0.5, "train_fraction": 1.0, **overrides}
    if preset == "small-cnn":
        keys |= {"l2": 0.0, "init_std": 0.1}
    space = Space.load(preset=preset, overrides=keys)
    member = space.members(0, [0])[0]
    split = Split.make(load(dataset), seed=0, settings=space.settings)
    context = Context(settings=space.settings, splits={dataset: split}, should_stop=lambda: False)
    layout = Layout(member.architecture)
    pack = backend.CpuBackend().open(member.architecture, 1, context)
    weights = initial_weights(layout, "glorot_uniform", seed=0, member=0, gamma_std=0.002)
    pack.place(0, member, weights)
    setup, desk, training = member.setup, pack._desk, pack._training(0)
    indices = split.epoch_indices(member, 1, limit=16384)
    scene = backend._scene(member.architecture, member, split, "training", indices, augmented=False, epoch=1)
    bound = desk.bound(setup.batch_size, setup.activation)
    learning = backend._learning(
        context, member, training.weights, desk.gradient, training._state, training._decays
    )
    spent = np.zeros(4 + 2 * len(bound.operations), np.int64)
    batches = len(indices) // setup.batch_size
    profile(bound, scene, learning, batches, setup.batch_size, spent)
    spent[:] = 0
    peak = cases.peak_gflops()
    images, began, clock = 0, time.perf_counter(), time.thread_time()
    while time.perf_counter() - began < seconds:
        profile(bound, scene, learning, batches, setup.batch_size, spent)
        images += batches * setup.batch_size
    clock = time.thread_time() - clock
    peak = max(peak, cases.peak_gflops())
    microseconds = spent / spent.sum() * clock / images * 1e6
    shapes = member.architecture.shapes()
    dense = [
        useful(layer, before, after)
        for layer, before, after in zip(member.architecture.layers, shapes, shapes[1:], strict=False)
        if isinstance(layer, Conv | Linear)
    ]
    total = sum(3 * flops for flops in dense) - dense[0]
    share = total / microseconds.sum() / 1e3 / peak
    print(f"\n{name}: {microseconds.sum():.2f} us an image, {share:.1%} of {peak:.0f} GFLOP/s\n")
    print("| stage | us an image | share of the time | GFLOP/s | of peak |\n|---|---:|---:|---:|---:|")
    rows = [(title, microseconds[index], 0.0) for index, title in enumerate(OUTSIDE)]
    flops, first = iter(dense), True
    for place, operation in enumerate(bound.operations):
        title = NAMES.get(operation["kind"], "average" if operation["kind"] == AVERAGE_POOL else "activation")
        work = next(flops) if operation["kind"] in (CONVOLUTION, LINEAR) else 0.0
        rows.append((f"{place + 1} {title} forward", microseconds[4 + 2 * place], work))
        rows.append((f"{place + 1} {title} backward", microseconds[5 + 2 * place], work if first else 2 * work))
        first = first and operation["kind"] != CONVOLUTION
    for title, spent_here, work in rows:
        rate = work / spent_here / 1e3 if spent_here else 0.0
        figures = f"{rate:.0f} | {rate / peak:.0%}" if work else " | "
        print(f"| {title} | {spent_here:.3f} | {spent_here / microseconds.sum():.1%} | {figures} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="", help="part of a case's name")
    parser.add_argument("--dataset", default="digits", help="an image set that is here")
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    for name in cases.CASES:
        if arguments.case in name:
            run(name, arguments.dataset, arguments.seconds)


if __name__ == "__main__":
    main()

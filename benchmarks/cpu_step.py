"""How fast the CPU backend trains, against the machine's multiply-add peak and against the reference backend.

    python benchmarks/cpu_step.py [--seconds 4] [--threads 1 2] [--reference]

Prints, for each case, samples a second, useful GFLOP/s (``wse.engine.nets.training_flops``) and their share of
the larger of the peaks measured just before and after; with --reference also the rate of as many threads of the
PyTorch reference backend. It refuses to print when the two backends' losses disagree.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from wse.engine.data import load
from wse.engine.nets import Layout, initial_weights, training_flops
from wse.engine.space import Space
from wse.engine.train import Context, ReferenceBackend, Split
from wse.engine.train.backend import Backend
from wse.engine.train.cpu import CpuBackend
from wse.kernels.simd import Builder, V, Value, kernel

_CHAINS = 24 if V == 16 else 12  # independent sums: enough to hide the latency, few enough for the registers

CASES = {
    "nws-fixed, batch 64": ("nws-fixed", {"batch_size": 64, "optimizer": "adam", "activation": "relu"}),
    "nws-fixed, batch 256": ("nws-fixed", {"batch_size": 256, "optimizer": "adam", "activation": "elu"}),
    "nws k3 c5x8, batch 64": (
        "nws-fixed",
        {"batch_size": 64, "filter_size": 3, "depth_conv": 5, "activation": "tanh"},
    ),
    "nws k7 c4x12, batch 64": (
        "nws-fixed",
        {"batch_size": 64, "filter_size": 7, "depth_conv": 4, "width_conv": 12},
    ),
    "small-cnn, batch 64": ("small-cnn", {"batch_size": 64, "optimizer": "adam", "activation": "relu"}),
    "small-cnn, batch 512": ("small-cnn", {"batch_size": 512, "optimizer": "adam", "activation": "relu"}),
    "small-cnn, batch 512, tanh": ("small-cnn", {"batch_size": 512, "optimizer": "adam", "activation": "tanh"}),
}


@kernel
def _multiply_adds(k: Builder, rounds: Value, out: Value) -> None:
    sums = [k.variable(k.constant(0.1 * chain)) for chain in range(_CHAINS)]
    with k.loop(rounds):
        for total in sums:
            total.set(k.fma(total.get(), k.constant(0.999), k.constant(0.5)))
    for index, total in enumerate(sums):
        k.store(total.get(), out, index * 4 * V)


def peak_gflops(rounds: int = 1_000_000) -> float:
    """The machine's multiply-add peak on one core now, GFLOP/s; the best of five runs."""
    out = np.zeros(_CHAINS * V, np.float32)
    _multiply_adds(1, out.ctypes.data)
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        _multiply_adds(rounds, out.ctypes.data)
        best = min(best, time.thread_time() - began)
    return 2 * _CHAINS * V * rounds / best / 1e9


def trainer(
    backend: Backend, preset: str, overrides: dict[str, object], thread: int
) -> tuple[Callable[[], int], float, int]:
    """(something that trains for an epoch and says on how many images, first loss, FLOPs a sample)."""
    fixed = {
        "dataset": "digits",
        "augmentation": False,
        "initialization": "glorot_uniform",
        "epochs": 100000,
        "images_per_epoch": 1024,
    }
    drawn = {"learning_rate": 0.001, "dropout": 0.5, "train_fraction": 1.0}
    if preset == "small-cnn":
        drawn |= {"l2": 1e-4, "init_std": 0.1}
    space = Space.load(preset=preset, overrides={**fixed, **drawn, **overrides})
    member = space.members(0, [thread])[0]
    split = Split.make(load("digits"), seed=0, settings=space.settings)
    context = Context(settings=space.settings, splits={"digits": split}, should_stop=lambda: False)
    pack = backend.open(member.architecture, 1, context)
    layout = Layout(member.architecture)
    pack.place(0, member, initial_weights(layout, "glorot_uniform", seed=0, member=thread, gamma_std=0.002))
    first = pack.advance()[0].loss
    return lambda: pack.advance()[0].images, first, training_flops(member.architecture)


def rate(
    backend: Backend, preset: str, overrides: dict[str, object], threads: int, seconds: float
) -> tuple[float, float, int]:
    """(samples a second of all threads, first loss, FLOPs a sample).

    Seconds are those that a thread had a core, so what else the machine does counts little.
    """
    made = [trainer(backend, preset, overrides, thread) for thread in range(threads)]
    rates, stop = [0.0] * threads, threading.Event()

    def work(index: int) -> None:
        began, images = time.thread_time(), 0
        while not stop.is_set():
            images += made[index][0]()
        rates[index] = images / (time.thread_time() - began)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return sum(rates), made[0][1], made[0][2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--case", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| case | threads | samples/s | GFLOP/s | peak a core | share of peak | reference samples/s | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (preset, overrides) in CASES.items():
        if arguments.case not in name:
            continue
        for threads in arguments.threads:
            peak = peak_gflops()
            samples, loss, flops = rate(CpuBackend(), preset, overrides, threads, arguments.seconds)
            peak = max(peak, peak_gflops())
            gflops = samples * flops / 1e9
            share = gflops / peak / threads
            assert share < 1.02, "faster than the machine: something is not computed"
            row = f"| {name} | {threads} | {samples:,.0f} | {gflops:.0f} | {peak:.0f} | {share:.1%} |"
            if arguments.reference:
                other, expected, _ = rate(ReferenceBackend(), preset, overrides, threads, arguments.seconds)
                assert abs(loss - expected) < 2e-2 * abs(expected), (loss, expected)
                row += f" {other:,.0f} | {samples / other:.2f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()

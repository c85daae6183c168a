"""How fast packs of members train on a GPU, what each kernel's share is, and what PyTorch makes of the same work.

    python benchmarks/gpu_step.py [--preset nws-fixed] [--members 64 256 1024 2048] [--precision bf16] [--out FILE]

Before anything is timed, two steps are compared with the reference backend; nothing is printed if they disagree.
Then for each number of members: samples a second of whole epochs through the seam that a run uses, snapshots of
all rows included, and the kernels' shares of a step, by the profiler. With --rivals PyTorch on one member (eager,
and its step as a CUDA graph) and on many (``torch.func.vmap``, grouped convolutions). Images are noise: speed does
not depend on them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import gpu_rivals
import numpy as np
import torch

from wse.engine.data import ImageSet
from wse.engine.nets import Layout, initial_weights, training_flops
from wse.engine.space import Member, Space
from wse.engine.train import Context, ReferenceBackend, Split
from wse.engine.train.cuda import CudaBackend, CudaPack

SEED = 1
LIMITS = {"bf16": 0.03, "fp32": 1e-4}  # how far a loss may be from the reference's, relative
COMMON = {
    "dataset": "digits",
    "augmentation": False,
    "activation": "relu",
    "optimizer": "adam",
    "learning_rate": 0.001,
    "initialization": "glorot_uniform",
    "epochs": 1000,
}


def population(preset: str, members: int, batch: int, steps: int, augmented: bool) -> tuple[list[Member], Context]:
    """Members of one set-up, and a context with noise for images."""
    keys = {**COMMON, "batch_size": batch, "images_per_epoch": batch * steps, "augmentation": augmented}
    if preset == "small-cnn":
        keys |= {"dropout": 0.5, "train_fraction": 1.0, "l2": 0.0, "init_std": 0.1}
    space = Space.load(preset=preset, overrides=keys)
    rng = np.random.default_rng(0)
    count = max(batch * steps * 2, 2000)
    images = ImageSet(
        name="digits",
        n_classes=10,
        train_images=rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        train_labels=(np.arange(count) % 10).astype(np.uint8),
        test_images=rng.integers(0, 256, (1000, 32, 32, 3), dtype=np.uint8),
        test_labels=(np.arange(1000) % 10).astype(np.uint8),
        sha256="noise",
    )
    split = Split.make(images, seed=SEED, settings=space.settings)
    context = Context(settings=space.settings, splits={"digits": split}, should_stop=lambda: False)
    return space.members(SEED, range(members)), context


def filled(pack: Any, members: list[Member]) -> Any:
    layout = Layout(members[0].architecture)
    for row, member in enumerate(members):
        pack.place(row, member, initial_weights(layout, "glorot_uniform", seed=SEED, member=member.id))
    return pack


def check(backend: CudaBackend, preset: str, batch: int) -> None:
    members, context = population(preset, 3, batch, 2, augmented=True)
    architecture = members[0].architecture
    losses = []
    for judge in (backend, ReferenceBackend()):
        found = {}
        pack = filled(judge.open(architecture, len(members), context), members)
        while len(found) < len(members):
            found |= {end.row: end.loss for end in pack.advance()}
        losses.append(np.array([found[row] for row in range(len(members))]))
    error = np.abs(losses[0] / losses[1] - 1).max()
    print(f"loss after two steps: within {error:.1e} of the reference's")
    if not error <= LIMITS[backend.precision]:
        raise SystemExit(f"{preset}, {backend.precision}: losses differ by {error:.1e}: nothing is timed")


def rate(work: Callable[[], int], device: torch.device, seconds: float) -> list[float]:
    """Images a second of repeats of ``work``, which says how many it did; after a first that does not count."""
    rates = []
    work()
    finish(device)
    deadline = time.perf_counter() + seconds
    while not rates or (time.perf_counter() < deadline and len(rates) < 20):
        began = time.perf_counter()
        images = work()
        finish(device)
        rates.append(images / (time.perf_counter() - began))
    return rates


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shares(pack: CudaPack, steps: int) -> list[tuple[str, float]]:
    """Microseconds of each kernel in a step, the longest first."""
    pack.advance()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        pack.advance()
    torch.cuda.synchronize()
    times = [(event.key, event.self_device_time_total / steps) for event in profile.key_averages()]
    return sorted(((name, time) for name, time in times if time > 0), key=lambda row: -row[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="nws-fixed", choices=["nws-fixed", "small-cnn"])
    parser.add_argument("--members", type=int, nargs="+", default=[64, 256, 1024, 2048])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=64, help="of an epoch")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--augment", action="store_true")
    parser.add_argument("--rivals", action="store_true", help="PyTorch too")
    parser.add_argument("--device", default="cuda", help="cpu only with TRITON_INTERPRET=1, to try the script")
    parser.add_argument("--out", help="append the results to this file, a JSON line each")
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the interpreter"
    print(f"{options.preset}, batch {options.batch}, {options.precision}, on {name}; torch {torch.__version__}")
    results: list[dict[str, Any]] = []

    def note(label: str, rates: list[float], flops: int) -> None:
        middle = float(np.median(rates))
        spread = f"({min(rates):12,.0f} to {max(rates):12,.0f})"
        print(f"{label:34} {middle:14,.0f} samples/s {spread}  {middle * flops / 1e12:8.2f} TFLOP/s", flush=True)
        results.append({"label": label, "rates": rates, "gpu": name, "torch": torch.__version__, **vars(options)})

    room = 4096 if device.type == "cuda" else 1
    backend = CudaBackend(options.precision, device=device, evaluation_images=room)
    check(backend, options.preset, min(options.batch, 32) if device.type == "cuda" else 2)
    members: list[Member] = []
    for count in options.members:
        members, context = population(options.preset, count, options.batch, options.steps, options.augment)
        architecture = members[0].architecture
        flops = training_flops(architecture)
        if (fits := backend.rows(architecture, members)) < count:
            print(f"{count} members do not fit: {fits} would")
            continue
        pack = filled(backend.open(architecture, count, context), members)
        epoch = rate(lambda pack=pack: sum(end.images for end in pack.advance()), device, options.seconds)
        note(f"ours, {count} members", epoch, flops)
        if device.type == "cuda":
            results[-1]["gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
            results[-1]["microseconds"] = dict(shares(pack, options.steps))
            total = sum(results[-1]["microseconds"].values())
            for kernel, spent in list(results[-1]["microseconds"].items())[:12]:
                print(f"    {kernel[:60]:60} {spent:9.1f} us a step {spent / total:7.1%}")
            del pack
            torch.cuda.empty_cache()
    if options.rivals:
        setup = members[0].setup
        for label, rival in gpu_rivals.rivals(architecture, setup, options.batch, device):
            try:
                note(label, rate(rival, device, options.seconds), flops)
            except (RuntimeError, torch.OutOfMemoryError) as error:
                print(f"{label}: {str(error).splitlines()[0]}")
    if options.out:
        with open(options.out, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in results)


if __name__ == "__main__":
    main()

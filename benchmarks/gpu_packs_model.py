"""A model, not a measurement: what share of a step's FLOP rate a mixed population reaches, by packs at a time.

    python benchmarks/gpu_packs_model.py [--members 2000 10000]

A step of a pack takes as long as its launches or its FLOPs, whichever is longer; packs at the same time share the
GPU without loss. A member that has ended leaves its row empty. `gpu_packs.py` asks a GPU.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence

from wse.engine.nets import Architecture, training_flops
from wse.engine.space import Member, Space
from wse.engine.train.cuda_blocks import blocks_of

FLOPS = 90e12  # a second, of a step with enough images
LAUNCH_SECONDS = 4e-6  # of a kernel in a graph, at least
EPOCHS, IMAGES = 30, 50_000


def launches(architecture: Architecture) -> int:
    """Of a training step, about."""
    blocks = blocks_of(architecture)
    convolutions = sum(len(block.made) == 3 for block in blocks)
    return 5 + 9 * convolutions + 8 * (len(blocks) - convolutions)


def pack_seconds(architecture: Architecture, members: Sequence[Member]) -> tuple[float, float]:
    """What a pack takes alone, and what its FLOPs take."""
    least, image = launches(architecture) * LAUNCH_SECONDS, training_flops(architecture) / FLOPS
    seconds, done, images = 0.0, 0, sum(member.setup.batch_size for member in members)
    for member in sorted(members, key=lambda member: -member.setup.batch_size):  # who takes few steps ends first
        steps = EPOCHS * (IMAGES // member.setup.batch_size)
        seconds += (steps - done) * max(least, images * image)
        done, images = steps, images - member.setup.batch_size
    work = sum(EPOCHS * (IMAGES // m.setup.batch_size) * m.setup.batch_size for m in members) * image
    return seconds, work


def seconds_together(packs: Sequence[tuple[float, float]], at_a_time: int) -> float:
    """Of all packs, longest first: each at its own pace, unless together they want more than the GPU has."""
    waiting = sorted(packs, reverse=True)
    running: list[tuple[float, float]] = []  # seconds left alone, share of the GPU
    now = 0.0
    while waiting or running:
        while waiting and len(running) < at_a_time:
            alone, work = waiting.pop(0)
            running.append((alone, work / alone))
        pace = min(1.0, 1 / sum(share for _, share in running))
        step = min(left for left, _ in running)
        now += step / pace
        running = [(left - step, share) for left, share in running if left - step > 1e-9]
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+", default=[2000, 10000])
    for count in parser.parse_args().members:
        groups: dict[Architecture, list[Member]] = defaultdict(list)
        for member in Space.load(preset="nws-main").members(0, range(count)):
            groups[member.architecture].append(member)
        packs = [pack_seconds(architecture, members) for architecture, members in groups.items()]
        work = sum(work for _, work in packs)
        for at_a_time in (1, 2, 4, 8, 16):
            share = work / seconds_together(packs, at_a_time)
            print(f"{count:,} members, {at_a_time:2} packs at a time: {share:.0%}")


if __name__ == "__main__":
    main()
